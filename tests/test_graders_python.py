"""A function of the user as a grader: its scores, and the row and reason when it fails."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from align.errors import InputError, StageError
from align.grading.grade import Item
from align.grading.graders import PythonGrader, grade_all


def length(prompt: str, response: str, reference: str | None, meta: dict[str, Any]) -> Any:
    if response == "raise":
        raise RuntimeError("boom")
    said = {"none": None, "mumble": "unreadable", "much": 7, "word": "good", "nan": float("nan")}
    return said.get(response, min(1, len(response) / 10))


PYTHON = PythonGrader(function=f"{__name__}:length")


def test_python_scores_become_grades() -> None:
    grades = grade_all(PYTHON, [Item("r", "", r) for r in ("x" * 20, "xx", "none", "mumble")])
    assert [(g.score, g.status) for g in grades] == [
        (1, "correct"), (0.2, "wrong"), (None, "ungraded"), (0, "unreadable")]  # fmt: skip


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("raise", "raised RuntimeError for row r13: boom"),
        ("much", "gave 7 for row r13"),
        ("word", "gave 'good' for row r13"),
        ("nan", "gave nan for row r13"),
    ],
)
def test_a_python_grader_that_fails_names_the_row(response: str, reason: str) -> None:
    with pytest.raises(StageError, match=reason):
        grade_all(PYTHON, [Item("r12", "", "x"), Item("r13", "", response)])


def test_a_python_grader_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def grade(prompt, response, reference, meta):\n    return meta['want'] == response\n")
    grader = PythonGrader(function="grade", file=file)
    items = [Item("a", "", "x", None, {"want": "x"}), Item("b", "", "x", None, {"want": "y"})]
    assert [g.status for g in grade_all(grader, items)] == ["correct", "wrong"]
    file.write_text("syntax error here")
    with pytest.raises(InputError, match="cannot be imported: SyntaxError"):
        grade_all(grader, items)


@pytest.mark.parametrize("function", ["nowhere.at.all:f", f"{__name__}:nothing"])
def test_a_python_grader_that_is_not_there(function: str) -> None:
    with pytest.raises(InputError, match="cannot be imported"):
        grade_all(PythonGrader(function=function), [])
    with pytest.raises(ValidationError, match="package.module:function"):
        PythonGrader(function="bare")
