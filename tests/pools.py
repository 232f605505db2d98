"""Pools of rows made on the spot, for tests of filter rules."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from align.models.base import BaseConfig
from align.rules.pool import Evidence, Pool
from align.tables import ROWS
from align.text import digest

CACHE: Path | None = None  # where pools keep work per row; tests that keep some set it
ITEMS = pa.schema([(n, pa.string()) for n in ("row_id", "source", "use", "prompt", "reference")])


def row(prompt: str, response: str | None = "A fine answer.", **changes: Any) -> dict[str, Any]:
    """An instruction in the sft split."""
    return {
        "row_id": digest(prompt, response or ""), "source": "test", "use": "instructions", "split": "sft",
        "messages": [{"role": "user", "content": prompt}], "prompt": prompt, "response": response, "meta": "{}",
        **changes,
    }  # fmt: skip


def pool(
    rows: Sequence[tuple[str, str | None] | dict[str, Any]],
    items: Sequence[tuple[str, str | None]] = (),
    base: BaseConfig | None = None,
) -> Pool:
    """A pool of (prompt, response) pairs or whole rows, and of (prompt, reference) items that are evaluated on."""
    table = pa.Table.from_pylist([r if isinstance(r, dict) else row(*r) for r in rows], schema=ROWS)
    held = [{"row_id": f"item{i}", "source": "exam", "use": "evaluation", "prompt": p, "reference": r}
            for i, (p, r) in enumerate(items)]  # fmt: skip
    nowhere = BaseConfig(path=Path("no-model"))
    return Pool(table, pa.Table.from_pylist(held, schema=ITEMS), base or nowhere, cache=CACHE)


def dropped(rule: Any, *rows: tuple[str, str | None] | dict[str, Any], **options: Any) -> dict[int, Evidence]:
    """What a rule drops, by position."""
    return dict(rule.drops(pool(rows, **options)))
