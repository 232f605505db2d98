"""filter: keep the good, different and uncontaminated rows. Every row leaves with kept, reason and evidence."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from align.config import Config, Metrics, Seed
from align.errors import StageError
from align.models.base import BaseConfig
from align.rules.catalogue import DEFAULT, AnyRule
from align.rules.contamination import Contamination
from align.rules.distributions import distributions
from align.rules.pool import Drop, Pool
from align.rules.shingles import each
from align.tables import INSTRUCTIONS, KEPT, ROWS, bare, completed, to_json

GROUP = 100_000  # rows of a row group


class FilterConfig(Config):
    """Which rules decide, in which order."""

    contamination: Contamination = Contamination()
    """How leaked evaluation items are found; always first."""
    rules: tuple[AnyRule, ...] = DEFAULT
    """The other rules, in order, each {rule: name} and its thresholds."""
    seed: Seed = 0
    """Decides MinHash permutations, ties, and the random control rows."""


def filter(config: FilterConfig, out: Path, *, rows: Path, base: BaseConfig, cache: Path | None = None) -> Metrics:
    """Apply the rules to the rows of `rows` (ROWS) with use: instructions.

    Writes instructions.parquet (INSTRUCTIONS and a column per score), kept.parquet (KEPT: the survivors),
    control.parquet (KEPT: as many random rows with a response, whatever the rules say of them) and
    distributions.parquet. Losses and ratings are kept per row in the directory `cache`. Raises StageError if nothing
    stays.
    """
    pool = load(rows, base, config.seed)
    pool.cache = cache
    n = pool.table.num_rows
    reasons, evidence = np.full(n, None, object), np.full(n, None, object)
    dropped: Counter[str] = Counter()
    for name, drops in _in_order(config, pool):
        found = dict(drops)
        for at, why in found.items():
            reasons[at], evidence[at] = name, to_json(why | pool.remarks.pop(at, {}))
        pool.alive[list(found)] = False
        dropped[name] += len(found)
    kept = int(pool.alive.sum())
    if kept + dropped.total() != n:
        raise StageError(f"{kept} rows kept and {dropped.total()} dropped are not the {n} rows read")
    if not kept:
        reason, most = dropped.most_common(1)[0]
        raise StageError(f"the filter kept none of {n} rows; {most} were dropped as {reason}")
    for at, why in pool.remarks.items():
        evidence[at] = to_json(why)
    random = control(pool, kept)
    full = pool.table.select(ROWS.names)
    full = full.append_column("kept", pa.array(pool.alive))
    full = full.append_column("reason", pa.array(reasons, pa.string()))
    full = full.append_column("evidence", pa.array(evidence, pa.string())).cast(bare(INSTRUCTIONS))
    for name, score in pool.scores.items():
        full = full.append_column(name, pa.array(score, pa.float64(), from_pandas=True))
    files = {
        "instructions.parquet": (full,),
        "kept.parquet": (pool.table.select(KEPT.names), pool.alive),
        "control.parquet": (pool.table.select(KEPT.names), np.isin(np.arange(n), random)),
        "distributions.parquet": (distributions(pool, random),),
    }
    each(lambda name: _write(out / name, *files[name]), files)
    told = {f"dropped.{name}": count for name, count in dropped.items()}
    return {"read": n, "kept": kept, "rules": ", ".join(dropped), **told, **pool.notes}


def load(rows: Path, base: BaseConfig, seed: int) -> Pool:
    """The instructions of a ROWS file as a pool, beside everything that is evaluated on.

    A recipe may evaluate on the evaluation split of its own instructions, so these count as items too.
    """
    table = completed(pq.read_table(rows), ROWS)
    items = table.filter(pc.field("split") == "evaluation")
    answers = pc.coalesce(items["reference"], items["response"])
    items = items.select(["row_id", "source", "use", "prompt"]).append_column("reference", answers)
    instructions = table.filter(pc.field("use") == "instructions")
    if not instructions.num_rows:
        raise StageError("filter got no rows of use: instructions; give ingest a source of them")
    return Pool(instructions, items, base, seed)


def _in_order(config: FilterConfig, pool: Pool) -> Iterator[tuple[str, Iterator[Drop]]]:
    """The rules by name. Contamination stands before everything that could select on leaked rows."""
    yield config.contamination.rule, config.contamination.drops(pool)
    yield "reserved", reserved(pool)
    for rule in config.rules:
        yield rule.rule, rule.drops(pool)


def reserved(pool: Pool) -> Iterator[Drop]:
    """Rows whose prompts belong to another split than sft: they are never trained on here."""
    split = pool.column("split").to_pylist()
    yield from ((int(at), {"split": s}) for at, s in zip(pool.live, split, strict=True) if s != "sft")


def control(pool: Pool, n: int) -> np.ndarray:
    """Positions of n random rows that have a response, in order: what the filter is compared with."""
    # an empty response gives nothing to train on
    answered = np.flatnonzero(pc.fill_null(pc.match_substring_regex(pool.table["response"], r"\S"), False).to_numpy())
    return np.sort(np.random.default_rng(pool.seed).permutation(answered)[:n])


def _write(path: Path, table: pa.Table, which: np.ndarray | None = None) -> None:
    """Write those rows of a table, a row group at a time so that it is never copied as a whole."""
    which = np.ones(table.num_rows, bool) if which is None else which
    at = np.flatnonzero(which)
    with pq.ParquetWriter(path, table.schema.remove_metadata(), compression="zstd") as writer:
        for group in np.split(at, range(GROUP, len(at), GROUP)) if len(at) else ():
            first, last = group[0], group[-1] + 1
            part = table.slice(first, last - first).filter(pa.array(which[first:last]))
            writer.write_table(part.combine_chunks().replace_schema_metadata(None))
