"""Labels of single responses: desirable or not, with nothing beside them to be better than. What KTO is trained on."""

from collections.abc import Iterator, Sequence
from typing import Any

from align.grading.grade import Grade
from align.text import digest

Row = dict[str, Any]


def is_label(row: Row) -> bool:
    """Whether a preference row (ROWS) is one answer with a label: ingest has put it on one side, the other is null."""
    return (row["chosen"] is None) != (row["rejected"] is None)


def imported(row: Row) -> Row:
    """The label (LABELS, but for held_out) of a preference row that is one."""
    desirable = row["chosen"] is not None
    return _label(row, row["chosen"] if desirable else row["rejected"], desirable, "imported", None)


def graded(row: Row, group: Sequence[tuple[Row, Grade]], by: str, *, truncated: bool, reference: bool) -> Iterator[Row]:
    """Labels of the distinct samples (SAMPLES) of a row that were graded: correct is desirable, wrong and
    unreadable are not.

    A truncated sample is never desirable, because to end a turn there would be learned from it; `truncated` says
    whether it may be undesirable. With `reference` that of the row is desirable where it has no correct sample.
    """
    seen: dict[str, Row] = {}
    for sample, grade in group:
        cut, text = sample["finish_reason"] == "truncated", sample["text"].strip()
        if grade.status != "ungraded" and text and not (cut and (grade.status == "correct" or not truncated)):
            seen.setdefault(text, _label(row, sample["text"], grade.status == "correct", by, sample["sample_id"]))
    yield from seen.values()
    graded_as = {grade.status for _, grade in group}
    if reference and row["reference"] and "correct" not in graded_as and graded_as & {"wrong", "unreadable"}:
        yield _label(row, row["reference"], True, "reference", None)


def _label(row: Row, response: str, desirable: bool, by: str, sample_id: str | None) -> Row:
    return {
        "label_id": digest(row["row_id"], response), "row_id": row["row_id"], "sample_id": sample_id,
        "messages": row["messages"], "response": response, "desirable": desirable, "labelled_by": by,
    }  # fmt: skip
