"""`python faulty.py DIRECTORY MODE`, with faults.c preloaded: a small run in which the Nth operation on the store fails,
or kills it, for every N. Prints what was tried and what went wrong as JSON."""

import ctypes
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from align import tables
from align.config import Config
from storage import build, champions, runs, tags, upkeep
from storage.build import Output, request
from storage.store import Attempt, Store

OFF, ONCE, FOR_GOOD, KILL = range(4)
Acknowledge = Callable[[str], None]


class Knob(Config):
    value: int = 3


def produce(config: Knob, out: Path) -> dict[str, int]:
    tables.write(out / "rows.parquet", [{"row_id": str(i)} for i in range(config.value)], tables.ROWS)
    (out / "adapter").mkdir()
    (out / "adapter" / "weights.bin").write_bytes(bytes(1000))
    return {"rows": config.value}


def consume(config: Knob, out: Path, *, data: Path) -> dict[str, int]:
    (out / "seen.txt").write_text(str(len(tables.read(data))))
    return {}


def work(store: Store, acknowledge: Acknowledge) -> None:
    """A run of two stages, whose model becomes champion and gets a tag. What is done is acknowledged as it is."""
    run = runs.Run(store, "tiny", {})
    acknowledge(f"run {run.id}")
    try:
        _stages(store, run, acknowledge)
    except Exception:
        run.finish("failed")
        raise
    run.finish("done")
    acknowledge(f"finished {run.id}")


def _stages(store: Store, run: runs.Run, acknowledge: Acknowledge) -> None:
    """The stages and what they lead to."""
    made: list[Attempt] = []
    for stage, function, inputs in (("produce", produce, ()), ("consume", consume, ("data",))):
        read = {role: Output(made[0].artifact, "rows.parquet") for role in inputs}
        attempt, _ = build.build(store, request(store, stage, function, Knob(), read))
        acknowledge(f"artifact {attempt.artifact} {attempt.key}")
        run.stage(runs.StageRun(stage, attempt.key, attempt.artifact, "ran", 0.0, "", {}))
        acknowledge(f"stage {run.id} {stage}")
        made.append(attempt)
    before = champions.last_number(store, "tiny")
    crowned = champions.crown(
        store, "tiny", before, run_id=run.id, model="consume", artifact=made[1].artifact, base={}, verdict="",
        decision=None,
    )  # fmt: skip
    acknowledge(f"champion {crowned.number if crowned else 0}")
    tags.put(store, "good", run.id)
    acknowledge(f"tag {run.id}")


def lost(store: Store, acknowledged: list[str]) -> Iterator[str]:
    """What was acknowledged and is not there."""
    finished = {r["run_id"]: r["status"] for r in runs.history(store)}
    for line in acknowledged:
        what, name, *more = line.split()
        there = True
        if what == "artifact":
            artifact = store.artifact(name)
            there = bool(artifact and not store.damage(artifact, thorough=True) and store.lookup(more[0])[0])
        elif what == "run":
            there = name in finished
        elif what == "stage":
            there = more[0] in [s["stage"] for s in runs.stages(store, name)]
        elif what == "champion":
            there = champions.last_number(store, "tiny") >= int(name) > 0
        elif what == "tag":
            there = tags.tags(store).get("good") == name
        elif what == "finished":
            there = finished[name] == "done"
        if not there:
            yield f"lost: {line}"


def half(store: Store) -> Iterator[str]:
    """What is visible, and not whole."""
    for name, wrong in upkeep.verify(store):
        if wrong and "never finished" not in wrong:
            yield f"half: {name} {wrong}"


def attempt(directory: Path, nth: int, mode: int, arm: Callable[[bytes, int, int], None]) -> tuple[int, list[str]]:
    """`work` in a process of its own with a fault; the operations that it came to, and what it acknowledged."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        arm(str(directory).encode(), nth, mode)
        status = 0
        try:
            work(Store(directory), lambda line: (os.write(writing, f"{line}\n".encode()), None)[1])
        except OSError:
            status = 1
        except BaseException as error:
            os.write(writing, f"odd {type(error).__name__} {error}\n".encode())
        os.write(writing, f"seen {library.fault_seen()}\n".encode())
        os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        lines = pipe.read().decode().splitlines()
    os.waitpid(child, 0)
    seen = next((int(line.split()[1]) for line in lines if line.startswith("seen ")), 0)
    return seen, [line for line in lines if not line.startswith("seen ")]


def contents(store: Store) -> set[str]:
    """The artifacts, whose names are digests."""
    return {artifact.id for artifact in store.artifacts()}


def main(top: Path, mode: int) -> None:
    """Try every N, twice in a row on the same store where the process is killed."""
    arm = library.fault_arm
    work(Store(top / "warm"), lambda line: None)  # what is read once for a process, its children need not read
    total, _ = attempt(top / "whole", 0, OFF, arm)
    expected, wrong = contents(Store(top / "whole")), []
    for n in range(1, total + 1):
        store = Store(top / str(n))
        for _ in range(2 if mode == KILL else 1):
            _, acknowledged = attempt(store.root, n, mode, arm)
            strange = [line for line in acknowledged if line.startswith("odd ")]
            known = [line for line in acknowledged if not line.startswith("odd ")]
            wrong += [f"{n}: {what}" for what in (*strange, *lost(store, known), *half(store))]
        _, again = attempt(store.root, 0, OFF, arm)
        left = [f"{name} {bad}" for name, bad in upkeep.verify(store) if bad]
        if not again or not again[-1].startswith("finished") or left or contents(store) != expected:
            wrong.append(f"{n}: does not complete: {again[-1:]} {left} {contents(store) ^ expected}")
    print(json.dumps({"operations": total, "wrong": wrong}))


if __name__ == "__main__":
    library = ctypes.CDLL(None)
    library.fault_arm.argtypes = (ctypes.c_char_p, ctypes.c_long, ctypes.c_int)
    library.fault_arm.restype = None
    library.fault_seen.restype = ctypes.c_long
    main(Path(sys.argv[1]), int(sys.argv[2]))
