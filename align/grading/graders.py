"""The graders that a recipe can name, and the one way to call them.

A reward model is not among them, and that is on purpose: a reward model that judged the policy it helped to train would
measure how well it was exploited (Gao et al., 2023).
"""

import importlib
import importlib.util
import re
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from align.config import Config
from align.errors import AlignError, InputError, StageError
from align.grading.choice import ChoiceGrader
from align.grading.grade import Grade, Grader, Item, correct, scored, ungraded, unreadable, wrong
from align.grading.ifeval import IfevalGrader
from align.grading.judge import JudgeGrader
from align.grading.matching import RegexGrader
from align.grading.schema import JsonSchemaGrader
from align.grading.sql import SqlGrader
from align.text import normalise

_NUMBER = re.compile(r"-?\$?(?:\d[\d,]*\.?\d*|\.\d+)")


class NumberGrader(Config):
    """Compare final numbers, as GSM8K does: the last number after `####`, else the last number of the text."""

    kind: Literal["number"] = "number"
    """The final number."""
    tolerance: float = Field(default=1e-6, ge=0)
    """Relative tolerance."""

    @property
    def name(self) -> str:
        """What scores and pairs call this grader."""
        return "number"

    def grade(self, items: Sequence[Item]) -> list[Grade]:
        """Grade all items; a response without a number is `unreadable`, a reference without one is an error."""
        return [self._one(item) for item in items]

    def _one(self, item: Item) -> Grade:
        want, got = final_number(item.reference or ""), final_number(item.response)
        if want is None:
            raise StageError(f"The reference of row {item.row_id} holds no number.")
        if got is None:
            return unreadable("no number in the response")
        close = abs(got - want) <= Decimal(str(self.tolerance)) * max(abs(got), abs(want))
        return correct(f"{got}") if close else wrong(f"{got} instead of {want}")


class ExactGrader(Config):
    """Compare normalised texts: case, punctuation and white space do not count."""

    kind: Literal["exact"] = "exact"
    """The same text after normalisation."""

    @property
    def name(self) -> str:
        """What scores and pairs call this grader."""
        return "exact"

    def grade(self, items: Sequence[Item]) -> list[Grade]:
        """Grade all items; a row without a reference is an error."""
        for item in items:
            if item.reference is None:
                raise StageError(f"Row {item.row_id} has no reference to compare with.")
        same = [normalise(item.response) == normalise(item.reference or "") for item in items]
        return [correct() if s else wrong("another text") for s in same]


class PythonGrader(Config):
    """A function of the user: (prompt, response, reference, meta) -> score in [0, 1], bool, "unreadable" (it finds
    nothing to grade in the response: score 0), or None (it cannot grade this item: ungraded)."""

    kind: Literal["python"] = "python"
    """A function of one's own."""
    function: str
    """`package.module:function`, or the function's name where `file` is given."""
    file: Path | None = None
    """Python file that defines the function; its content then counts for caching, which a module's does not."""
    threshold: float = Field(default=0.5, ge=0, le=1)
    """Scores from here on count as correct."""

    @model_validator(mode="after")
    def _check(self) -> "PythonGrader":
        if (self.file is None) != (":" in self.function):
            raise ValueError("python.function is package.module:function, or a bare name together with python.file")
        return self

    @property
    def name(self) -> str:
        """What scores and pairs call this grader."""
        return f"python:{self.function}"

    def load(self) -> Callable[..., Any]:
        """The function. Raises InputError if it cannot be imported."""
        try:
            if self.file is None:
                module_name, _, name = self.function.partition(":")
                return getattr(importlib.import_module(module_name), name)
            spec = importlib.util.spec_from_file_location(f"grader_{self.file.stem}", self.file)
            if spec is None or spec.loader is None:
                raise ImportError(f"{self.file} is not a Python file")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return getattr(module, self.function)
        except Exception as error:
            raise InputError(
                f"The grader {self.function} cannot be imported: {type(error).__name__}: {error}"
            ) from error

    def grade(self, items: Sequence[Item]) -> list[Grade]:
        """Grade all items. Raises StageError naming the row if the function raises or gives no score."""
        function = self.load()
        return [self._one(function, item) for item in items]

    def _one(self, function: Callable[..., Any], item: Item) -> Grade:
        try:
            score = function(item.prompt, item.response, item.reference, item.meta)
        except Exception as error:
            raise StageError(
                f"The grader {self.function} raised {type(error).__name__} for row {item.row_id}: {error}"
            ) from error
        if score is None:
            return ungraded("the grader gave no score")
        if score == "unreadable":
            return unreadable("the grader cannot read the response")
        try:
            value = float(score)
        except (TypeError, ValueError):
            value = float("nan")
        if not 0 <= value <= 1:
            raise StageError(
                f"The grader {self.function} gave {score!r} for row {item.row_id}; "
                'give a number from 0 to 1, "unreadable" or None.'
            )
        return scored(value, self.threshold)


class NoGrader(Config):
    """Grade nothing: every response is `ungraded`, and counted as such."""

    kind: Literal["none"] = "none"
    """No grader."""

    @property
    def name(self) -> str:
        """What scores and pairs call this grader."""
        return "none"

    def grade(self, items: Sequence[Item]) -> list[Grade]:
        """All ungraded."""
        return [ungraded("no grader") for _ in items]


AnyGrader = Annotated[
    SqlGrader
    | NumberGrader
    | ExactGrader
    | ChoiceGrader
    | RegexGrader
    | JsonSchemaGrader
    | IfevalGrader
    | JudgeGrader
    | PythonGrader
    | NoGrader,
    Field(discriminator="kind"),
]


def grade_all(grader: Grader, items: Sequence[Item]) -> list[Grade]:
    """Grades in the order of `items`; equal responses to one row are graded once.

    Raises StageError (or InputError) with the row's id for whatever a grader raises.
    """
    places: dict[tuple[str, str], int] = {}
    distinct: list[Item] = []
    for item in items:
        if (item.row_id, item.response) not in places:
            places[item.row_id, item.response] = len(distinct)
            distinct.append(item)
    try:
        grades = grader.grade(distinct)
    except AlignError:
        raise
    except Exception as error:
        rows = f"{distinct[0].row_id} and {len(distinct) - 1} others" if distinct else "no row"
        raise StageError(f"The grader {grader.name} raised {type(error).__name__} for row {rows}: {error}") from error
    return [grades[places[item.row_id, item.response]] for item in items]


def final_number(text: str) -> Decimal | None:
    """The last number on the line after the last `####`; of the whole text where there is no such mark."""
    _, mark, after = text.rpartition("####")
    found = _NUMBER.findall(after.strip().partition("\n")[0] if mark else text)
    try:
        return Decimal(found[-1].replace("$", "").replace(",", "").rstrip(".")) if found else None
    except InvalidOperation:
        return None
