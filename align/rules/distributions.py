"""How length, language and scores are spread before the filter, after it, and in a random subset of the same size."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from align.rules.language import PROGRAM
from align.rules.languages import NAMES
from align.rules.pool import Pool
from align.tables import DISTRIBUTIONS, bare

BINS = 30  # of a score, between its 1st and 99th percentile


def distributions(pool: Pool, random: np.ndarray) -> pa.Table:
    """One row per non-empty bucket (DISTRIBUTIONS). `random` are the positions of the random subset."""
    groups = {"before": np.ones(pool.table.num_rows, bool), "after": pool.alive, "random": np.zeros_like(pool.alive)}
    groups["random"][random] = True
    out: list[dict[str, Any]] = []
    for measure, (label, low) in _measures(pool).items():
        for which, mask in groups.items():
            names, counts = np.unique(label[mask & (label >= 0)], return_counts=True)
            for i, count in zip(names, counts, strict=True):
                number = low[i] if isinstance(low[i], float) else None
                bucket = f"{low[i]:g}" if isinstance(low[i], float) else str(low[i])
                out.append({"which": which, "measure": measure, "bucket": bucket, "low": number, "count": int(count)})
    return pa.Table.from_pylist(out, schema=bare(DISTRIBUTIONS))


def _measures(pool: Pool) -> dict[str, tuple[np.ndarray, list[Any]]]:
    """For each measure the bucket of every row (-1: none), and the buckets' edges or names."""
    found: dict[str, tuple[np.ndarray, list[Any]]] = {}
    for side in ("prompt", "response"):
        size = pc.fill_null(pc.utf8_length(pool.table[side]), 0).to_numpy()
        octave = np.where(size > 0, np.log2(np.maximum(size, 1)).astype(np.int64) + 1, 0)
        found[f"{side}_chars"] = octave, [0.0, *(float(2**i) for i in range(int(octave.max(initial=0)) + 1))]
    for side in ("prompt", "response"):
        program = pc.fill_null(pc.match_substring_regex(pool.table[side], PROGRAM), False).to_numpy()
        language = np.where(program, len(NAMES), pool.languages(side))
        found[f"{side}_language"] = language, [name or "unknown" for name in (*NAMES, "code")]
    found["source"] = _named(np.array(pool.table["source"].to_pylist(), str))
    for name, score in pool.scores.items():
        known = score[np.isfinite(score)]
        if len(known):
            edges = np.unique(np.linspace(np.quantile(known, 0.01), np.quantile(known, 0.99), BINS + 1)[:-1])
            label = np.where(np.isfinite(score), np.maximum(np.searchsorted(edges, score, side="right") - 1, 0), -1)
            found[name] = label, [float(e) for e in edges]
    return found


def _named(values: np.ndarray) -> tuple[np.ndarray, list[Any]]:
    names, label = np.unique(values, return_inverse=True)
    return label, [n or "unknown" for n in names.tolist()]
