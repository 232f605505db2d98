"""The record of runs: started, one outcome per stage, finished. Immutable files, like everything in the store."""

import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from storage import files, records
from storage.store import Store, now


@dataclass(frozen=True)
class StageRun:
    """What became of one stage in one run."""

    stage: str
    key: str | None
    artifact: str | None
    status: str  # ran, cached, skipped, failed
    seconds: float
    reason: str
    metrics: dict[str, Any]


class Run:
    """A run in progress.

    While its process lives, it holds a lock; a run without lock and end was interrupted. It also shares the store's
    `in-use` lock, so that nothing is removed beneath it: `align gc` takes that lock alone.
    """

    def __init__(
        self, store: Store, recipe: str, source: dict[str, Any], flow_run: str | None = None,
        asked: Sequence[str] = (), planned: Sequence[str] = (),
    ):  # fmt: skip
        """`flow_run` is the id of the Prefect flow run that it is, if it is one; `asked` the words after `align run`
        that ask for it, where that is known; `planned` the stages that are to take part, in order."""
        self.store = store
        self.id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        self.path = store.root / "runs" / self.id
        self._stages = 0
        with ExitStack() as locks:
            locks.enter_context(in_use(store))
            locks.enter_context(files.locked(self.path / "lock"))
            started = {"run_id": self.id, "recipe": recipe, "started_at": now(), "source": source, "flow_run": flow_run}
            records.write(self.path / "run.json", {**started, "asked": list(asked), "planned": list(planned)})
            self._locks = locks.pop_all()

    def stage(self, stage_run: StageRun) -> None:
        """Record the outcome of a stage."""
        self._stages += 1
        record = {"run_id": self.id, "ended_at": now(), **asdict(stage_run)}
        records.write(self.path / "stages" / f"{self._stages:03d}-{stage_run.stage}.json", record)

    def finish(self, status: str) -> None:
        """Record the end: done, failed or interrupted."""
        try:
            records.write(self.path / "finished.json", {"run_id": self.id, "status": status, "finished_at": now()})
        finally:
            self._locks.close()


def in_use(store: Store, *, alone: bool = False) -> Any:
    """The lock that runs share and that removing takes alone. Raises BlockingIOError where `alone` cannot be had."""
    return files.locked(store.root / "locks" / "in-use", shared=not alone, wait=not alone)


def history(store: Store) -> list[dict[str, Any]]:
    """All runs, oldest first: run_id, recipe, status (done, failed, running, interrupted), started_at, finished_at.

    Runs that are over are read once and then remembered, so that this costs one directory listing.
    """
    cache = store.root / "cache" / "index" / "runs.json"
    known = _remembered(cache)
    listed = files.names(store.root / "runs")
    new: dict[str, dict[str, Any]] = {}
    going: list[dict[str, Any]] = []
    for name in listed:
        if name not in known and (run := _summary(store.root / "runs" / name)):
            if run["status"] == "running":
                going.append(run)
            else:
                new[name] = run
    here = set(listed)
    if new or not here.issuperset(known):
        known = {name: run for name, run in (known | new).items() if name in here}
        files.remember(cache, {"check": _check(known), "runs": known})
    return sorted([*known.values(), *going], key=lambda run: (run["started_at"], run["run_id"]))


def _remembered(cache: Path) -> dict[str, dict[str, Any]]:
    value = files.read_json(cache)
    if isinstance(value, dict) and isinstance(value.get("runs"), dict) and value.get("check") == _check(value["runs"]):
        return dict(value["runs"])
    return {}


def _check(known: dict[str, dict[str, Any]]) -> str:
    import json
    from hashlib import sha256

    return sha256(json.dumps(known, ensure_ascii=False).encode()).hexdigest()[:16]


def _summary(path: Path) -> dict[str, Any] | None:
    # In this order: a run has its lock before its record, and its end before it lets go of the lock.
    run = records.read(path / "run.json", "run")
    if run is None:
        return None
    alive = files.is_locked(path / "lock")
    end = records.read(path / "finished.json", "finished") or {
        "status": "running" if alive else "interrupted",
        "finished_at": None,
    }
    return {k: (run | end)[k] for k in ("run_id", "recipe", "status", "started_at", "finished_at")}


def never_began(path: Path) -> bool:
    """Whether the directory of a run holds no record: its process ended before it could write one."""
    return set(files.names(path)) <= {"lock"}


def source(store: Store, run_id: str) -> dict[str, Any]:
    """The recipe of a run, as JSON values; {} where its record is damaged."""
    run = records.read(store.root / "runs" / run_id / "run.json", "run")
    return run["source"] if run else {}


def planned(store: Store, run_id: str) -> tuple[list[str], list[str]]:
    """The words after `align run` that asked for a run, and the stages that were to take part; empty where a record
    does not say."""
    run = records.read(store.root / "runs" / run_id / "run.json", "run") or {}
    asked, stages = ([str(v) for v in found] if isinstance(found := run.get(name), list) else []
                     for name in ("asked", "planned"))  # fmt: skip
    return asked, stages


def stages(store: Store, run_id: str) -> list[dict[str, Any]]:
    """The stage outcomes of a run, in order."""
    folder = store.root / "runs" / run_id / "stages"
    found = (records.read(folder / name, "stage") for name in files.names(folder))
    return [record for record in found if record]


def latest(store: Store, recipe: str | None = None) -> dict[str, Any] | None:
    """The newest run (of a recipe) in which a stage came to something."""
    for run in reversed(history(store)):
        if recipe in (None, run["recipe"]) and any(s["artifact"] for s in stages(store, run["run_id"])):
            return run
    return None
