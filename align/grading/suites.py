"""Evaluation items: which rows are asked, suite by suite. Answering and grading read the same ones."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from align import tables
from align.config import Config, Metrics
from align.errors import StageError
from align.grading.grade import item_of
from align.text import digest, question_of, taken

Items = dict[str, dict[str, dict[str, Any]]]
"""Rows (ROWS) by suite and row id."""
OTHERS = "*"  # every source with evaluation rows that no suite is named after


class Asked(Config):
    """What is asked of a policy about the rows of one source."""

    kind: Literal["generate", "multiple_choice", "perplexity"] = "generate"
    """generate: the policy writes a response, which the grader grades. multiple_choice: its response is the option of
    the row's `choices` that it finds likeliest per byte. perplexity: how likely it finds the row's reference; the score
    is the geometric mean of the probability of a byte, so that higher is better."""
    options: Literal["texts", "letters"] = "texts"
    """Of multiple_choice: the options' texts after the question alone, or their letters after question and options."""
    turns: int = Field(default=1, ge=1, le=20)
    """Of generate: how many of the row's `turns` are asked, each after the policy's own answers (MT-Bench has 2)."""
    limit: int | None = Field(default=None, ge=1)
    """Evaluate only so many items, chosen by hash: a larger limit keeps those of a smaller one."""


def items(
    limits: Mapping[str, int | None], rows: Path, seed: int, *, may_be_none: bool = False
) -> tuple[Items, Metrics]:
    """The items of the suites that `limits` names with how many are asked, chosen by hash, and counts.

    Equal questions with equal references are one item. Raises StageError if there is none for a suite, or none at all,
    unless that may be.
    """
    found: Items = defaultdict(dict)
    read: Counter[str] = Counter()
    for row in tables.read(rows, split="evaluation"):
        name = row["source"]
        if name in limits or (OTHERS in limits and row["use"] != "instructions"):
            said = question_of(row["messages"])
            read[name] += 1
            found[name].setdefault(digest(*said, row["reference"] or ""), row)
    if missing := [name for name in limits if name != OTHERS and name not in found]:
        others = ", ".join(sorted(found)) or "none"
        raise StageError(f"The suite {missing[0]} has no evaluation rows; sources that have some: {others}.")
    if not found and not may_be_none:
        raise StageError("There are 0 evaluation items; give ingest a source with use: evaluation.")
    suites: Items = {}
    metrics: Metrics = {}
    for name in sorted(found):
        limit = limits.get(name, limits.get(OTHERS))
        asked = list(found[name].values())
        order = [asked[at] for at in taken([r["row_id"] for r in asked], limit, seed)]
        suites[name] = {row["row_id"]: row for row in sorted(order, key=lambda r: r["row_id"])}
        metrics |= {f"items.{name}": len(suites[name]), f"duplicates.{name}": read[name] - len(found[name])}
    return suites, metrics


def turns_of(row: dict[str, Any], most: int = 1) -> list[str]:
    """What the user says after the first turn of an item, one text for each of at most `most` - 1 further turns."""
    if most == 1:
        return []
    listed = item_of(row, "").meta.get("turns")
    later = listed[1:most] if isinstance(listed, list) else []
    if not all(isinstance(t, str) for t in later):
        raise StageError(f"The turns of row {row['row_id']} are not all texts.")
    return later
