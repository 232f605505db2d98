"""Multiple-choice rows as MMLU, MMLU-Pro, ARC and KMMLU write them."""

import json
from pathlib import Path
from typing import Any

import pytest

from align import tables
from align.data.shapes import SHAPES, detect
from align.data.shapes_choices import ASKS, ASKS_KO, multiple_choice
from align.data.turns import BadRow
from align.grading.choice import ChoiceGrader
from align.grading.grade import item_of
from align.grading.graders import grade_all
from tasks.ingest import IngestConfig, Source, ingest

CITIES = ["Paris", "London", "Rome", "Bonn"]
ROWS: dict[str, dict[str, Any]] = {
    "mmlu": {"question": "Where?", "subject": "geography", "choices": CITIES, "answer": 1},
    "mmlu, letter": {"question": "Where?", "choices": CITIES, "answer": "B"},
    "text": {"question": "Where?", "choices": CITIES, "answer": "London"},
    "mmlu-pro": {"question": "Where?", "options": CITIES, "answer": "B", "answer_index": 1, "category": "x"},
    "arc": {"id": "q", "question": "Where?", "choices": {"text": CITIES, "label": ["A", "B", "C", "D"]}, "answerKey": "B"},
    "arc, numbers": {"question": "Where?", "choices": {"text": CITIES, "label": ["1", "2", "3", "4"]}, "answerKey": "2"},
    "kmmlu": {"question": "Where?", **dict(zip("ABCD", CITIES, strict=True)), "answer": 2, "Category": "x"},
    "kmmlu, letter": {"question": "Where?", **dict(zip("ABCD", CITIES, strict=True)), "answer": "B"},
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_shapes(name: str) -> None:
    row = ROWS[name]
    assert detect([row], "evaluation", "f")[0] == "multiple_choice"
    record = SHAPES["multiple_choice"].convert(row)
    (message,) = record.messages
    assert message["content"] == f"Where?\n\nA. Paris\nB. London\nC. Rome\nD. Bonn\n\n{ASKS}"
    assert record.reference == "B" and record.extra == {"question": "Where?", "choices": CITIES}
    assert not record.used & {"subject", "Category", "category", "id"}


def test_korean_questions_ask_in_korean() -> None:
    record = multiple_choice({"question": "수도는?", "A": "부산", "B": "서울", "answer": 2})
    assert record.messages[0]["content"].endswith(ASKS_KO) and record.reference == "B"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"answer": 4}, "answer is '4', which is none of the 4 options, counted from 0"),
        ({"answer": -1}, "answer is '-1'"),
        ({"answer": "Berlin"}, "answer is 'Berlin', which is none of the 4 options"),
        ({"choices": ["one"]}, "no list of 2 to 10 options"),
        ({"choices": ["x", None]}, "choices is null"),
        ({"choices": {"text": CITIES, "label": ["A"]}}, "4 texts and 1 labels"),
        ({"choices": {"text": CITIES, "label": list("KLMN")}, "answer": "B"}, "none of the 4 options"),
    ],
)
def test_rows_that_say_nothing_are_bad(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(BadRow, match=why):
        multiple_choice(ROWS["mmlu"] | changes)
    with pytest.raises(BadRow, match="neither choices nor columns"):
        multiple_choice({"question": "Where?", "answer": 1})


def test_ingested_rows_are_graded_by_letter(tmp_path: Path) -> None:
    file = tmp_path / "quiz.jsonl"
    file.write_text("\n".join(json.dumps(ROWS[name]) for name in ("mmlu", "arc", "kmmlu")), encoding="utf-8")
    metrics = ingest(IngestConfig(sources={"quiz": Source(path=file, use="evaluation")}), tmp_path)
    assert (metrics["shape.quiz"], metrics["rows"]) == ("multiple_choice", 3)
    rows = tables.read(tmp_path / "rows.parquet")
    assert [json.loads(r["meta"])["choices"] for r in rows] == [CITIES] * 3
    grades = grade_all(ChoiceGrader(), [item_of(r, said) for r in rows for said in ("The answer is B.", "London", "C")])
    assert [g.status for g in grades] == ["correct", "correct", "wrong"] * 3
