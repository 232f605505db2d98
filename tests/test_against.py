"""Chat suites: each policy's answers against a baseline's, by a judge behind a real endpoint, turn by turn."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from real import SHARED, rows_of
from test_evaluate import question
from test_pairwise import asked, first_place, honest, impressed, judging  # noqa: F401 (a fixture)

from align import tables
from align.errors import InputError, StageError
from align.grading.against import Pairwise
from align.grading.audit import Audit
from align.grading.suites import Asked
from align.models.base import BaseConfig
from align.stats import mean_interval
from flows.check import check
from flows.recipe import load
from tasks.answer import AnswerConfig, answer
from tasks.evaluate import EvaluateConfig, SuiteConfig, evaluate

N = 12
NONE = Audit(pairs=0)


def answers(folder: Path, texts: dict[str, list[list[str]]], mode: str = "greedy") -> dict[str, Path]:
    """Answers of each model to items, one text for each turn."""
    for model, items in texts.items():
        rows = [
            {"suite": "chat", "row_id": f"chat{i:03}", "mode": mode, "turn": turn, "sample_index": 0, "response": text,
             "finish_reason": "stop", "n_tokens": 3}
            for i, turns in enumerate(items) for turn, text in enumerate(turns, 1)
        ]  # fmt: skip
        tables.write(folder / f"{model}.parquet", rows, tables.ANSWERS)
    return {model: folder / f"{model}.parquet" for model in texts}


def graded(
    folder: Path, url: str, texts: dict[str, list[list[str]]], meta: str = "{}", audit: Audit = NONE, **settings: Any
) -> tuple[dict[tuple[str, str], list[dict[str, Any]]], list[dict[str, Any]], dict[str, Any]]:
    """Evaluations by model and item, win rates and metrics."""
    n = max(map(len, texts.values()))
    rows = [question(i, "chat", reference=f"worth 5, reference {i}", meta=meta) for i in range(n)]
    tables.write(folder / "rows.parquet", rows, tables.ROWS)
    suite = SuiteConfig(turns=2, pairwise=Pairwise(judge=asked(url), audit=audit, **settings))
    out = folder / "out"
    out.mkdir(exist_ok=True)
    paths = answers(folder, texts)
    metrics = evaluate(EvaluateConfig(suites={"chat": suite}, n=0), out, rows=folder / "rows.parquet",
                       cache=folder / "cache", seeds=None, **paths)  # fmt: skip
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for r in tables.read(out / "evaluations.parquet"):
        found.setdefault((r["model"], r["row_id"]), []).append(r)
    return found, tables.read(out / "win_rates.parquet"), metrics


def test_answers_against_the_reference(tmp_path: Path, judging: Any) -> None:  # noqa: F811
    kind, url = judging
    worth = [9, 5, 1] * (N // 3)
    texts = {"base": [["worth 1"]] * N, "sft": [[f"worth {w}, sft"] for w in worth]}
    found, rates, metrics = graded(tmp_path, url, texts, audit=Audit(pairs=5))
    scores = [found["sft", f"chat{i:03}"][0] for i in range(N)]
    assert [s["score"] for s in scores] == [1.0, 0.5, 0.0] * (N // 3)
    assert [s["status"] for s in scores[:3]] == ["correct", "scored", "wrong"]
    assert {r["score"] for (model, _), (r,) in found.items() if model == "base"} == {0.0}
    base, sft = rates
    assert (sft["model"], sft["baseline"], sft["n"], sft["wins"], sft["ties"], sft["losses"]) == (
        "sft",
        "reference",
        N,
        4,
        4,
        4,
    )
    raw = mean_interval([s["score"] for s in scores])
    assert (sft["win_rate"], sft["low"], sft["high"]) == pytest.approx(raw[:3]) and base["win_rate"] == 0
    assert metrics["win_rate.chat.greedy.sft"] == 0.5 and metrics["win_rate.chat.greedy.sft.low"] == sft["low"]
    assert metrics["lc_win_rate.chat.greedy.sft"] == sft["lc_win_rate"] and sft["lc_low"] < 0.5 < sft["lc_high"]
    assert metrics["audit.flips.chat"] == 0 and metrics["judge.questions.chat"] > 0
    assert all("[The Start of Reference Answer]\n(none)" in q for q in kind.asked_for if "sft" in q), (
        "nor shown as such"
    )
    comparisons = tables.read(tmp_path / "out/comparisons.parquet")
    (up,) = [c for c in comparisons if (c["model"], c["against"]) == ("sft", "base")]
    assert up["diff"] == 0.5 and "accuracy.chat.greedy.sft" not in metrics
    asked_before = len(kind.asked_for)
    graded(tmp_path, url, texts, audit=Audit(pairs=5))
    assert len(kind.asked_for) == asked_before, "the judge's answers are kept"


def test_the_audit_goes_by_the_baseline_where_policies_say_nothing(tmp_path: Path, judging: Any) -> None:  # noqa: F811
    _, url = judging
    _, (rate,), metrics = graded(tmp_path, url, {"base": [["Hm."]] * N}, audit=Audit(pairs=3))
    assert rate["win_rate"] == 0 and metrics["audit.nothing.chat"] == metrics["audit.itself.chat"] == 0


def test_answers_against_a_model(tmp_path: Path, judging: Any) -> None:  # noqa: F811
    kind, url = judging
    texts = {"base": [["worth 1"]] * N, "sft": [["worth 3"]] * N, "dpo": [["worth 4"]] * 6 + [["worth 3"]] * 6}
    found, rates, metrics = graded(tmp_path, url, texts, baseline="sft")
    assert {r["model"]: r["win_rate"] for r in rates} == {"base": 0.0, "dpo": 0.75}, "none of the baseline itself"
    assert {r["score"] for (model, _), (r,) in found.items() if model == "sft"} == {0.5}
    assert len(kind.asked_for) == 2 * (N + 6), "itself and equal texts are not asked about"
    assert all("worth 5, reference" in q for q in kind.asked_for), "the judge sees the reference"
    with pytest.raises(
        StageError, match="baseline is nobody, and no such model is evaluated; there are base, dpo, sft"
    ):
        graded(tmp_path, url, texts, baseline="nobody")


def test_a_verdict_that_flips_is_a_tie(tmp_path: Path, judging: Any) -> None:  # noqa: F811
    kind, url = judging
    kind.judge = staticmethod(first_place)
    found, (rate,), metrics = graded(tmp_path, url, {"base": [["worth 9"]] * N})
    assert (rate["ties"], rate["win_rate"], metrics["judge.flips.chat"]) == (N, 0.5, 1.0)
    assert "flips with the order" in found["base", "chat000"][0]["detail"]
    with pytest.raises(StageError, match="cannot be trusted"):
        graded(tmp_path, url, {"base": [["worth 9"]] * N}, audit=Audit(pairs=5))


def test_a_judge_that_loves_length_is_seen(tmp_path: Path, judging: Any) -> None:  # noqa: F811
    kind, url = judging
    kind.judge = staticmethod(impressed)
    long = [["worth 1 " + "x" * 10 * (i + 1)] if i % 4 else ["w"] for i in range(40)]
    _, (rate,), _ = graded(tmp_path, url, {"base": long})
    assert rate["win_rate"] == 0.75 and rate["length_effect"] > 1 and rate["longer"] > 0
    assert rate["lc_win_rate"] < rate["win_rate"]


def test_greedy_answers_are_judged_before_the_questions_are_spent(tmp_path: Path, judging: Any) -> None:  # noqa: F811
    _, url = judging
    rows = [question(i, "chat", reference=f"worth 5, reference {i}") for i in range(N)]
    tables.write(tmp_path / "rows.parquet", rows, tables.ROWS)
    for mode in ("sampled", "greedy"):
        answers(tmp_path, {mode: [[f"worth 9, {mode}"]] * N}, mode)
    both = [a for mode in ("sampled", "greedy") for a in tables.read(tmp_path / f"{mode}.parquet")]
    tables.write(tmp_path / "base.parquet", both, tables.ANSWERS)
    judge = asked(url, max_questions=2 * N, concurrency=1)
    suite = SuiteConfig(pairwise=Pairwise(judge=judge, audit=NONE))
    metrics = evaluate(EvaluateConfig(suites={"chat": suite}, n=1), tmp_path, rows=tmp_path / "rows.parquet",
                       base=tmp_path / "base.parquet")  # fmt: skip
    assert (metrics["ungraded.chat.greedy.base"], metrics["ungraded.chat.sampled.base"]) == (0, N)


def test_later_turns_are_judged_as_conversations(tmp_path: Path, judging: Any) -> None:  # noqa: F811
    kind, url = judging
    meta = json.dumps({"turns": ["chat question", "And now?"], "reference": ["worth 5, first", "worth 6, second"]})
    found, (rate,), _ = graded(tmp_path, url, {"base": [["worth 9, one", "worth 1, two"]] * 2}, meta=meta)
    first, second = found["base", "chat000"]
    assert ((first["turn"], first["score"]), (second["turn"], second["score"])) == ((1, 1.0), (2, 1.0))
    assert rate["n"] == 2 and rate["wins"] == 4, "an item has both turns"
    (whole,) = [
        q
        for q in kind.asked_for
        if "chat question 0" in q and "And now?" in q and "A's Answer]\n(Answer 1)\nworth 9" in q
    ]
    assert "(Question 1)\nchat question 0\n\n(Question 2)\nAnd now?" in whole
    assert "(Answer 1)\nworth 9, one\n\n(Answer 2)\nworth 1, two" in whole
    assert "(Answer 1)\nworth 5, first\n\n(Answer 2)\nworth 6, second" in whole
    short = json.dumps({"turns": ["chat question", "And now?"], "reference": ["worth 5, first"]})
    with pytest.raises(StageError, match="Row chat000 has no reference answer to turn 2"):
        graded(tmp_path, url, {"base": [["worth 9, one", "worth 1, two"]]}, meta=short)


def test_the_second_turn_is_asked_after_the_models_own_first_answer(base: BaseConfig, tmp_path: Path) -> None:
    meta = json.dumps({"turns": ["What is 1 plus 1?", "And 2 plus 2?", "And 3?"]})
    rows = [question(1, messages=tiny.row(1)["messages"], meta=meta), question(2, messages=tiny.row(2)["messages"])]
    tables.write(tmp_path / "rows.parquet", rows, tables.ROWS)
    config = AnswerConfig(suites={"quiz": Asked(turns=2)}, n=2, max_new_tokens=5)
    answer(config, tmp_path, base=base, rows=tmp_path / "rows.parquet", cache=tmp_path / "cache")
    given = tables.read(tmp_path / "answers.parquet")
    assert [(a["row_id"], a["mode"], a["turn"], a["sample_index"]) for a in given] == [
        *((i, "greedy", 1, 0) for i in ("quiz001", "quiz002")), ("quiz001", "greedy", 2, 0),
        *((i, "sampled", 1, k) for i in ("quiz001", "quiz002") for k in (0, 1)), *(("quiz001", "sampled", 2, k) for k in (0, 1)),
    ]  # fmt: skip
    for a in given:
        if a["turn"] == 2 and a["mode"] == "greedy":
            said = next(
                b["response"] for b in given if b["row_id"] == "quiz001" and b["mode"] == "greedy" and b["turn"] == 1
            )
            turns = [
                *rows[0]["messages"],
                {"role": "assistant", "content": said},
                {"role": "user", "content": "And 2 plus 2?"},
            ]
            tables.write(tmp_path / "alone.parquet", [question(1, messages=turns)], tables.ROWS)
            answer(AnswerConfig(suites={"quiz": Asked()}, n=0, max_new_tokens=5), tmp_path, base=base,
                   rows=tmp_path / "alone.parquet")  # fmt: skip
            (alone,) = tables.read(tmp_path / "answers.parquet")
            assert alone["response"] == a["response"]


def test_a_baseline_that_nobody_evaluates_is_told() -> None:
    judge = "{base_url: 'http://localhost:1/v1', model: m}"
    recipe = load("quickstart", [f"evaluate.suites.questions={{pairwise: {{judge: {judge}, baseline: dop}}}}"])
    with pytest.raises(
        InputError, match=r"questions\.pairwise\.baseline: dop is no model of this recipe; there are reference"
    ):
        check(recipe)
    check(load("quickstart", [f"evaluate.suites.questions={{pairwise: {{judge: {judge}, baseline: sft}}}}"]))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not here")
def test_mt_bench_with_its_reference_answers(tmp_path: Path, judging: Any) -> None:  # noqa: F811
    """The 30 questions with GPT-4's answers, joined by question_id, in both turns."""
    _, url = judging
    lines = (SHARED / "mt_bench/mt_bench__reference_answer__gpt-4.jsonl").read_text(encoding="utf-8").splitlines()
    told = {r["question_id"]: r["choices"][0]["turns"] for r in map(json.loads, lines)}
    asked_ = (SHARED / "mt_bench/mt_bench__question.jsonl").read_text(encoding="utf-8").splitlines()
    joined = [q | {"reference": told[q["question_id"]]} for q in map(json.loads, asked_) if q["question_id"] in told]
    file = tmp_path / "mt_bench.jsonl"
    file.write_text("\n".join(json.dumps(q) for q in joined), encoding="utf-8")
    rows = rows_of(tmp_path, str(file), "evaluation")
    assert len(rows) == 30 and all(r["reference"] == json.loads(r["meta"])["reference"][0] for r in rows)
    given = [
        {"suite": "real", "row_id": r["row_id"], "mode": "greedy", "turn": t, "sample_index": 0, "n_tokens": 1,
         "response": text, "finish_reason": "stop"}
        for r in rows for t, text in enumerate(("worth 1", json.loads(r["meta"])["reference"][1]), 1)
    ]  # fmt: skip
    tables.write(tmp_path / "base.parquet", given, tables.ANSWERS)
    suite = SuiteConfig(turns=2, pairwise=Pairwise(judge=asked(url), audit=NONE))
    metrics = evaluate(EvaluateConfig(suites={"real": suite}, n=0), tmp_path, rows=tmp_path / "rows.parquet",
                       base=tmp_path / "base.parquet")  # fmt: skip
    assert metrics["items.real"] == 30 and metrics["responses"] == 60
    assert honest("worth 1", "no worth") == "Worth more. [[A]]" and metrics["win_rate.real.greedy.base"] == 1.0
