"""filter: keep the good, different and uncontaminated rows; every drop has a reason and evidence."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from tasks.lib.config import Config
from tasks.lib.contamination import Contamination
from tasks.lib.duplicates import NearDuplicates
from tasks.lib.errors import StageError
from tasks.lib.models import BaseConfig
from tasks.lib.pool import Pool, as_json
from tasks.lib.quality import IFD
from tasks.lib.rows import FILTERED, KEPT, ROWS
from tasks.lib.rules_form import Empty, Length, Refusal, Repetition, Truncated
from tasks.lib.rules_meaning import Budget, Duplicates, Language, Parses

AnyRule = Annotated[
    Empty | Length | Truncated | Refusal | Repetition | Language | Parses | Duplicates | NearDuplicates | IFD | Budget,
    Field(discriminator="rule"),
]


class FilterConfig(Config):
    """Which rules decide, in which order."""

    contamination: Contamination = Contamination()
    """Leaked evaluation items; always first."""
    rules: tuple[AnyRule, ...] = (
        Empty(), Refusal(), Truncated(), Repetition(), Length(), Language(), Duplicates(), NearDuplicates(),
    )  # fmt: skip
    """The rules in order."""
    seed: int = 0
    """Decides MinHash permutations, ties, and the random control rows."""


def filter(config: FilterConfig, out: Path, *, rows: Path, base: BaseConfig) -> dict[str, float | int | str]:
    """Write rows.parquet (all instructions with kept, reason, evidence and scores), kept.parquet (the survivors) and
    control.parquet (as many random rows that have a response). Raises StageError if nothing stays."""
    table = pq.read_table(rows)
    items = table.filter(pc.field("split") == "evaluation").select(["row_id", "source", "prompt", "reference", "use"])
    items = items.filter(pc.field("use") != "instructions")
    pool = Pool(table.filter(pc.field("use") == "instructions"), items, base, config.seed)
    del table
    n = pool.table.num_rows
    if not n:
        raise StageError("filter got no rows with use: instructions")
    reasons, evidence = np.full(n, None, object), np.full(n, None, object)
    dropped: Counter[str] = Counter()
    for rule in (config.contamination, None, *config.rules):
        name = rule.rule if rule else "reserved"
        found = dict(rule.drops(pool)) if rule else reserved(pool)
        for at, why in found.items():
            reasons[at], evidence[at] = name, as_json(why)
        pool.alive[list(found)] = False
        dropped[name] += len(found)
    kept = int(pool.alive.sum())
    if kept + dropped.total() != n:
        raise StageError(f"{kept} rows kept and {dropped.total()} dropped are not the {n} rows read")
    if not kept:
        reason, most = dropped.most_common(1)[0]
        raise StageError(f"the filter kept none of {n} rows; {most} were dropped as {reason}")
    for at, why in pool.remarks.items():
        evidence[at] = evidence[at] or as_json(why)
    full = pool.table.select(ROWS.names)
    full = full.append_column("kept", pa.array(pool.alive))
    full = full.append_column("reason", pa.array(reasons, pa.string()))
    full = full.append_column("evidence", pa.array(evidence, pa.string())).cast(FILTERED)
    for name, score in pool.scores.items():
        full = full.append_column(name, pa.array(score, pa.float64(), from_pandas=True))
    _write(full, out / "rows.parquet")
    _write(pool.table.filter(pa.array(pool.alive)).select(KEPT.names), out / "kept.parquet")
    answered = np.flatnonzero(pc.is_valid(pool.table["response"]).to_numpy())
    chosen = np.sort(np.random.default_rng(config.seed).permutation(answered)[:kept])
    _write(pool.table.take(pa.array(chosen)).select(KEPT.names), out / "control.parquet")
    return {"read": n, "kept": kept, **{f"dropped.{name}": count for name, count in dropped.items()}, **pool.notes}


def reserved(pool: Pool) -> dict[int, dict[str, str]]:
    """Rows whose prompts belong to another split than sft: they are never trained on here."""
    split = pool.column("split").to_pylist()
    return {int(at): {"split": s} for at, s in zip(pool.live, split, strict=True) if s != "sft"}


def _write(table: pa.Table, path: Path) -> None:
    pq.write_table(table.combine_chunks().replace_schema_metadata(None), path, compression="zstd")
