"""`python moments.py DIRECTORY SEED MOMENTS SELECT`: runs of the tiny recipe that are told to end, or killed, at random
moments, twice in a row on one store; then one that nobody disturbs. Prints what was done and what went wrong as JSON.

Each run is the command in a process forked from this one, whose stages are forked from one server: no library is
imported anew. This process is the subreaper of them all, so that whatever stays behind is its descendant.
"""

import ctypes
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from served import TINY, wait_for

from flows import cli, execute, processes  # noqa: F401
from storage import runs, upkeep
from storage.store import Store

SIGNALS = ("SIGKILL", "SIGINT", "SIGTERM", "SIGHUP")
FLOW, STAGE = "flow", "stage"
Choose = Callable[[list[psutil.Process]], psutil.Process]


@dataclass
class Told:
    """A run, and what it was told."""

    moment: float
    signal: str
    victim: str
    status: int = 0
    hit: str = ""
    """Which process was told, and those that there were; "" where the run or the stage had ended before."""
    said: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def command(store: Path, select: str, *more: str) -> int:
    """Start `align run`; its process."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    with (store.parent / f"{store.name}.log").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    status = 70
    try:
        cli.main(["run", str(TINY), "--store", str(store), "--select", select, *more])
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException as error:
        print(f"odd {error!r}", file=sys.stderr)
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)


def ours(before: set[int]) -> list[psutil.Process]:
    """The living processes that have come since."""
    return [p for p in psutil.Process().children(recursive=True) if p.pid not in before and alive(p)]


def alive(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def disturb(store: Path, select: str, before: set[int], told: Told, choose: Choose) -> None:
    """A run that is told to end at its moment, or a process of whose stages is."""
    child = command(store, select)
    until = time.monotonic() + told.moment
    ended = 0
    while not ended and (time.monotonic() < until):
        ended, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.005)
    if not ended:
        parts = [p for p in ours(before) if p.pid != child]
        victim = psutil.Process(child) if told.victim == FLOW else choose(parts) if parts else None
        if victim:
            with suppress(psutil.Error):
                told.hit = f"{victim.pid} of {[child, *(p.pid for p in parts)]}"
                victim.send_signal(signal.Signals[told.signal])
        _, status = os.waitpid(child, 0)
    told.status = os.waitstatus_to_exitcode(status)
    told.said = (store.parent / f"{store.name}.log").read_text().splitlines()
    try:
        wait_for(lambda: not ours(before))
    except AssertionError:
        told.wrong.append(f"stayed behind: {ours(before)}")
        for process in ours(before):
            process.kill()
    told.wrong += judged(Store(store), told)


def half(store: Store) -> list[str]:
    """What is visible in a store and not whole; a run that was interrupted is no harm."""
    return [f"half: {name} {bad}" for name, bad in upkeep.verify(store) if bad and "never finished" not in bad]


def judged(store: Store, told: Told) -> list[str]:
    """What is wrong after a run was disturbed."""
    number = signal.Signals[told.signal]
    allowed = {0, -number, 128 + number} if told.victim == FLOW else {0, 1}
    wrong = half(store)
    if told.status not in allowed:
        wrong.append(f"exit status {told.status}")
    if any("Traceback" in line or line.startswith("odd ") for line in told.said):
        wrong.append("it does not end in a sentence")
    if told.status > 0 and not told.said[-1].startswith("align: "):
        wrong.append("it does not end in a sentence")
    wrong += [f"{run} still goes on" for run in runs.history(store) if run["status"] == "running"]
    return wrong


def contents(store: Store) -> dict[str, str]:
    return {artifact.stage: artifact.id for artifact in store.artifacts()}


def main(top: Path, seed: int, moments: int, select: str) -> None:
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
    chance, found = random.Random(seed), list[Told]()
    with processes.serving():
        for name in ("warm", "whole"):
            begun = time.monotonic()
            _, status = os.waitpid(command(top / name, select), 0)
            assert status == 0, (top / f"{name}.log").read_text()
            took = time.monotonic() - begun
        expected = contents(Store(top / "whole"))
        before = {p.pid for p in psutil.Process().children(recursive=True)}
        while sum(bool(told.hit) for told in found) < moments and len(found) < 4 * moments:
            at = top / str(len(found))
            for _ in range(2):
                told = Told(chance.uniform(0, took), chance.choice(SIGNALS), chance.choice((FLOW, STAGE)))
                disturb(at, select, before, told, chance.choice)
                found.append(told)
            _, status = os.waitpid(command(at, select), 0)
            left = [f"{name} {bad}" for name, bad in upkeep.verify(Store(at)) if bad]
            if status or left or contents(Store(at)) != expected:
                said = (top / f"{at.name}.log").read_text().splitlines()[-3:]
                found[-1].wrong.append(f"the next run does not complete: {status} {left} {contents(Store(at))} {said}")
    wrong = [vars(told) | {"said": told.said[-3:]} for told in found if told.wrong]
    hits = [f"{told.signal} {told.victim}" for told in found if told.hit]
    print(json.dumps({"runs": len(found), "hits": hits, "wrong": wrong}, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
