"""Responses that are code: whether the engine takes them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from align.config import Config
from align.grading.sandbox import Limits, Sandbox
from align.progress import track
from align.rules.pool import Drop, Pool


class Parses(Config):
    """Drop responses that the engine refuses: SQL by running it in the sandbox, against a warehouse."""

    rule: Literal["parses"] = "parses"
    kind: Literal["sql"] = "sql"
    """What responses are."""
    warehouse: Path
    """Directory with one Parquet or CSV file per table, and optionally schema.sql."""
    limits: Limits = Limits()
    """What one query may use; a query that wants more is let through, being SQL."""

    def drops(self, pool: Pool) -> Iterator[Drop]:
        live = pool.live
        with Sandbox(self.warehouse, self.limits) as sandbox:
            results = sandbox.run(r or "" for r in pool.column("response").to_pylist())
            for at, result in zip(live, track(results, "running SQL", len(live)), strict=True):
                if result.status in ("error", "refused"):
                    yield int(at), {"error": result.detail}
