"""The prompts of a split, each once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align import tables
from align.text import question_of

COLUMNS = ["row_id", "use", "messages", "prompt", "response", "calls", "reference", "meta"]


def prompts_of(rows: Path, split: str | Sequence[str], use: Sequence[str]) -> list[dict[str, Any]]:
    """The first row (of ROWS) of every distinct prompt of a split, or several, of the kinds `use`, in their order."""
    first: dict[str, dict[str, Any]] = {}
    splits = [split] if isinstance(split, str) else split
    for row in tables.read(rows, columns=[*COLUMNS, "split"]):
        if row["use"] in use and row["split"] in splits:
            first.setdefault("\0".join(question_of(row["messages"])), row)
    return list(first.values())
