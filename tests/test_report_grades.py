"""The report on what cannot be graded, and on differences that too few questions carry."""

from pathlib import Path
from typing import Any

import pytest
from artifacts import ARMS, artifacts
from test_report import Page, make

from align import tables
from tasks.evaluate import EvaluateConfig, _compare


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return artifacts(tmp_path_factory.mktemp("artifacts"), n=60)


def regraded(folder: Path, inputs: dict[str, Path], change: Any) -> dict[str, Path]:
    """The inputs with an evaluation in which `change(answer)` says what differs in each answer."""
    answers = [a | (change(a) or {}) for a in tables.read(inputs["evaluate"] / "evaluations.parquet")]
    graded = folder / "graded"
    graded.mkdir()
    (graded / "metrics.json").write_text((inputs["evaluate"] / "metrics.json").read_text())
    tables.write(graded / "evaluations.parquet", answers, tables.EVALUATIONS)
    compared = _compare(EvaluateConfig(primary="sampled"), "questions", ["base", *ARMS], answers)
    tables.write(graded / "comparisons.parquet", compared, tables.COMPARISONS)
    return {**inputs, "evaluate": graded}


def test_unreadable_and_ungraded_stand_beside_each_other(inputs: dict[str, Path], tmp_path: Path) -> None:
    """A quarter of what dpo says is unreadable, which lowers it; 15 questions are ungraded, for all and out of all."""
    ids = sorted({a["row_id"] for a in tables.read(inputs["evaluate"] / "evaluations.parquet")})

    def change(a: dict[str, Any]) -> dict[str, Any] | None:
        if a["row_id"] in ids[:15]:
            return {"score": None, "status": "ungraded"}
        if a["row_id"] in ids[15:30] and a["model"] == "dpo":
            return {"score": 0.0, "status": "unreadable", "detail": "no number in the response"}
        return {"score": 1.0, "status": "correct"}

    html, table, _ = make(tmp_path / "report", regraded(tmp_path, inputs, change))
    assert table["columns"][-3:] == ["unreadable %", "ungraded %", "truncated %"]
    cells = {row[0]: row for row in table["rows"]}
    assert cells["dpo"][1].startswith("66.7 [") and cells["sft"][1].startswith("100.0 [")
    assert cells["dpo"][4:7] == ["45 of 60", "25.0", "25.0"] and cells["sft"][4:7] == ["45 of 60", "0.0", "25.0"]
    assert cells["dpo"][3].startswith("-33.3 [")
    text = Page(html).text
    assert "it counts as wrong. Ungraded answers, whose question or judge failed" in text
    assert "15 lost, 30 right in both, 15 not graded" in text, "an unreadable answer is a wrong one"
    assert '<small class="unreadable">unreadable' in html
    assert "unreadable %" in (tmp_path / "report" / "summary.md").read_text()


def test_unreadable_samples_are_among_the_wrong_ones(inputs: dict[str, Path], tmp_path: Path) -> None:
    labelled = tmp_path / "pairs"
    labelled.mkdir()
    scores = tables.read(inputs["pairs"] / "scores.parquet")
    for score in scores:
        score["status"] = "unreadable" if score["status"] == "wrong" else score["status"]
    tables.write(labelled / "scores.parquet", scores, tables.SCORES)
    (labelled / "pairs.parquet").write_bytes((inputs["pairs"] / "pairs.parquet").read_bytes())
    (labelled / "metrics.json").write_text('{"pairs": 60, "samples": 480, "unreadable": 240}')
    html, *_ = make(tmp_path / "report", {**inputs, "pairs": labelled})
    before, *_ = make(tmp_path / "before", inputs)
    mixed = Page(html).text.partition("have both right and wrong samples")[0].rpartition("What was drawn")[2]
    assert mixed and mixed in Page(before).text
    assert "samples that the grader could not read (they count as wrong) 240" in Page(html).text
