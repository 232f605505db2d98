"""Whether a response holds what a regular expression describes."""

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import model_validator

from align import patterns
from align.config import Config
from align.errors import StageError
from align.grading.grade import Grade, Item, correct, ungraded, wrong

REFERENCE = "{reference}"


class RegexGrader(Config):
    """Search the response for a pattern: a fixed one, one with the row's reference in it, or the reference itself."""

    kind: Literal["regex"] = "regex"
    """A regular expression."""
    pattern: str = ""
    """What a correct response holds; {reference} stands for the row's reference, word for word. Empty: the reference
    is the pattern. (?i) ignores case, (?s) lets . match line ends, and ^ and $ (\\A and \\Z) ask for the whole."""

    @model_validator(mode="after")
    def _compiles(self) -> "RegexGrader":
        try:
            patterns.compiled(self.pattern.replace(REFERENCE, "x"))
        except ValueError as error:
            shown = self.pattern[:100]
            raise ValueError(f"regex.pattern is not a regular expression ({error}): {shown!r}") from error
        return self

    @property
    def name(self) -> str:
        """What scores and pairs call this grader."""
        return "regex"

    def grade(self, items: Sequence[Item]) -> list[Grade]:
        """Grade all items; one that takes too long to search is `ungraded`. Raises StageError naming the row whose
        reference is missing, or no pattern."""
        return [self._one(item) for item in items]

    def _one(self, item: Item) -> Grade:
        if (not self.pattern or REFERENCE in self.pattern) and item.reference is None:
            raise StageError(f"Row {item.row_id} has no reference to search for.")
        pattern = self.pattern.replace(REFERENCE, re.escape(item.reference or "")) or item.reference or ""
        try:
            found = patterns.search(pattern, item.response)
        except TimeoutError:
            return ungraded(f"searching the response took longer than {patterns.SECONDS:g} s")
        except ValueError as error:
            raise StageError(
                f"The reference of row {item.row_id} is no regular expression ({error}): {item.reference!r:.100}"
            ) from error
        return correct(f"found {found[0][:100]!r}") if found else wrong("the pattern is not in the response")
