"""What holds of every grader: how it is chosen, which items it gets, and that its errors name a row."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from align.errors import StageError
from align.grading.grade import Item, item_of
from align.grading.graders import AnyGrader, ExactGrader, NoGrader, grade_all
from align.grading.sql import SqlGrader


def test_the_union_is_chosen_by_kind(tmp_path: Path) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(AnyGrader)
    assert isinstance(adapter.validate_python({"kind": "sql", "warehouse": str(tmp_path)}), SqlGrader)
    assert isinstance(adapter.validate_python({"kind": "none"}), NoGrader)
    with pytest.raises(ValidationError, match="Extra inputs"):
        adapter.validate_python({"kind": "exact", "warehouse": "x"})


@pytest.mark.parametrize("kind", ["reward", "reward_model", "select"])
def test_a_reward_model_cannot_be_a_grader(kind: str) -> None:
    with pytest.raises(ValidationError, match="does not match any of the expected tags"):
        TypeAdapter(AnyGrader).validate_python({"kind": kind})


def test_exact_ignores_case_and_punctuation() -> None:
    responses = ["The answer: YES!", "the answer is yes"]
    grades = grade_all(ExactGrader(), [Item("r", "", r, "the answer — yes") for r in responses])
    assert [g.status for g in grades] == ["correct", "wrong"]
    with pytest.raises(StageError, match="Row r has no reference"):
        grade_all(ExactGrader(), [Item("r", "", "x")])


def test_none_grades_nothing() -> None:
    (grade,) = grade_all(NoGrader(), [Item("r", "", "x", "x")])
    assert (grade.score, grade.status) == (None, "ungraded")


def test_whatever_a_grader_raises_names_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NoGrader, "grade", lambda self, items: 1 / 0)
    with pytest.raises(StageError, match="none raised ZeroDivisionError for row r1 and 1 others"):
        grade_all(NoGrader(), [Item("r1", "", "x"), Item("r2", "", "x")])


def test_equal_responses_to_a_row_are_graded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Item] = []
    original = ExactGrader.grade

    def grade(self: ExactGrader, items: list[Item]) -> list[Any]:
        seen.extend(items)
        return original(self, items)

    monkeypatch.setattr(ExactGrader, "grade", grade)
    items = [Item("a", "", "x", "x"), Item("b", "", "x", "y"), Item("a", "", "x", "x"), Item("a", "", "z", "x")]
    assert [g.status for g in grade_all(ExactGrader(), items)] == ["correct", "wrong", "correct", "wrong"]
    assert len(seen) == 3


def test_items_come_from_rows() -> None:
    row = {"row_id": "r", "prompt": "p", "reference": None, "response": "because", "meta": '{"a": 1}'}
    assert item_of(row, "x") == Item("r", "p", "x", "because", {"a": 1})
    assert item_of(row | {"reference": "ref", "meta": None}, "x").reference == "ref"
    for meta in ("{", "[1]"):
        with pytest.raises(StageError, match="meta column of row r"):
            item_of(row | {"meta": meta}, "x")
