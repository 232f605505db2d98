"""`align compare` on two runs with 100,000 evaluation rows each, against the same figures from rows as Python dicts.

    python -m benchmarks.compare [EVALUATION_ROWS ...]       default 100000

Six policies answer each item greedily and four times more; two of them answer alike in both runs, as base and SFT do
where only DPO differs. `columns` is how the command reads and pairs the scores and answers; `dicts` reads the rows
with `align.tables.read` and groups them in Python, up to the same figures, which is checked. The intervals
cost the same in both and stand apart. `align compare` is the whole command, Python's start included, with 20,000 rows,
as many verdicts and 5,000 pairs besides. All are CPU seconds, so that a busy machine does not count.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from align import tables
from align.comparison import graded
from align.config import Config
from align.paired import Paired, paired_difference
from align.seeds import seeded
from align.stats import item_means
from flows.recipe import load
from storage import build
from storage.runs import Run, StageRun
from storage.store import Store

MODELS = ("base", "sft", "sft_random", "sft_rs", "sft_unfiltered", "dpo")
ALIKE = ("base", "sft")
SAMPLES = 4
STAGES = {"ingest": "rows", "filter": "instructions", "pairs": "pairs", "evaluate": "evaluations"}


class Seed(Config):
    """Which of the two runs it is."""

    seed: int


def evaluations(n: int, seed: int) -> pa.Table:
    """About `n` rows of EVALUATIONS; of every hundred items one is asked in this run only."""
    items = n // len(MODELS) // (1 + SAMPLES)
    columns: dict[str, list[Any]] = {name: [] for name in tables.EVALUATIONS.names}
    for model in MODELS:
        rng = np.random.default_rng([MODELS.index(model), 0 if model in ALIKE else seed])
        right = rng.random((items, 1 + SAMPLES)) < 0.5
        for i in range(items):
            for k in range(1 + SAMPLES):
                score = bool(right[i, k])
                row = {
                    "suite": "questions", "row_id": name(f"item {i} {seed if i % 100 == 0 else ''}"), "model": model,
                    "mode": "sampled" if k else "greedy", "sample_index": max(0, k - 1),
                    "response": f"SELECT {i} FROM orders WHERE price > {score} " * 3, "score": float(score),
                    "status": "correct" if score else "wrong", "finish_reason": "stop", "detail": "1 row instead of 2",
                }  # fmt: skip
                for column, values in columns.items():
                    values.append(row.get(column))
    return pa.Table.from_pydict(columns, schema=tables.bare(tables.EVALUATIONS))


def name(text: str) -> str:
    """An id as ingest gives it."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def others(seed: int) -> dict[str, list[dict[str, Any]]]:
    """Rows, verdicts and pairs; of every hundred one is of this run only."""
    ids = [name(f"row {i} {seed if i % 100 == 0 else ''}") for i in range(20_000)]
    said = [{"role": "user", "content": f"question {i}"} for i in range(len(ids))]
    rows: list[dict[str, Any]] = [
        {"row_id": r, "source": "s", "use": "instructions", "split": "sft", "messages": [m], "prompt": m["content"],
         "response": f"answer {r} " * 5, "meta": "{}"} for r, m in zip(ids, said, strict=True)
    ]  # fmt: skip
    judged = [r | {"kept": (i + seed) % 50 > 0, "reason": None if (i + seed) % 50 else "x"} for i, r in enumerate(rows)]
    pairs = [
        {"pair_id": r["row_id"], "row_id": r["row_id"], "messages": r["messages"], "labelled_by": "sql",
         "chosen": "a" if (i + seed) % 50 else "b", "rejected": "b" if (i + seed) % 50 else "a"}
        for i, r in enumerate(rows[:5000])
    ]  # fmt: skip
    return {"rows": rows, "instructions": judged, "pairs": pairs}


def run(store: Store, n: int, seed: int) -> Path:
    """A run of four stages in the store; its evaluation."""
    recorded = Run(store, "synthetic", load(overrides=[f"dpo.seed={seed}"]).model_dump(mode="json"))
    made: dict[str, Any] = {**others(seed), "evaluations": evaluations(n, seed)}
    for stage, table in STAGES.items():

        def write(config: Seed, out: Path, table: str = table) -> dict[str, Any]:
            return {"rows": tables.write(out / f"{table}.parquet", made[table], tables.TABLES[table])}

        attempt, _ = build.build(store, build.request(store, stage, write, Seed(seed=seed), {}))
        recorded.stage(StageRun(stage, attempt.key, attempt.artifact, "ran", 1.0, "", {}))
    recorded.finish("done")
    return store.root / "artifacts" / attempt.artifact / "evaluations.parquet"


Means = dict[tuple[str, str], dict[str, float]]


def dicts(before: Path, after: Path) -> tuple[Means, Means, dict[str, tuple[int, int]]]:
    """Mean scores by policy, mode and item of both runs, and answers gained and lost by policy, row by row."""
    means: list[Means] = []
    right: list[dict[str, dict[str, bool]]] = []
    for path in (before, after):
        scores: dict[tuple[str, str], dict[str, list[float | None]]] = defaultdict(lambda: defaultdict(list))
        greedy: dict[str, dict[str, bool]] = defaultdict(dict)
        for r in tables.read(path):
            scores[r["model"], r["mode"]][r["row_id"]].append(r["score"])
            if r["mode"] == "greedy":
                greedy[r["model"]][r["row_id"]] = r["status"] == "correct"
        means.append({at: item_means(of) for at, of in scores.items()})
        right.append(greedy)
    changed = {}
    for model, now in right[1].items():
        was = right[0][model]
        both = was.keys() & now.keys()
        changed[model] = sum(now[i] > was[i] for i in both), sum(now[i] < was[i] for i in both)
    return means[0], means[1], changed


def main() -> None:
    for n in map(int, sys.argv[1:] or ["100000"]):
        with tempfile.TemporaryDirectory(prefix="align-compare-") as folder:
            store = Store(Path(folder) / "store")
            before, after = (run(store, n, seed) for seed in (1, 2))
            intervals = 0.0

            def timed(*values: Any, **options: Any) -> Paired:
                nonlocal intervals
                started = time.process_time()
                found = seeded(*values, **options)
                intervals += time.process_time() - started
                return found

            graded.seeded = timed
            started = time.process_time()
            differences, answers = graded.graded(before, after, [], ("dpo", "dpo"), {}, 5)
            columns = time.process_time() - started - intervals
            started = time.process_time()
            was, now, changed = dicts(before, after)
            plain = time.process_time() - started
            for d in differences:
                e = paired_difference(now[d.after, d.mode], was[d.after, d.mode])
                assert (d.low, d.high, d.n, d.differ, d.verdict) == (e.low, e.high, e.n, e.differ, e.verdict)
            assert {a.after: (a.gained, a.lost) for a in answers} == changed
            first = next(path.name for path in sorted((store.root / "runs").iterdir()))
            command = [sys.executable, "-m", "flows.cli", "compare", first, "--store", str(store.root), "--json"]
            child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            _, status, used = os.wait4(child.pid, 0)
            assert status == 0
        print(f"{n:,} evaluation rows in each run, {len(differences)} paired differences; CPU seconds")
        print(f"  reading and pairing: columns {columns:.2f}, dicts {plain:.2f}: {plain / columns:.1f} × the time")
        print(f"  intervals, the same in both: {intervals:.2f}")
        print(f"  align compare: {used.ru_utime + used.ru_stime:.2f}, {used.ru_maxrss / 1000:.0f} MB at most")


if __name__ == "__main__":
    main()
