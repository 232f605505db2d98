"""`python clocks.py DIRECTORY [URL]`, with clock.c preloaded: runs of two machines during which the clock goes back an
hour and ahead a day, over and over. Prints what went wrong as JSON."""

import ctypes
import json
import os
import sys
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import faulty

from storage import build, leases, room, runs, upkeep
from storage.bucket import Bucket
from storage.shared import SharedStore
from storage.store import Store

HOUR, DAY = 3600, 86400
OFFSETS = cycle([0, -HOUR, DAY, -HOUR, 2 * DAY, 0, -3 * HOUR])


def jump() -> None:
    """Let the clock be wrong in another way."""
    library.clock_jump(next(OFFSETS))


def noise(config: faulty.Knob, out: Path) -> dict[str, Any]:
    (out / "noise").write_bytes(os.urandom(8))
    return {}


def wrongs(stores: list[Store]) -> Iterator[str]:
    """What is wrong after runs of these machines in turn."""
    begun: list[str] = []
    for store in [*stores, *stores, *stores]:
        acknowledged: list[str] = []

        def heard(line: str, to: list[str] = acknowledged) -> None:
            to.append(line)
            jump()

        faulty.work(store, heard)
        begun.append(acknowledged[0].split()[1])
        yield from faulty.lost(stores[0], acknowledged)
        yield from faulty.half(stores[-1])
    history = runs.history(stores[-1])
    if [run["run_id"] for run in history] != begun:
        yield f"began {begun}, but the order is {[run['run_id'] for run in history]}"
    yield from (f"{run} ended before it began" for run in history if run["finished_at"] < run["started_at"])
    for _ in range(4):
        for store in stores:
            made, ran = build.build(store, build.request(store, "noise", noise, faulty.Knob(), {}), refresh=True)
            jump()
            if not ran or store.lookup(made.key)[0] != made:
                yield "what was made last is no hit"
    needed = faulty.contents(stores[0]) - {a.artifact for a in stores[0].attempts() if a.stage == "noise"}
    for store in stores:
        jump()
        if room.collect(store).busy or faulty.contents(store) != needed:
            yield f"gc left {faulty.contents(store)} of {needed}"
        yield from (f"{name} {bad}" for name, bad in upkeep.verify(store) if bad)


def leased(bucket: Bucket) -> Iterator[str]:
    """A lease outlives its time while its holder lives, and ends when it does not, whatever the clock says."""
    with leases.hold(bucket, "leases/a", "one", seconds=2) as lease:
        for offset in (0, DAY, -HOUR, DAY):
            library.clock_jump(offset)
            time.sleep(1)
            try:
                with leases.hold(bucket, "leases/a", "two", wait=False, seconds=2):
                    yield f"another has the lease at {offset}"
            except BlockingIOError:
                continue
        lease.check()
        lease._ended.set()  # as if the holder had died
        lease._heart.join()
        library.clock_jump(-HOUR)
        begun = time.monotonic()
        with leases.hold(bucket, "leases/a", "two", seconds=2):
            if time.monotonic() - begun > 60:
                yield "the lease of a dead holder did not end"


def main(folder: Path, url: str | None) -> None:
    if url:
        wrong = [*wrongs([SharedStore(Bucket(url), folder / name) for name in ("one", "two")]), *leased(Bucket(url))]
    else:
        wrong = [*wrongs([Store(folder)])]
    print(json.dumps(wrong))


if __name__ == "__main__":
    library = ctypes.CDLL(None)
    main(Path(sys.argv[1]), sys.argv[2] if sys.argv[2:] else None)
