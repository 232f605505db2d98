"""Evaluation: every item of every model is counted, paired, and graded by something else than the reward model."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import tiny
from pydantic import ValidationError

from align import tables
from align.errors import StageError
from align.grading.graders import ExactGrader, PythonGrader
from align.grading.suites import Asked
from align.models import engine, generate
from align.models.base import BaseConfig
from align.models.engine import Prompt, Sample, Sampling
from tasks.answer import AnswerConfig, answer
from tasks.evaluate import EvaluateConfig, SuiteConfig, evaluate

QUICKSTART = Path(__file__).parents[1] / "quickstart"
BASE = BaseConfig(path=QUICKSTART / "base", chat_template=QUICKSTART / "chat_template.jinja")


class FakeSampler:
    """Says yes with the model's skill; what the model `mute` says cannot be graded, prompts with `long` do not fit."""

    skill = {"base": 0, "sft": 5, "dpo": 8}

    def __init__(self, base: BaseConfig, adapter: Path | None = None):
        self.model = adapter.name if adapter else "base"

    def draw(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, first: int, too_long: list[str], done: Any, **_: Any
    ) -> list[Sample]:
        assert (sampling.temperature == 0) == (sampling.n == 1) and first == 0
        drawn = []
        for prompt in prompts:
            number = int(prompt.messages[-1]["content"].split()[-1])
            if "long" in prompt.messages[-1]["content"]:
                too_long.append(prompt.row_id)
                continue
            for k in range(sampling.n):
                text = "?" if self.model == "mute" else "yes" if (number + k) % 10 < self.skill[self.model] else "no"
                drawn.append(Sample(prompt.row_id, f"{prompt.row_id}-{k}", k, text, "truncated" if k else "stop", 3))
        done(drawn)
        return drawn

    def close(self) -> None:
        pass


def yes(prompt: str, response: str, reference: str | None, meta: dict[str, Any]) -> bool | None:
    return None if response == "?" else response == "yes"


YES = PythonGrader(function=f"{__name__}:yes")


def question(number: int, source: str = "quiz", **values: Any) -> dict[str, Any]:
    prompt = values.pop("prompt", f"{source} question {number}")
    messages = values.pop("messages", [{"role": "user", "content": prompt}])
    return {
        "row_id": f"{source}{number:03}", "source": source, "use": "evaluation", "split": "evaluation",
        "messages": messages, "prompt": prompt, "reference": "yes", "meta": "{}", **values,
    }  # fmt: skip


def adapters(folder: Path, *names: str) -> dict[str, Path]:
    return {name: folder / name for name in names}


def answered(folder: Path, config: EvaluateConfig, base: BaseConfig, model: str, adapter: Path | None) -> Path:
    """What one policy answers."""
    out = folder / f"answers-{model}"
    out.mkdir(exist_ok=True)
    settings = AnswerConfig(suites=config.asked, **{name: getattr(config, name) for name in Sampling.model_fields})
    answer(settings, out, base=base, rows=folder / "rows.parquet", adapter=adapter)
    return out / "answers.parquet"


def run(
    folder: Path,
    rows: list[dict[str, Any]],
    config: EvaluateConfig,
    base: BaseConfig | None = None,
    /,
    **models: Path | None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    out = folder / "out"
    out.mkdir(exist_ok=True)
    tables.write(folder / "rows.parquet", rows, tables.ROWS)
    answers = {
        model: answered(folder, config, base or BASE, model, adapter)
        for model, adapter in {"base": None, **models}.items()
        if model == "base" or adapter
    }
    metrics = evaluate(config, out, rows=folder / "rows.parquet", seeds=None, **answers)
    assert all(isinstance(v, (int, float, str)) for v in metrics.values())
    return tables.read(out / "evaluations.parquet"), tables.read(out / "comparisons.parquet"), metrics


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "Sampler", FakeSampler)
    monkeypatch.setattr(engine, "identity", lambda base: {})


@pytest.mark.usefixtures("fake")
def test_items_that_are_a_system_message_alone_are_asked_and_said_so(tmp_path: Path) -> None:
    rows = [question(i) for i in range(3)]
    rows[1]["messages"] = [{"role": "system", "content": "Name the number 1"}]
    tables.write(tmp_path / "rows.parquet", rows, tables.ROWS)
    settings = AnswerConfig(suites={"*": Asked()}, n=0)
    metrics = answer(settings, tmp_path, base=BASE, rows=tmp_path / "rows.parquet")
    assert (metrics["answers"], metrics["system_only"], metrics["system_only.asked_as"]) == (3, 1, "system")
    tables.write(tmp_path / "rows.parquet", rows[:1], tables.ROWS)
    assert "system_only" not in answer(settings, tmp_path, base=BASE, rows=tmp_path / "rows.parquet")


@pytest.mark.usefixtures("fake")
def test_every_item_of_every_model_is_there(tmp_path: Path) -> None:
    config = EvaluateConfig(suites={"*": SuiteConfig(grader=YES)}, n=2, primary="sampled")
    models = {**adapters(tmp_path, "sft"), "sft_rs": None, **adapters(tmp_path, "dpo", "mute")}
    rows = [question(i) for i in range(20)]
    answers, comparisons, metrics = run(tmp_path, rows, config, **models)
    assert list(dict.fromkeys(a["model"] for a in answers)) == ["base", "sft", "dpo", "mute"]
    counts = Counter((a["model"], a["mode"], a["status"]) for a in answers)
    assert counts["sft", "greedy", "correct"] == counts["sft", "greedy", "wrong"] == 10
    assert counts["base", "sampled", "wrong"] == 40 and counts["mute", "sampled", "ungraded"] == 40
    assert all(a["detail"] and a["score"] is None for a in answers if a["status"] == "ungraded")
    assert metrics | {
        "primary": "sampled", "items.quiz": 20, "models": 4, "responses": 4 * 20 * 3, "accuracy.quiz.greedy.base": 0.0,
        "accuracy.quiz.greedy.sft": 0.5, "accuracy.quiz.sampled.dpo": 0.8, "ungraded.quiz.greedy.mute": 20,
        "ungraded.quiz.sampled.sft": 0, "truncated.quiz.sampled.sft": 20,
    } == metrics  # fmt: skip
    assert "accuracy.quiz.greedy.mute" not in metrics

    alone = {(c["mode"], c["model"]): c for c in comparisons if c["against"] is None}
    assert len(alone) == 8
    sft = alone["greedy", "sft"]
    assert (sft["n"], sft["mean"], sft["diff"]) == (20, 0.5, None) and sft["low"] < 0.5 < sft["high"]
    assert alone["greedy", "base"]["high"] > 0.1, "0 of 20 is not known to be 0"
    assert (alone["greedy", "mute"]["n"], alone["greedy", "mute"]["mean"]) == (0, None)
    pairs = {(c["mode"], c["model"], c["against"]): c for c in comparisons if c["against"]}
    assert len(pairs) == 2 * 3 * 2, "every ordered pair of the models that have grades"
    up, down = pairs["greedy", "dpo", "sft"], pairs["greedy", "sft", "dpo"]
    assert up["diff"] == pytest.approx(0.3) and up["n"] == 20 and 0 < up["diff_low"] < up["diff"] < up["diff_high"]
    assert (up["mean"], down["mean"]) == (0.8, 0.5)
    assert (down["diff_low"], down["diff_high"]) == pytest.approx((-up["diff_high"], -up["diff_low"]))


@pytest.mark.usefixtures("fake")
def test_ungraded_and_too_long_items_are_counted_but_not_averaged(tmp_path: Path) -> None:
    rows = [question(i) for i in range(10)] + [question(10, prompt="long question 10")]
    config = EvaluateConfig(suites={"quiz": SuiteConfig(grader=YES)}, n=3)
    answers, comparisons, metrics = run(tmp_path, rows, config, **adapters(tmp_path, "sft"))
    long = [a for a in answers if a["row_id"] == "quiz010"]
    assert len(long) == 2 * (1 + 3)
    assert {(a["status"], a["response"], a["score"], a["detail"]) for a in long} == {
        ("ungraded", None, None, "the prompt fills the model's context")}  # fmt: skip
    assert (metrics["items.quiz"], metrics["ungraded.quiz.greedy.sft"]) == (11, 1)
    assert metrics["accuracy.quiz.greedy.sft"] == 0.5
    assert {c["n"] for c in comparisons} == {10}


@pytest.mark.usefixtures("fake")
def test_suites_limits_and_which_rows_count(tmp_path: Path) -> None:
    rows = [
        *(question(i) for i in range(10)),
        *(question(i, "other") for i in range(5)),
        question(90, "quiz", split="preference"),
        question(91, "train", use="instructions", reference=None, response="leaked"),
        question(92, "quiz", prompt="Quiz, question 1!"),  # the same question again
    ]
    suites = {"quiz": SuiteConfig(grader=YES, limit=4), "*": SuiteConfig(grader=ExactGrader())}
    answers, _, metrics = run(tmp_path, rows, EvaluateConfig(suites=suites, n=0))
    assert Counter(a["suite"] for a in answers) == {"quiz": 4, "other": 5}
    assert metrics | {"items.quiz": 4, "items.other": 5, "duplicates.quiz": 1, "duplicates.other": 0} == metrics
    assert {a["mode"] for a in answers} == {"greedy"} and "quiz090" not in {a["row_id"] for a in answers}


@pytest.mark.usefixtures("fake")
def test_held_out_instructions_are_a_suite_if_named(tmp_path: Path) -> None:
    rows = [question(i, "chat", use="instructions", reference=None, response="yes") for i in range(4)]
    config = EvaluateConfig(suites={"chat": SuiteConfig(grader=ExactGrader())}, n=0)
    _, _, metrics = run(tmp_path, rows, config, **adapters(tmp_path, "sft"))
    assert metrics["accuracy.chat.greedy.sft"] == 1.0, "the response of the row is the reference"


@pytest.mark.usefixtures("fake")
def test_a_second_run_gives_equal_bytes(tmp_path: Path) -> None:
    files = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        config = EvaluateConfig(suites={"*": SuiteConfig(grader=YES)}, n=2)
        run(tmp_path / name, [question(i) for i in range(20)], config, **adapters(tmp_path, "sft", "dpo"))
        files.append([f.read_bytes() for f in sorted((tmp_path / name / "out").iterdir())])
    assert files[0] == files[1] and len(files[0]) == 2


@pytest.mark.usefixtures("fake")
def test_nothing_to_evaluate(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="0 evaluation items"):
        run(tmp_path, [question(1, split="sft")], EvaluateConfig())
    (tmp_path / "out").rmdir()
    with pytest.raises(StageError, match="suite quizz has no evaluation rows; sources that have some: quiz"):
        run(tmp_path, [question(1)], EvaluateConfig(suites={"quizz": SuiteConfig(), "*": SuiteConfig()}))


@pytest.mark.usefixtures("fake")
def test_a_grader_that_raises_names_the_row(tmp_path: Path) -> None:
    grader = PythonGrader(function=f"{__name__}:broken")
    with pytest.raises(StageError, match="raised KeyError for row quiz003"):
        run(tmp_path, [question(3)], EvaluateConfig(suites={"*": SuiteConfig(grader=grader)}))


def broken(prompt: str, response: str, reference: str | None, meta: dict[str, Any]) -> float:
    return float(meta["absent"])


@pytest.mark.usefixtures("fake")
def test_a_reward_model_is_no_policy(tmp_path: Path) -> None:
    (tmp_path / "reward/adapter").mkdir(parents=True)
    (tmp_path / "reward/adapter/reward.json").write_text(json.dumps({"kind": "head"}))
    with pytest.raises(StageError, match="reward is a reward model"):
        run(tmp_path, [question(1)], EvaluateConfig(), **adapters(tmp_path, "reward"))


@pytest.mark.parametrize("grader", [{"kind": "reward"}, {"kind": "reward", "adapter": "x"}, {"reward": "x"}])
def test_a_reward_model_is_no_grader(grader: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="tag"):
        EvaluateConfig.model_validate({"suites": {"*": {"grader": grader}}})


def test_sampled_as_primary_needs_samples() -> None:
    with pytest.raises(ValidationError, match="evaluate.n is 0"):
        EvaluateConfig(primary="sampled", n=0)


def test_with_a_real_model(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    """Base and a trained adapter through real generation: the trained one learned what the base does not say."""
    grader = PythonGrader(function=f"{__name__}:starts_well")
    config = EvaluateConfig(suites={"*": SuiteConfig(grader=grader)}, n=2, max_new_tokens=12)
    asked = [question(i, messages=tiny.row(i)["messages"]) for i in range(6)]
    _, _, metrics = run(tmp_path, asked, config, base, sft=adapter)
    assert (metrics["items.quiz"], metrics["responses"]) == (6, 2 * 6 * 3)
    assert metrics["accuracy.quiz.greedy.base"] == 0.0 < metrics["accuracy.quiz.greedy.sft"]


def test_a_suite_or_a_policy_more_is_asked_what_is_new_and_nothing_else(
    base: BaseConfig, adapter: Path, tmp_path: Path
) -> None:
    rows = [
        question(i, source, messages=tiny.row(i)["messages"]) for source, i in (("quiz", 1), ("quiz", 2), ("more", 3))
    ]
    tables.write(tmp_path / "rows.parquet", rows, tables.ROWS)

    def drawn(*suites: str, trained: Path | None = None) -> list[int]:
        """The draws that answering kept, by the file that it added."""
        folder, kept = tmp_path / "-".join(suites), tmp_path / "cache" / "draws"
        folder.mkdir(exist_ok=True)
        before = set(kept.rglob("*.parquet"))
        asked = AnswerConfig(suites={name: Asked() for name in suites}, n=2, max_new_tokens=2)
        given: dict[str, Any] = {"base": base, "rows": tmp_path / "rows.parquet", "cache": tmp_path / "cache"}
        assert answer(asked, folder, adapter=trained, **given)["answers"] == 3 * sum(
            r["source"] in suites for r in rows
        )
        return sorted(pq.read_metadata(file).num_rows for file in set(kept.rglob("*.parquet")) - before)

    assert drawn("quiz") == [2, 4]
    assert drawn("quiz", "more") == [1, 2] and drawn("quiz", "more") == drawn("quiz") == []
    assert drawn("quiz", trained=adapter) == [2, 4] and drawn("quiz", "more") == []


def starts_well(prompt: str, response: str, reference: str | None, meta: dict[str, Any]) -> bool:
    return response.startswith("It is")
