"""Grading SQL by execution: a response is correct if it returns what the reference returns."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from align.config import Config
from align.errors import StageError
from align.grading.grade import Grade, Item, correct, unreadable, wrong
from align.grading.sandbox import Limits, Result, Sandbox
from align.progress import track

Row = tuple[Any, ...]

_FENCE = re.compile(r"```[ \t]*(?:sql|duckdb)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)


class SqlGrader(Config):
    """Execute response and reference in a sandbox and compare the rows (execution accuracy).

    Rows are compared as a multiset, and in order if the reference has an ORDER BY at its top level. Column names do not
    count, column order does. Numbers are equal within a tolerance, NULL equals NULL. A response that does not run is
    wrong, one that the engine cannot even parse is `unreadable`; a reference that does not run is an error.
    """

    kind: Literal["sql"] = "sql"
    """Execution accuracy."""
    warehouse: Path
    """Directory of <table>.parquet or <table>.csv files, with an optional schema.sql."""
    limits: Limits = Limits()
    """What one query may use."""
    tolerance: float = Field(default=1e-6, ge=0)
    """Relative tolerance between numbers."""

    @property
    def name(self) -> str:
        """What scores and pairs call this grader."""
        return "sql"

    def grade(self, items: Sequence[Item]) -> list[Grade]:
        """Grade all items; every distinct query runs once. Raises StageError for a reference that does not run."""
        with Sandbox(self.warehouse, self.limits) as sandbox:
            expected = self._references(sandbox, items)
            places: dict[str, list[int]] = defaultdict(list)
            for i, item in enumerate(items):
                places[extract(item.response)].append(i)
            grades: dict[int, Grade] = {}
            results = zip(places.values(), sandbox.run(places), strict=True)
            for where, result in track(results, "grading SQL", len(places)):
                known: dict[str, Grade] = {}
                for i in where:
                    reference = str(items[i].reference)
                    if reference not in known:
                        known[reference] = compare(result, expected[reference], self.tolerance)
                    grades[i] = known[reference]
        return [grades[i] for i in range(len(items))]

    def _references(self, sandbox: Sandbox, items: Sequence[Item]) -> dict[str, Result]:
        first: dict[str, Item] = {}
        for item in items:
            if not (item.reference or "").strip():
                raise StageError(f"Row {item.row_id} has no reference SQL to grade against.")
            first.setdefault(str(item.reference), item)
        expected = dict(zip(first, sandbox.run(map(extract, first), order=True), strict=True))
        for reference, result in expected.items():
            if result.status != "ok":
                row = first[reference].row_id
                raise StageError(f"The reference SQL of row {row} does not run ({result.detail}): {reference[:200]}")
        return expected


def extract(text: str) -> str:
    """The SQL in a response: its first fenced block if it has one, else all of it."""
    fenced = _FENCE.search(text)
    return (fenced.group(1) if fenced else text).strip()


def compare(result: Result, reference: Result, tolerance: float) -> Grade:
    """Grade the result of a response against that of its reference."""
    if result.status == "unparsable":
        return unreadable(result.detail)
    if result.status != "ok":
        return wrong(f"{result.status}: {result.detail}")
    got, want = [list(map(_canonical, r)) for r in result.rows], [list(map(_canonical, r)) for r in reference.rows]
    if len(got) != len(want):
        return wrong(f"{len(got)} rows instead of {len(want)}")
    if got and len(got[0]) != len(want[0]):
        return wrong(f"{len(got[0])} columns instead of {len(want[0])}")
    left, right = list(map(tuple, got)), list(map(tuple, want))
    if reference.ordered:
        if all(_same(a, b, tolerance) for a, b in zip(left, right, strict=True)):
            return correct()
        return wrong("the right rows in another order" if _multiset(left, right, tolerance) else "other rows")
    return correct() if _multiset(left, right, tolerance) else wrong("other rows")


def _canonical(value: Any) -> Any:
    """Booleans are not numbers, and NaN equals NaN."""
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, float) and math.isnan(value):
        return ("nan",)
    return value


def _same(a: Row, b: Row, tolerance: float) -> bool:
    """Whether two rows are equal, numbers within the tolerance."""
    for x, y in zip(a, b, strict=True):
        if x == y:
            continue
        if not (isinstance(x, (int, float)) and isinstance(y, (int, float))):
            return False
        if not math.isclose(x, y, rel_tol=tolerance, abs_tol=1e-9):
            return False
    return True


def _multiset(left: list[Row], right: list[Row], tolerance: float) -> bool:
    """Whether the rows of `left` can be matched one to one with those of `right`.

    Exactly equal rows are taken out first; the rest is matched greedily among rows that agree in all that is not a
    number, which is exact unless different rows lie within the tolerance of each other.
    """
    more, fewer = Counter(left), Counter(right)
    rest = fewer - more
    candidates: dict[Row, list[Row]] = defaultdict(list)
    for row in rest.elements():
        candidates[_key(row)].append(row)
    for row in (more - fewer).elements():
        bucket = candidates[_key(row)]
        match = next((i for i, other in enumerate(bucket) if _same(row, other, tolerance)), None)
        if match is None:
            return False
        bucket.pop(match)
    return True


def _key(row: Row) -> Row:
    return tuple(None if isinstance(v, (int, float)) else ("", v) for v in row)
