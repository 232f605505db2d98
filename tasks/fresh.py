"""What has come since the champion's run: its new rows, and some of those that it knew."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from align import tables
from align.config import Config, Metrics, Seed
from align.errors import StageError
from align.text import taken


class FreshConfig(Config):
    """Settings of fresh."""

    replay: int = Field(default=500, ge=0)
    """Known rows of each use and split that stay beside the new ones, chosen by hash: what was learned is not
    forgotten, and no stage is left without rows where only labels have come."""
    seed: Seed = 0
    """Seed of that choice."""


def fresh(config: FreshConfig, out: Path, *, rows: Path, known: Path) -> Metrics:
    """Keep of `rows` (ROWS) what `known` (ROWS) has not, every evaluation item, and `replay` of the rest.

    Writes rows.parquet (ROWS). Raises StageError where nothing that can be trained on is new.
    """
    table = pq.read_table(rows)
    is_new = unknown(table, known)
    item = pc.equal(table["split"], "evaluation")
    uses, splits, ids = (table[name].to_pylist() for name in ("use", "split", "row_id"))
    groups: dict[tuple[str, str], list[int]] = {}
    for at, (new, evaluated) in enumerate(zip(is_new.to_pylist(), item.to_pylist(), strict=True)):
        if not (new or evaluated):
            groups.setdefault((uses[at], splits[at]), []).append(at)
    replayed = {
        group[i] for group in groups.values() for i in taken([ids[at] for at in group], config.replay, config.seed)
    }
    again = pa.array([at in replayed for at in range(len(ids))], pa.bool_())
    arrived = pc.and_(is_new, pc.invert(item))
    if not pc.any(arrived).as_py():
        raise StageError("No row and no label has come since the champion's run.")
    kept = tables.write(out / "rows.parquet", table.filter(pc.or_(pc.or_(is_new, item), again)), tables.ROWS)
    counts = {f"new.{use}": 0 for use in sorted(set(uses))}
    for use, new in zip(uses, arrived.to_pylist(), strict=True):
        counts[f"new.{use}"] += new
    return {"rows": kept, "new": sum(counts.values()), "replayed": len(replayed), **counts}


def unknown(table: pa.Table, known: Path) -> pa.ChunkedArray:
    """Which rows of a table `known` (ROWS) has not."""
    ids = pq.read_table(known, columns=["row_id"])["row_id"]
    return pc.invert(pc.is_in(table["row_id"], ids.combine_chunks()))
