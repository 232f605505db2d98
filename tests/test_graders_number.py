"""The number grader: which number of a text is its answer, and what is compared."""

import json
from pathlib import Path

import pytest

from align.errors import StageError
from align.grading.grade import Item
from align.grading.graders import NumberGrader, final_number, grade_all


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("6 eggs at 3\n#### 18", "18"), ("#### 1,234.50", "1234.50"), ("#### $-5", "-5"), ("#### -$5", "-5"),
        ("so 5 + 3 = 8", "8"), ("It is 18.", "18"), ("#### 5 + 3 = 8\n9 more", "8"), ("#### .5", ".5"),
        ("#### 1 #### 2", "2"), ("3 #### none", None), ("no digits", None), ("", None), ("####", None), ("...", None),
    ],
)  # fmt: skip
def test_final_number(text: str, number: str | None) -> None:
    found = final_number(text)
    assert (found is None) == (number is None)
    assert number is None or float(found or 0) == float(number)


def test_numbers_are_compared_and_none_is_unreadable() -> None:
    reference = "work\n#### 1,200"
    responses = ["#### 1200", "the answer is 1200.0", "#### 1201", "I do not know"]
    grades = grade_all(NumberGrader(), [Item("r", "", r, reference) for r in responses])
    assert [(g.score, g.status) for g in grades] == [(1, "correct"), (1, "correct"), (0, "wrong"), (0, "unreadable")]
    with pytest.raises(StageError, match="reference of row q9 holds no number"):
        grade_all(NumberGrader(), [Item("q9", "", "1", "none")])


def test_gsm8k_references_have_numbers() -> None:
    file = Path(__file__).parents[2] / "shared/data/gsm8k/test.jsonl"
    if not file.exists():
        pytest.skip("no GSM8K here")
    rows = [json.loads(line) for line in file.open(encoding="utf-8")]
    items = [Item(str(i), r["question"], r["answer"], r["answer"]) for i, r in enumerate(rows)]
    assert {g.status for g in grade_all(NumberGrader(), items)} == {"correct"}
