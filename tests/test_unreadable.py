"""Unreadable and ungraded: what a model failed to say counts as 0, what an item or a judge failed at counts as nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from align import tables
from align.grading import kept_grades
from align.grading.grade import STATUSES, Grade, Item
from align.grading.graders import NumberGrader, PythonGrader, grade_all
from align.grading.kept_grades import grade_kept
from align.grading.sql import SqlGrader
from tasks.evaluate import EvaluateConfig, SuiteConfig, evaluate
from tasks.pairs import PairsConfig, pairs

NUMBER = SuiteConfig(grader=NumberGrader())


def row(i: int, split: str = "evaluation", meta: str = "{}") -> dict[str, Any]:
    prompt = f"question {i}"
    return {"row_id": f"q{i:03}", "source": "quiz", "use": "evaluation" if split == "evaluation" else "prompts",
            "split": split, "messages": [{"role": "user", "content": prompt}], "prompt": prompt, "reference": str(i),
            "meta": meta}  # fmt: skip


def evaluated(folder: Path, suite: SuiteConfig, n: int = 200, **said: Callable[[int], str]) -> tuple[Any, Any, Any]:
    """EVALUATIONS, COMPARISONS by (model, against) and metrics of models that say `said(i)` to question i of n."""
    tables.write(folder / "rows.parquet", [row(i) for i in range(n)], tables.ROWS)
    for model, say in said.items():
        answers = [{"suite": "quiz", "row_id": f"q{i:03}", "mode": "greedy", "sample_index": 0, "response": say(i),
                    "finish_reason": "stop", "n_tokens": 3} for i in range(n)]  # fmt: skip
        tables.write(folder / f"{model}.parquet", answers, tables.ANSWERS)
    given = {model: folder / f"{model}.parquet" for model in said}
    out = folder / "out"
    out.mkdir()
    config = EvaluateConfig(suites={"quiz": suite}, n=0)
    metrics = evaluate(config, out, rows=folder / "rows.parquet", cache=folder / "cache", seeds=None, **given)
    compared = {(c["model"], c["against"]): c for c in tables.read(out / "comparisons.parquet")}
    return tables.read(out / "evaluations.parquet"), compared, metrics


def test_answering_in_words_does_not_raise_the_accuracy(tmp_path: Path) -> None:
    """60 right and 140 in words of 200 is 30 %, below 100 right and 100 wrong."""
    _, compared, metrics = evaluated(
        tmp_path,
        NUMBER,
        wordy=lambda i: f"#### {i}" if i < 60 else "I would rather not say.",
        plain=lambda i: f"#### {i if i < 100 else -1}",
    )
    assert compared["wordy", None]["mean"] == 0.3 and compared["plain", None]["mean"] == 0.5
    assert compared["wordy", None]["n"] == compared["wordy", "plain"]["n"] == 200
    assert compared["wordy", "plain"]["diff"] == pytest.approx(-0.2) and compared["wordy", "plain"]["diff_high"] < 0
    assert (metrics["unreadable.quiz.greedy.wordy"], metrics["ungraded.quiz.greedy.wordy"]) == (140, 0)
    assert metrics["unreadable.quiz.greedy.plain"] == 0


def choosy(prompt: str, response: str, reference: str | None, meta: dict[str, Any]) -> float | str | None:
    """A grader that has no idea of the first ten questions, and reads nothing in what is mumbled."""
    if int(reference or 0) < 10:
        return None
    return "unreadable" if response == "mumble" else float(response == reference)


def test_an_item_that_fails_stays_out_for_every_model(tmp_path: Path) -> None:
    answers, compared, metrics = evaluated(
        tmp_path,
        SuiteConfig(grader=PythonGrader(function=f"{__name__}:choosy")),
        n=40,
        half=lambda i: str(i) if i % 2 else "mumble",
        all=str,
    )
    assert {(a["model"], a["status"], a["score"]) for a in answers} == {
        ("half", "ungraded", None), ("half", "unreadable", 0.0), ("half", "correct", 1.0), ("all", "ungraded", None),
        ("all", "correct", 1.0)}  # fmt: skip
    assert all(a["detail"] for a in answers if a["status"] != "correct")
    assert (compared["half", None]["n"], compared["half", None]["mean"]) == (30, 0.5)
    assert (compared["all", "half"]["n"], compared["all", "half"]["diff"]) == (30, 0.5)
    assert (metrics["unreadable.quiz.greedy.half"], metrics["ungraded.quiz.greedy.half"]) == (15, 10)


READ = {
    "SELECT sum(amount) FROM orders": "correct",
    "SELECT 1": "wrong",
    "SELECT cty FROM orders": "wrong",  # parses, but asks for what is not there
    "DROP TABLE orders": "wrong",
    "SELECT 1; SELECT 2": "wrong",
    "I cannot answer that.": "unreadable",
    "SELECT sum(amount FROM orders": "unreadable",
    "": "unreadable",
    "-- nothing but a remark": "unreadable",
    "```sql\n```": "unreadable",
}


def test_sql_that_does_not_parse_is_unreadable(tmp_path: Path) -> None:
    pq.write_table(pa.table({"amount": [10, 20]}), tmp_path / "orders.parquet")
    items = [Item("r", "", response, "SELECT sum(amount) FROM orders") for response in READ]
    grades = grade_all(SqlGrader(warehouse=tmp_path), items)
    assert {item.response: grade.status for item, grade in zip(items, grades, strict=True)} == READ
    assert all(g.score == float(g.status == "correct") and (g.detail or g.score) for g in grades)


def labelled(
    folder: Path, texts: dict[str, list[str]], cut: str = "never", **config: Any
) -> tuple[Any, dict[str, Any]]:
    """PAIRS and metrics of these samples by row id, graded by their final number."""
    (folder / "pairs").mkdir()
    tables.write(folder / "rows.parquet", [row(i, "preference") for i in range(10)], tables.ROWS)
    samples = [{"row_id": r, "sample_id": f"{r}-{k}", "sample_index": k, "text": text, "n_tokens": 3,
                "finish_reason": "truncated" if cut in text else "stop"}
               for r, said in texts.items() for k, text in enumerate(said)]  # fmt: skip
    tables.write(folder / "samples.parquet", samples, tables.SAMPLES)
    settings = PairsConfig(grader=NumberGrader(), held_out=0, **config)
    metrics = pairs(settings, folder / "pairs", rows=folder / "rows.parquet", samples=folder / "samples.parquet")
    return tables.read(folder / "pairs/pairs.parquet"), metrics


@pytest.mark.parametrize("strategy", ["best_vs_worst", "best_vs_random", "all"])
def test_unreadable_samples_are_rejected_and_never_chosen(tmp_path: Path, strategy: str) -> None:
    texts = {"q001": ["1", "well"], "q002": ["well", "hm", "9"], "q003": ["3", "3"], "q004": ["well", "hm"]}
    made, metrics = labelled(tmp_path, texts, strategy=strategy, max_pairs_per_prompt=9)
    assert [(p["chosen"], p["rejected"], p["margin"]) for p in made] == [("1", "well", 1.0)]
    assert metrics | {"correct": 3, "wrong": 1, "unreadable": 5, "ungraded": 0, "prompts.all_wrong": 2,
                      "prompts.ungraded": 0, "prompts.no_margin": 0} == metrics  # fmt: skip
    scores = tables.read(tmp_path / "pairs/scores.parquet")
    assert [(s["status"], s["score"]) for s in scores[:2]] == [("correct", 1.0), ("unreadable", 0.0)]


def test_an_unreadable_sample_that_was_cut_off_is_not_rejected(tmp_path: Path) -> None:
    """A number that the token limit cut away says nothing about the answer that was on its way."""
    texts = {"q001": ["1", "so we add the"], "q002": ["2", "well"]}
    made, _ = labelled(tmp_path, texts, cut="so we add")
    assert [p["row_id"] for p in made] == ["q002"]


def test_the_reference_may_be_chosen_where_no_sample_is_readable(tmp_path: Path) -> None:
    made, metrics = labelled(tmp_path, {"q001": ["well", "hm"]}, use_reference=True)
    assert (made[0]["chosen"], made[0]["rejected_id"] is not None, metrics["reference_chosen"]) == ("1", True, 1)
    labels = tables.read(tmp_path / "pairs/labels.parquet")
    assert {(x["response"], x["desirable"]) for x in labels} == {("1", True), ("well", False), ("hm", False)}


def test_grades_of_another_meaning_are_not_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was kept by other grading code is graded again, though grader, item and response are the same."""
    old = [Grade(None, "ungraded", "no number in the response")]
    items = [Item("r", "q", "in words", "7")]
    with monkeypatch.context() as before:
        before.setattr(kept_grades, "code_of", lambda package: "the grading code of another version")
        before.setattr(NumberGrader, "grade", lambda self, items: old)
        assert grade_kept(NumberGrader(), items, tmp_path) == old
    (grade,) = grade_kept(NumberGrader(), items, tmp_path)
    assert (grade.score, grade.status) == (0.0, "unreadable")
    assert grade_kept(NumberGrader(), items, tmp_path) == [grade], "and what is kept of it is the same"


def test_there_is_a_word_for_every_status() -> None:
    words = (Path(__file__).parents[1] / "docs/vocabulary.md").read_text(encoding="utf-8")
    (grader,) = [line for line in words.splitlines() if line.startswith("| grader |")]
    assert all(status in grader for status in STATUSES) and len(STATUSES) == 4
