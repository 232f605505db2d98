"""Points of a sweep side by side: each a run in a process of its own, with devices that no other point has.

What points share is computed once: whoever comes first holds the store's lock of that stage, and the others find it
done. Each process ends with this one, however that ends.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Lock

from align.errors import AlignError, InputError
from align.redact import redact
from align.report.numbers import plural
from flows import child, ending, promotion, run
from flows.points import Point
from flows.recipe import Recipe
from flows.remote import pool
from flows.show import say
from flows.slots import devices
from storage.store import Store

MOST = 64  # processes that one sweep starts at once
Place = tuple[str, ...]
"""Devices that one point has to itself; none where it computes elsewhere."""


def places(recipe: Recipe, at_once: int | None = None) -> list[Place]:
    """Where points run at once: this machine's devices, so many together as the stages of a point share (one each, but
    all where the weights are split over them), and one place, where points take turns, for what is left.

    `at_once` takes fewer. Where the workers of a pool compute the stages, it is how many points ask them at once: each
    device there computes one stage at a time. InputError for more than there are devices.
    """
    if at_once is not None and not 1 <= at_once <= MOST:
        raise InputError(f"--at-once is a number from 1 to {MOST}.")
    if pool(recipe):
        return [()] * (at_once or 1)
    asked, there = recipe.compute, devices()
    auto = len(there) if asked.strategy == "fsdp" else 1
    each = max(1, auto if asked.processes == "auto" else asked.processes)
    found = [there[at : at + each] for at in range(0, len(there) - each + 1, each)] or [there]
    if at_once and at_once > len(found):
        own = "a device" if each == 1 else f"{each} devices"
        raise InputError(
            f"--at-once {at_once}: each point has {own} to itself, and this machine has "
            f"{plural(len(there), 'device')}; ask for {len(found)} at most, or name a pool of workers in compute.pool."
        )
    return found[:at_once]


def run_all(
    points: Sequence[Point], names: Sequence[str], recipe: str, fixed: Sequence[str], store: Store,
    free: Sequence[Place],
) -> None:  # fmt: skip
    """Run the points, which are called `names` where something is said of them; what came of each is written into it.

    An interruption ends those that run.
    """
    running, lock = set[subprocess.Popen[str]](), Lock()
    left: SimpleQueue[Place] = SimpleQueue()
    for place in free:
        left.put(place)

    def one(point: Point, name: str) -> None:
        place = left.get()
        try:
            where = f" on {', '.join(place)}" if place else ""
            say(f"{name}{where}: {point.name}", sys.stderr)
            with lock:
                process = _start([recipe, store.where, *fixed, *point.settings], place)
                running.add(process)
            _listen(point, name, process)
        finally:
            left.put(place)

    pool = ThreadPoolExecutor(len(free))
    try:
        for done in [pool.submit(one, point, name) for point, name in zip(points, names, strict=True)]:
            done.result()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        with lock:
            for process in running:
                child.stop(process)
        raise
    finally:
        pool.shutdown()


def _start(words: Sequence[str], place: Place) -> "subprocess.Popen[str]":
    env = {**os.environ, **({"CUDA_VISIBLE_DEVICES": ",".join(place)} if place else {})}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(child.ROOT), env.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-m", "flows.child", "flows.beside", *words],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, errors="replace",
        start_new_session=True,  # Ctrl-C in the terminal is for this process, which then stops its children
    )  # fmt: skip


def _listen(point: Point, name: str, process: "subprocess.Popen[str]") -> None:
    """Pass on what the run says, a line with its point's name before it, until it ends."""
    assert process.stdout and process.stderr and process.stdin
    for line in process.stderr:
        say(f"{name} | {line.rstrip()}", sys.stderr)
    answer = process.stdout.read()
    status = process.wait()
    for stream in (process.stdout, process.stderr, process.stdin):
        stream.close()
    try:
        point.run_id, point.error = json.loads(answer)
    except ValueError:
        point.error = f"its process ended with status {status}"
    if point.error:
        say(f"{name} | align: {point.error}", sys.stderr)


def main(recipe: str, store: str, overrides: Sequence[str]) -> None:
    """Run one point and print its run and what went wrong as JSON."""
    run_id = wrong = ""
    with ending.told():
        try:
            with promotion.without():
                run_id = run.run(recipe, overrides, run.store_at(store)).run_id
        except AlignError as error:
            wrong = redact(str(error))
        except Exception as error:
            wrong = redact(f"{type(error).__name__}: {error}")
    print(json.dumps([run_id, wrong]), flush=True)
    ending.leave(0, at_once=run.server_lost)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
