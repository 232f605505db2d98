"""`python moments_served.py DIRECTORY SEED MOMENTS`: pipelines that `align serve` runs, of which at random moments a process
is told to end, or killed, twice in a row: the command itself, Prefect's server, a worker, a flow run, or what a stage is
made of. Whatever of `align serve` has ended is started again; then the pipeline is run undisturbed. Prints what was done
and what went wrong as JSON.
"""

import ctypes
import json
import os
import random
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from moments import SIGNALS, command, contents, half, ours
from served import Served, wait_for

from flows import processes
from storage import runs, upkeep
from storage.store import Store

SELECT = "+filter"
PARTS = ("serve", "server", "worker")  # where one of them ends, all do
KINDS = {
    "server": "guarded:create_app", "worker": "worker start", "flow": "prefect.runner", "stage": "flows.stage_server",
    "serve": "flows.cli",
}  # fmt: skip
STARTS = 3.0  # seconds before a worker looks for work
ENDS = 100.0  # seconds within which everything is gone that is told to end: more than any grace that is given


@dataclass
class Hit:
    """A process that was told something while a pipeline ran."""

    signal: str
    moment: float
    kind: str = ""
    """Which process; "" where the run had ended before."""
    ended: str = ""
    """In what state the flow run ended; "" where `align serve` did."""
    said: str = ""


class Place:
    """A store with `align serve` on it, which is started again where it has ended."""

    def __init__(self, top: Path):
        self.top, self.before = top, {p.pid for p in psutil.Process().children(recursive=True)}
        self.wrong: list[str] = []
        self.served = Served(top)

    def again(self) -> None:
        """Everything of the last one is gone, and it said why; start another."""
        status = self.served.process.wait(ENDS)
        said = self.served.log.read_text().splitlines()
        if status not in (0, -signal.SIGKILL) and not (said and said[-1].startswith("align: ")):
            self.wrong.append(f"align serve ended with {status} and said {said[-3:]}")
        self.gone("align serve")
        self.served = Served(self.top)

    def gone(self, what: str) -> None:
        """See that nothing is left of it."""
        try:
            wait_for(lambda: not ours(self.before), patience=ENDS)
        except AssertionError:
            self.wrong.append(f"{what} left {[p.cmdline() for p in ours(self.before)]}")
            for process in ours(self.before):
                process.kill()

    def start(self, seed: int) -> Any:
        """A flow run of the pipeline, as the UI starts it."""
        with self.served.client() as client:
            pipeline = client.read_deployment_by_name("align/pipeline")
            asked = {"select": SELECT, "overrides": [f"ingest.seed={seed}"]}
            return client.create_flow_run_from_deployment(pipeline.id, parameters=asked)

    def state(self, run: Any) -> Any:
        with self.served.client() as client:
            return client.read_flow_run(run.id).state

    def end(self, run: Any) -> Any:
        """The state in which a flow run ends; None where `align serve` ended before."""

        def ended() -> Any:
            if self.served.process.poll() is not None:
                return "gone"
            with suppress(Exception):  # the server is going
                state = self.state(run)
                return state.is_final() and state
            return None

        found = wait_for(ended, every=0.3)
        return None if found == "gone" else found

    def parts(self) -> dict[str, list[psutil.Process]]:
        """The living processes by what they are."""
        found: dict[str, list[psutil.Process]] = {}
        for process in ours(self.before):
            with suppress(psutil.Error):
                words = " ".join(process.cmdline())
                kind = next((kind for kind, part in KINDS.items() if part in words), None)
                if kind:
                    found.setdefault(kind, []).append(process)
        return found


def disturb(place: Place, seed: int, hit: Hit, chance: random.Random) -> None:
    """Hit a process while a pipeline runs, if it does at that moment."""
    run = place.start(seed)
    time.sleep(hit.moment)
    if place.state(run).is_final():
        return
    found = place.parts()
    hit.kind = chance.choice(sorted(found))
    chance.choice(found[hit.kind]).send_signal(signal.Signals[hit.signal])
    state = place.end(run)
    if state is not None:
        hit.ended, hit.said = state.name, state.message or ""
        if state.name not in ("Completed", "Failed", "Crashed", "Cancelled") or "Traceback" in hit.said:
            place.wrong.append(f"{hit} is no end")
    if hit.kind in PARTS:
        place.again()
    place.wrong += [f"{hit}: {wrong}" for wrong in half(place.served.store)]


def undisturbed(place: Place, seed: int, expected: dict[str, str]) -> None:
    state = place.end(place.start(seed))
    if state is None or state.name != "Completed":
        place.wrong.append(f"the next run does not complete: {state and (state.name, state.message)}")
        return
    store = place.served.store
    last = runs.history(store)[-1]
    made = {s["stage"]: s["artifact"] for s in runs.stages(store, last["run_id"])}
    if made != expected:
        place.wrong.append(f"the next run made {made}, not {expected}")
    place.wrong += [f"after it: {name} {bad}" for name, bad in upkeep.verify(store) if bad]
    place.wrong += [f"{r['run_id']} still goes on" for r in runs.history(store) if r["status"] == "running"]


def main(top: Path, seed: int, moments: int) -> None:
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
    chance, hits = random.Random(seed), list[Hit]()
    with processes.serving():
        expected: list[dict[str, str]] = []
        for i in range((moments + 1) // 2 + 1):  # the first for how long it takes
            _, status = os.waitpid(command(top / f"whole{i}", SELECT, "--set", f"ingest.seed={i}"), 0)
            assert status == 0, (top / f"whole{i}.log").read_text()
            expected.append(contents(Store(top / f"whole{i}")))
    place, begun = Place(top), time.monotonic()
    undisturbed(place, 0, expected[0])
    took = time.monotonic() - begun - STARTS
    for i in range(1, len(expected)):
        for _ in range(2):
            hits.append(Hit(chance.choice(SIGNALS), chance.uniform(0, took)))
            disturb(place, i, hits[-1], chance)
            print(f"{time.monotonic() - begun:.0f} s: {hits[-1]}", file=sys.stderr, flush=True)
        undisturbed(place, i, expected[i])
    with place.served.client() as client:
        wait_for(lambda: all(run.state.is_final() or run.state.is_scheduled() for run in client.read_flow_runs()))
    place.served.process.send_signal(signal.SIGTERM)
    place.served.process.wait(ENDS)
    place.gone("the last align serve")
    print(json.dumps({"hits": [vars(hit) for hit in hits if hit.kind], "wrong": place.wrong}, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
