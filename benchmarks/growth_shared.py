"""What a shared store's history costs a machine that sees it for the first time, and then again: `align` verbs on an
empty store and on a large one.

    python -m benchmarks.growth_shared s3://BUCKET/FOLDER [ATTEMPTS ...]       default 0 100000

The bucket is any that the environment has credentials for; a server on this machine does. The history is that of
benchmarks.growth: its segments of the journal are written as machines leave them, its records for the newest runs, as
no verb here reads those of others. `first` has no cache. Seconds are of the clock: many go into waiting for requests.
"""

import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.growth import VERBS, cost, told_runs
from storage import journal, places, records
from storage.shared import SharedStore
from storage.store import Store

ASKED = ("plan", "sql runs", "sql all_metrics", "sql attempts", "runs", "run")
_RUNS = 1000  # runs in a segment
_NEWEST = 50  # runs whose records are there


def history(where: str, attempts: int) -> int:
    """Write the history of so many attempts; returns the number of runs."""
    store = places.at(where)
    assert isinstance(store, SharedStore)
    runs = enumerate(told_runs(Store(store.root), attempts), 1)
    end = 0
    entries: dict[int, dict[str, dict[str, Any]]] = {}
    while entries := dict(islice(runs, _RUNS)) or entries:
        if max(entries) == end:
            break
        store.journal.put(0, end, max(entries), journal.tables_of(entries))
        end = max(entries)
    newest = [item for n in sorted(entries)[-_NEWEST:] for item in entries[n].items()]
    store.each(lambda item: store.bucket.replace(item[0], records.encode(item[1]).encode()), newest)
    return end


def main() -> None:
    """Print a table: for each size and verb, seconds of the clock at first and the best of three."""
    url, sizes = sys.argv[1], [int(word) for word in sys.argv[2:]] or [0, 100_000]
    print(f"{'attempts':>9} {'runs':>6} {'verb':16} {'first s':>8} {'again s':>8} {'CPU s':>6} {'MB':>6}")
    for size in sizes:
        where, caches = f"{url}/{size}-{time.time_ns()}", tempfile.mkdtemp(prefix="growth-")
        os.environ["ALIGN_CACHE_DIR"] = caches
        store = places.at(where)
        assert isinstance(store, SharedStore)
        # In a process of its own: what this one holds would count as the peak of those that it starts.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:
            made = apart.submit(history, where, size).result()
        store.bucket.put("tags/none.json", b"null")
        for verb in ASKED:
            words = VERBS[verb]
            shutil.rmtree(caches, ignore_errors=True)
            first, _, _ = timed(where, words)
            again = [timed(where, words) for _ in range(3)]
            seconds, used, peak = (min(found) for found in zip(*again, strict=True))
            print(f"{size:9} {made:6} {verb:16} {first:8.2f} {seconds:8.2f} {used:6.2f} {peak:6.0f}", flush=True)
        shutil.rmtree(Path(caches), ignore_errors=True)
        store.bucket.remove(found.name for found in store.bucket.below())


def timed(where: str, words: list[str]) -> tuple[float, float, float]:
    """Seconds of the clock, CPU seconds and peak memory in MB of one `align` process."""
    begun = time.monotonic()
    used, peak = cost(where, words)
    return time.monotonic() - begun, used, peak


if __name__ == "__main__":
    main()
