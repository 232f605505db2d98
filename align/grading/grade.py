"""What a grader is given and what it gives back."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from align.errors import StageError


@dataclass(frozen=True)
class Item:
    """One response to grade."""

    row_id: str
    """The row that asked: what an error message names."""
    prompt: str
    response: str
    reference: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    """The row's other columns."""


@dataclass(frozen=True)
class Grade:
    """A score in [0, 1], or None where the response could not be graded; never a guess."""

    score: float | None
    status: Literal["correct", "wrong", "ungraded"]
    detail: str = ""
    """Why, in words."""


class Grader(Protocol):
    """What a recipe chooses by `kind`: a config that grades. Its errors are a StageError that names the row."""

    @property
    def name(self) -> str:
        """What scores and pairs call this grader."""
        ...

    def grade(self, items: Sequence[Item]) -> list[Grade]:
        """One grade per item, in their order."""
        ...


def item_of(row: dict[str, Any], response: str) -> Item:
    """A response to a row (ROWS). Where the row has no reference, the response that it came with is the reference.

    Raises StageError if the row's meta is not a JSON object.
    """
    try:
        meta = json.loads(row["meta"] or "{}")
    except ValueError:
        meta = None
    if not isinstance(meta, dict):
        raise StageError(f"The meta column of row {row['row_id']} is not a JSON object.")
    reference = row["reference"] if row["reference"] is not None else row["response"]
    return Item(row["row_id"], row["prompt"], response, reference, meta)


def correct(detail: str = "") -> Grade:
    return Grade(1.0, "correct", detail)


def wrong(detail: str = "") -> Grade:
    return Grade(0.0, "wrong", detail)


def ungraded(detail: str) -> Grade:
    return Grade(None, "ungraded", detail)


def scored(score: float, threshold: float, detail: str = "") -> Grade:
    """A grade on a scale: correct from `threshold` on."""
    return Grade(score, "correct" if score >= threshold else "wrong", detail)
