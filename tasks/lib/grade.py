"""What a grader is given and what it gives back."""

from dataclasses import dataclass, field
from typing import Any, Literal


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


def correct(detail: str = "") -> Grade:
    return Grade(1.0, "correct", detail)


def wrong(detail: str = "") -> Grade:
    return Grade(0.0, "wrong", detail)


def ungraded(detail: str) -> Grade:
    return Grade(None, "ungraded", detail)


def scored(score: float, threshold: float, detail: str = "") -> Grade:
    """A grade on a scale: correct from `threshold` on."""
    return Grade(score, "correct" if score >= threshold else "wrong", detail)
