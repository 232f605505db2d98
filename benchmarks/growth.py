"""What a store's history costs: CPU seconds and peak memory of `align` verbs on an empty store and on a large one.

    python -m benchmarks.growth [ATTEMPTS ...]       default 0 20000 100000

The history is made of records as a run of the quickstart leaves them: each of its stages an attempt of its own, with
the artifact's manifest. `first` is the first question after the index is lost, which makes it again; of `run`, the run
that computes what the others find.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flows.graph import parents
from flows.plan import plan
from flows.recipe import load
from storage import layout, records
from storage.store import Attempt, Store

ALIGN = [sys.executable, "-m", "flows.cli"]
VERBS = {
    "plan": ["plan"],
    "sql runs": ["sql", "SELECT count(*) FROM runs"],
    "sql metrics": ["sql", "SELECT stage, name, value FROM metrics"],
    "sql all_metrics": ["sql", "SELECT name, avg(value) FROM all_metrics GROUP BY 1"],
    "sql attempts": ["sql", "SELECT stage, count(*) FROM attempts GROUP BY 1"],
    "sql artifacts": ["sql", "SELECT stage, sum(bytes) FROM artifacts GROUP BY 1"],
    "runs": ["runs"],
    "run": ["run", "--select", "ingest"],
}


def history(store: Store, attempts: int) -> int:
    """Records of so many attempts, 13 to a run; returns the number of runs."""
    runs = 0
    for told in told_runs(store, attempts):
        runs += 1
        for name, value in told.items():
            path = store.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(records.encode(value), encoding="utf-8")
    return runs


def told_runs(store: Store, attempts: int) -> Iterator[dict[str, dict[str, Any]]]:
    """The records of each run, by name."""
    recipe = load()
    stages = list(parents(recipe))
    known = plan(Store(store.root / "none"), recipe)[0].request
    assert known is not None
    source = recipe.model_dump(mode="json")
    for n in range(attempts // len(stages)):
        second = f"2026-01-{1 + n // 86400 % 28:02}T{n // 3600 % 24:02}:{n // 60 % 60:02}:{n % 60:02}.{n % 10**6:06}Z"
        run_id = f"{second[:19].replace('-', '').replace(':', '').replace('T', '-')}-{n:04x}"
        started = {"run_id": run_id, "recipe": f"recipe-{n % 7}", "started_at": second, "source": source}
        told: dict[str, dict[str, Any]] = {layout.started(run_id): started}
        for i, stage in enumerate(stages):
            digest = f"{n:08x}{i:08x}"
            artifact, key, values = f"{stage}-{digest}", digest * 2, {f"loss.{k}": n / (k + 1) for k in range(20)}
            inputs = {"rows": {"artifact": artifact, "digest": digest * 4}}
            attempt = Attempt(stage, key, artifact, known.canonical, inputs,
                              known.code, {"torch": "2.13.0"}, values, 1.5, second)  # fmt: skip
            told[layout.attempt(key, second)] = asdict(attempt)
            told[layout.stage(run_id, i, stage)] = {
                "run_id": run_id, "ended_at": second, "stage": stage, "key": key, "artifact": artifact,
                "status": "ran", "seconds": 1.5, "reason": "never ran", "metrics": values,
            }  # fmt: skip
            entries = {"metrics.json": {"sha256": digest * 4, "bytes": 1000, "rows": None}}
            told[layout.manifest(artifact)] = {
                "artifact": artifact, "stage": stage, "kind": "dataset", "created_at": second, "files": entries,
            }  # fmt: skip
        told[layout.finished(run_id)] = {"run_id": run_id, "status": "done", "finished_at": second}
        yield told


def cost(store: Path | str, words: list[str]) -> tuple[float, float]:
    """CPU seconds and peak memory in MB of one `align` process."""
    child = subprocess.Popen([*ALIGN, *words, "--store", str(store)], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    assert status == 0, words
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1000


def main() -> None:
    """Print a table: for each size and verb, the first time and the best of three."""
    sizes = [int(word) for word in sys.argv[1:]] or [0, 20_000, 100_000]
    print(f"{'attempts':>9} {'runs':>6} {'verb':16} {'first s':>8} {'again s':>8} {'MB':>6}")
    for size in sizes:
        folder = Path(tempfile.mkdtemp(prefix="growth-"))
        try:
            made = history(Store(folder), size)
            for verb, words in VERBS.items():
                shutil.rmtree(folder / "cache", ignore_errors=True)
                first, _ = cost(folder, words)
                again = [cost(folder, words) for _ in range(3)]
                seconds, peak = min(s for s, _ in again), max(m for _, m in again)
                print(f"{size:9} {made:6} {verb:16} {first:8.2f} {seconds:8.2f} {peak:6.0f}", flush=True)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
