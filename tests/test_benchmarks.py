"""Public benchmarks through lm-evaluation-harness, on a task of local files, beside the recipe's own suites."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import tiny
from test_evaluate import question

from align import tables
from align.errors import InputError, StageError
from align.grading.suites import Asked
from align.models.base import BaseConfig
from align.models.benchmarks import Benchmarks, metric_of
from flows.check import check
from flows.recipe import load
from tasks.answer import AnswerConfig, answer
from tasks.evaluate import EvaluateConfig, evaluate

TASK = """\
task: sums
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{right}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
"""


def task(folder: Path) -> Path:
    """A directory with a task of five sums, of which the trained adapter says the right answer itself."""
    tasks = folder / "tasks"
    tasks.mkdir()
    docs = [
        {"question": tiny.row(i)["prompt"], "choices": ["SELECT count(*)", f"It is {2 * i}."], "right": 1}
        for i in range(1, 6)
    ]
    (tasks / "docs.jsonl").write_text("\n".join(map(json.dumps, docs)), encoding="utf-8")
    (tasks / "sums.yaml").write_text(TASK.replace("FILE", str(tasks / "docs.jsonl")), encoding="utf-8")
    return tasks


@pytest.mark.skipif(find_spec("lm_eval") is None, reason="lm-evaluation-harness is not installed")
def test_a_local_task_stands_beside_the_suites(
    base: BaseConfig, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    benchmarks = Benchmarks(tasks=("sums",), include=task(tmp_path), limit=4)
    tables.write(tmp_path / "rows.parquet", [question(1)], tables.ROWS)
    given: dict[str, Any] = {}
    for model, trained in (("base", None), ("sft", adapter)):
        (tmp_path / model).mkdir()
        asked = AnswerConfig(suites={"quiz": Asked()}, benchmarks=benchmarks, n=1, max_new_tokens=4)
        answer(
            asked, tmp_path / model, base=base, rows=tmp_path / "rows.parquet", adapter=trained, cache=tmp_path / "cache"
        )  # fmt: skip
        given[model] = tmp_path / model / "answers.parquet"
    config = EvaluateConfig(benchmarks=benchmarks, n=1)
    metrics = evaluate(config, tmp_path, rows=tmp_path / "rows.parquet", **given)
    rows = [r for r in tables.read(tmp_path / "evaluations.parquet") if r["suite"] == "sums"]
    assert len(rows) == 2 * 2 * 4 and len({r["row_id"] for r in rows}) == 4
    mine = [r for r in rows if (r["model"], r["mode"]) == ("sft", "greedy")]
    assert [(r["response"], r["score"], r["status"]) for r in mine] == [
        (f"It is {2 * i}.", 1.0, "correct") for i in range(1, 5)
    ]
    assert all(r["detail"].startswith("acc_norm 1; expected") for r in mine)
    assert metrics["accuracy.sums.greedy.sft"] == 1.0 and "accuracy.sums.sampled.base" in metrics
    pairs = {
        (c["suite"], c["model"], c["against"]): c["n"]
        for c in tables.read(tmp_path / "comparisons.parquet")
        if c["against"]
    }
    assert pairs[("sums", "sft", "base")] == 4
    with pytest.raises(StageError, match="lm-evaluation-harness failed on nowhere"):
        answer(AnswerConfig(suites={}, benchmarks=Benchmarks(tasks=("nowhere",)), n=0), tmp_path, base=base,
               rows=tmp_path / "rows.parquet")  # fmt: skip

    def refuse(*_: Any, tasks: list[str], **__: Any) -> None:
        raise ValueError("is asked again")

    monkeypatch.setattr("lm_eval.simple_evaluate", refuse)
    before, again = tables.read(given["sft"]), tmp_path / "again"
    again.mkdir()
    more: dict[str, Any] = {"base": base, "rows": tmp_path / "rows.parquet", "adapter": adapter}
    answer(asked, again, cache=tmp_path / "cache", **more)
    assert tables.read(again / "answers.parquet") == before, "what is known of a policy and a task is not asked again"
    both = asked.model_copy(update={"benchmarks": benchmarks.model_copy(update={"tasks": ("sums", "others")})})
    with pytest.raises(StageError, match="failed on others: ValueError: is asked again"):
        answer(both, again, cache=tmp_path / "cache", **more)
    fewer = asked.model_copy(update={"benchmarks": benchmarks.model_copy(update={"limit": 3})})
    with pytest.raises(StageError, match="failed on sums: ValueError: is asked again"):
        answer(fewer, again, cache=tmp_path / "cache", **more)


def test_graded_answers_are_not_graded_again(tmp_path: Path) -> None:
    """Without a single item of the recipe's own, and of a task that a source shares its name with."""
    tables.write(tmp_path / "rows.parquet", [question(1, use="instructions", split="sft")], tables.ROWS)
    said = [
        {
            "suite": "arc",
            "row_id": f"a{i}",
            "mode": "greedy",
            "turn": 1,
            "sample_index": 0,
            "response": "x",
            "score": score,
        }
        for i, score in enumerate((1.0, 0.0, 0.25))
    ]
    tables.write(tmp_path / "base.parquet", said, tables.ANSWERS)
    config = EvaluateConfig(benchmarks=Benchmarks(tasks=("arc",)), n=0)
    metrics = evaluate(config, tmp_path, rows=tmp_path / "rows.parquet", base=tmp_path / "base.parquet")
    rows = tables.read(tmp_path / "evaluations.parquet")
    assert [(r["score"], r["status"]) for r in rows] == [(1.0, "correct"), (0.0, "wrong"), (0.25, "scored")]
    assert metrics["accuracy.arc.greedy.base"] == pytest.approx(1.25 / 3)
    tables.write(tmp_path / "rows.parquet", [question(1, "arc")], tables.ROWS)
    with pytest.raises(StageError, match="A benchmark and a source are both called arc"):
        evaluate(config, tmp_path, rows=tmp_path / "rows.parquet", base=tmp_path / "base.parquet")


def test_the_metric_that_becomes_the_score() -> None:
    def samples(**metrics: Any) -> list[dict[str, Any]]:
        return [{"metrics": list(metrics), **{name: value[k] for name, value in metrics.items()}} for k in (0, 1)]

    assert metric_of("t", samples(acc=(0, 1), acc_norm=(1, 1)), {}) == "acc_norm"
    assert metric_of("t", samples(ter=(0.2, 0.1), f1=(0.5, 1)), {"ter": False}) == "f1"
    for bad in ({"bleu": (("a", "b"), ("c", "d"))}, {"likelihood": (-3.0, -1.0)}, {"f1": (0.5, None)}):
        with pytest.raises(StageError, match="The task t has no metric from 0 to 1"):
            metric_of("t", samples(**bad), {})


def test_settings_without_effect_and_places_that_are_none(tmp_path: Path) -> None:
    recipe = load("quickstart", ["evaluate.benchmarks.limit=3"])
    with pytest.raises(InputError, match="benchmarks.limit: has no effect where tasks is empty"):
        check(recipe)
    recipe = load("quickstart", [f"evaluate.benchmarks={{tasks: [sums], include: {tmp_path / 'nowhere'}}}"])
    with pytest.raises(InputError, match=r"evaluate\.benchmarks\.include: .*nowhere is no directory"):
        check(recipe)
