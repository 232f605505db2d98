"""Suites of what a policy finds likely: options of a question, and the perplexity of references, with real models."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from test_evaluate import answered, question, run

from align import tables
from align.errors import InputError, StageError
from align.grading.choice import options_of
from align.grading.likely import grade_expected, grade_option, perplexity
from align.models.base import BaseConfig
from align.models.engine import Policy, Prompt, Sampling
from align.models.generate import Sampler
from align.models.likelihood import Likelihood, Option, likelihoods
from align.stats import item_means
from flows.check import check
from flows.recipe import load
from tasks.evaluate import EvaluateConfig, SuiteConfig
from tasks.ingest import IngestConfig, Source, ingest

SUM = {"messages": tiny.row(3)["messages"], "prompt": tiny.row(3)["prompt"]}


def suites(**settings: Any) -> EvaluateConfig:
    return EvaluateConfig(suites={"quiz": SuiteConfig(**settings)}, n=2, max_new_tokens=4)


def sums(**columns: Any) -> list[dict[str, Any]]:
    """Items whose right option the trained adapter would say itself: 'It is 6.'."""
    return [
        question(
            i, messages=tiny.row(i)["messages"], prompt=tiny.row(i)["prompt"], reference=f"It is {2 * i}.",
            meta=tables.to_json({"choices": ["SELECT", f"It is {2 * i}.", "The quick brown fox jumps over it"]}),
        ) | columns
        for i in range(1, 5)
    ]  # fmt: skip


def test_log_probabilities_are_those_of_a_plain_forward_pass(base: BaseConfig) -> None:
    import torch

    sampler = Sampler(base)
    prompts = [Prompt("a", tiny.row(1)["messages"]), Prompt("b", [{"role": "user", "content": "Why? " * 20}])] * 2
    texts = ["It is 2.", "SELECT", "Because it is so.", "No"]
    found = sampler.log_probabilities(prompts, texts, batch_size=3)
    for prompt, text, value in zip(prompts, texts, found, strict=True):
        (e,) = sampler.chat.examples([prompt.messages], [text])
        with torch.no_grad():
            logs = sampler.model(torch.tensor([e.ids], device=sampler.model.device)).logits[0].float().log_softmax(-1)
        plain = sum(float(logs[at - 1, e.ids[at]]) for at in range(e.prompt, len(e.ids)))
        assert value == pytest.approx(plain, abs=1e-3)


def test_the_likeliest_option_is_the_answer(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    rows, comparisons, metrics = run(tmp_path, sums(), suites(kind="multiple_choice"), base, sft=adapter)
    assert metrics["accuracy.quiz.greedy.sft"] == 1.0 > metrics["accuracy.quiz.greedy.base"]
    assert {r["response"] for r in rows if r["model"] == "sft"} == {f"It is {2 * i}." for i in range(1, 5)}
    assert {(r["mode"], r["sample_index"]) for r in rows} == {("greedy", 0), ("sampled", 0)}
    assert {(c["mode"], c["n"]) for c in comparisons if c["against"] == "base"} == {("greedy", 4), ("sampled", 4)}
    options = tables.read(tmp_path / "answers-sft/options.parquet")
    assert len(options) == 4 * 3 and all(o["logp_per_byte"] == o["logp"] / len(o["text"].encode()) for o in options)
    for row in rows:
        if row["model"] == "sft":
            of = [o for o in options if o["row_id"] == row["row_id"]]
            best = max(of, key=lambda o: o["logp_per_byte"])
            assert (row["response"], row["logp"], row["n_tokens"]) == (best["text"], best["logp"], best["n_tokens"])
            assert row["score_raw"] == float(max(of, key=lambda o: o["logp"])["text"] == best["text"])
    raw = [r["score_raw"] for r in rows if (r["model"], r["mode"]) == ("sft", "greedy")]
    at = "accuracy_raw.quiz.greedy.sft"
    assert (
        metrics[at] == np.mean(raw) and metrics[f"{at}.low"] < metrics[at] < metrics[f"{at}.high"] or metrics[at] == 1
    )


def test_length_counts_only_in_the_raw_grade() -> None:
    short, long = Option("No", Likelihood(-4.0, 2)), Option("A long answer of 32 bytes, really", Likelihood(-9.0, 12))
    assert short.likelihood.logp > long.likelihood.logp and short.per_byte < long.per_byte
    row = question(1, reference="B", meta=tables.to_json({"choices": [short.text, long.text]}))
    assert grade_option(row, long.text, False).score == 1 and grade_option(row, short.text, False).score == 0
    assert [grade_option(row, letter, True).status for letter in "AB"] == ["wrong", "correct"]
    assert grade_option(row, short.text, False).detail == "A instead of B"


def test_letters_are_scored_after_question_and_options(base: BaseConfig, tmp_path: Path) -> None:
    file = tmp_path / "mmlu.jsonl"
    file.write_text('{"question": "What is 1 plus 1?", "choices": ["1", "2"], "answer": 1}\n')
    ingest(IngestConfig(sources={"quiz": Source(path=file, use="evaluation")}), tmp_path)
    asked: dict[str, list[Any]] = {}
    for options in ("texts", "letters"):
        folder = tmp_path / options
        folder.mkdir()
        rows = tables.read(tmp_path / "rows.parquet")
        answers, *_ = run(folder, rows, suites(kind="multiple_choice", options=options), base)
        asked[options] = [o["text"] for o in tables.read(folder / "answers-base/options.parquet")]
        assert answers[0]["response"] in asked[options] and answers[0]["status"] in ("correct", "wrong")
    assert asked == {"texts": ["1", "2"], "letters": ["A", "B"]}
    policy, sampling = Policy(base, None, None), Sampling(n=1)
    alone = [Prompt("x", [{"role": "user", "content": "What is 1 plus 1?"}])]
    (plain,) = likelihoods(policy, sampling, policy.engine(sampling).chat, alone, ["2"])  # type: ignore[attr-defined]
    kept = {o["text"]: o["logp"] for o in tables.read(tmp_path / "texts/answers-base/options.parquet")}
    assert plain is not None and kept["2"] == pytest.approx(plain.logp, abs=1e-4), "the question alone is asked"


def test_perplexity_of_references(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    rows, comparisons, metrics = run(tmp_path, sums(), suites(kind="perplexity"), base, sft=adapter)
    assert {r["status"] for r in rows} == {"scored"} and {r["finish_reason"] for r in rows} == {None}
    for r in rows:
        assert r["score"] == pytest.approx(math.exp(r["logp"] / len(r["response"].encode()))) and 0 < r["score"] < 1
    (up,) = [c for c in comparisons if (c["model"], c["against"], c["mode"]) == ("sft", "base", "greedy")]
    assert up["diff"] > 0 and metrics["perplexity.quiz.greedy.sft"] < metrics["perplexity.quiz.greedy.base"]
    mine = [r for r in rows if (r["model"], r["mode"]) == ("sft", "greedy")]
    nll = -sum(r["logp"] for r in mine) / sum(r["n_tokens"] for r in mine)
    assert metrics["nll.quiz.greedy.sft"] == pytest.approx(nll)
    assert metrics["perplexity.quiz.greedy.sft"] == pytest.approx(math.exp(nll))
    bits = -sum(r["logp"] for r in mine) / math.log(2) / sum(len(r["response"].encode()) for r in mine)
    assert metrics["bits_per_byte.quiz.greedy.sft"] == pytest.approx(bits)
    scores = item_means({r["row_id"]: [r["score"]] for r in mine})
    assert metrics["byte_probability.quiz.greedy.sft"] == pytest.approx(np.mean(list(scores.values())))
    assert "accuracy.quiz.greedy.sft" not in metrics


def test_a_likelier_reference_always_scores_higher() -> None:
    scores = [grade_expected("reference", logp, 9).score for logp in (0.0, -1.0, -9.0, -900.0, -1e9)]
    assert scores == sorted(scores, key=lambda s: -(s or 0)) and scores[0] == 1.0 and scores[-1] == 0.0
    assert perplexity(-1e9, 1) == math.inf


def test_what_is_known_is_not_scored_again(base: BaseConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, sampling = Policy(base, None, tmp_path), Sampling(n=1)
    chat = policy.engine(sampling).chat  # type: ignore[attr-defined]
    prompts = [Prompt("x", tiny.row(1)["messages"])] * 2
    first = likelihoods(policy, sampling, chat, prompts, ["It is 2.", "x" * 5000])
    assert first[0] is not None and first[1] is None, "does not fit the context"
    monkeypatch.setattr(Sampler, "log_probabilities", None)
    assert likelihoods(Policy(base, None, tmp_path), sampling, chat, prompts, ["It is 2.", "x" * 5000]) == first


@pytest.mark.parametrize(
    ("kind", "columns", "why"),
    [
        ("multiple_choice", {"meta": "{}", "reference": "A"}, "Row quiz001 has no choices"),
        ("multiple_choice", {"reference": "nothing of it"}, "reference of row quiz001 is"),
        ("perplexity", {"reference": None}, "Row quiz001 has no reference"),
    ],
)
def test_items_that_lack_what_their_kind_needs(
    base: BaseConfig, tmp_path: Path, kind: str, columns: dict[str, Any], why: str
) -> None:
    with pytest.raises(StageError, match=why):
        tables.write(tmp_path / "rows.parquet", sums(**columns), tables.ROWS)
        answered(tmp_path, suites(kind=kind), base, "base", None)


def test_settings_without_effect_are_told() -> None:
    recipe = load("quickstart", ["evaluate.suites.questions.kind=perplexity"])
    with pytest.raises(InputError, match=r"suites\.questions\.grader: has no effect where kind is perplexity"):
        check(recipe)
    recipe = load("quickstart", ["evaluate.suites.questions.options=letters"])
    with pytest.raises(InputError, match=r"suites\.questions\.options: has no effect where kind is generate"):
        check(recipe)


def test_choices_are_read_from_rows() -> None:
    assert options_of("r", "2", {"choices": ["x", "y"]}).right == 1
