"""What a grader is given and what it gives back."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

from align.errors import StageError

Status = Literal["correct", "wrong", "unreadable", "ungraded", "scored"]
"""What became of a response. `unreadable`: the grader finds nothing in it to grade (no number, no SQL that parses);
that is the model's failure and scores 0. `ungraded`: its item or its judge failed, which says nothing about the model,
so it has no score. `scored`: by a reward model, which calls nothing right or wrong."""
STATUSES: tuple[Status, ...] = get_args(Status)[:4]
"""What a grader may say."""


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
    """A score in [0, 1], or None where the item could not be graded; never a guess."""

    score: float | None
    status: Status
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


def unreadable(detail: str) -> Grade:
    """The response holds nothing to grade: the model's failure."""
    return Grade(0.0, "unreadable", detail)


def ungraded(detail: str) -> Grade:
    """The item or its judge failed: nothing is known about the response."""
    return Grade(None, "ungraded", detail)


def scored(score: float, threshold: float, detail: str = "") -> Grade:
    """A grade on a scale: correct from `threshold` on."""
    return Grade(score, "correct" if score >= threshold else "wrong", detail)
