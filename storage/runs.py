"""The record of runs: started, one outcome per stage, finished. Immutable files, like everything in the store."""

import secrets
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from storage import files, layout
from storage.store import Attempt, Store, now

STARTED = "started"
"""What the journal says of a run whose end was not told."""

_SECOND = "%Y%m%d-%H%M%S"


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

    While its process lives, it is_alive in the store; a run that is not and has no end was interrupted. It also shares
    the store's use, so that nothing is removed beneath it: `align gc` has that alone.
    """

    def __init__(
        self, store: Store, recipe: str, source: dict[str, Any], flow_run: str | None = None,
        asked: Sequence[str] = (), planned: Sequence[str] = (),
    ):  # fmt: skip
        """`flow_run` is the id of the Prefect flow run that it is, if it is one; `asked` the words after `align run`
        that ask for it, where that is known; `planned` the stages that are to take part, in order."""
        self.store = store
        self.started_at = _follows(store)
        self.id = f"{datetime.fromisoformat(self.started_at):{_SECOND}}-{secrets.token_hex(2)}"
        self._stages = 0
        self._records: dict[str, dict[str, Any]] = {}
        with ExitStack() as locks:
            locks.enter_context(store.in_use(self.id))
            started = {"run_id": self.id, "recipe": recipe, "started_at": self.started_at, "source": source}
            more = {"flow_run": flow_run, "asked": list(asked), "planned": list(planned)}
            self._write(layout.started(self.id), {**started, **more})
            store.tell(self._records)
            self._locks = locks.pop_all()

    @property
    def path(self) -> Path:
        """Its directory on this machine."""
        return self.store.root / layout.run(self.id)

    def stage(self, stage_run: StageRun) -> None:
        """Record the outcome of a stage. Raises LeaseLost where the store was not the run's all the time."""
        self.store.still_used(self.id)
        self._stages += 1
        record = {"run_id": self.id, "ended_at": now(), **asdict(stage_run)}
        self._write(layout.stage(self.id, self._stages, stage_run.stage), record)

    def finish(self, status: str) -> None:
        """Record the end: done, failed or interrupted."""
        try:
            end = {"run_id": self.id, "status": status, "finished_at": now(self.started_at)}
            self._write(layout.finished(self.id), end)
            self.store.tell(self._records)
        finally:
            self._locks.close()

    def _write(self, name: str, record: dict[str, Any]) -> None:
        self.store.write(name, record)
        self._records[name] = record


def _follows(store: Store) -> str:
    """The time, which follows that in the name of every run: the last one is the latest, though a clock was set back
    or that of another machine is ahead."""
    said = now()
    later = store.names_after(layout.RUNS, f"{datetime.fromisoformat(said):{_SECOND}}.")  # "." follows "-"
    for name in reversed(later):
        with suppress(ValueError):
            newest = datetime.strptime(name[:15], _SECOND).replace(tzinfo=UTC)
            return now((newest + timedelta(seconds=1)).isoformat())
    return said


def history(store: Store) -> list[dict[str, Any]]:
    """All runs, oldest first: run_id, recipe, status (done, failed, running, interrupted), started_at, finished_at.

    Runs that are over are read once and then remembered, so that this costs one directory listing.
    """
    if store.journal:
        return _told(store)
    cache = store.root / "cache" / "index" / "runs.json"
    known = _remembered(cache)
    listed = store.names(layout.RUNS)
    new: dict[str, dict[str, Any]] = {}
    going: list[dict[str, Any]] = []
    for name in listed:
        if name not in known and (run := summary(store, name)):
            if run["status"] == "running":
                going.append(run)
            else:
                new[name] = run
    here = set(listed)
    if new or not here.issuperset(known):
        known = {name: run for name, run in (known | new).items() if name in here}
        files.remember(cache, {"check": _check(known), "runs": known})
    return sorted([*known.values(), *going], key=lambda run: (run["started_at"], run["run_id"]))


def _told(store: Store) -> list[dict[str, Any]]:
    """`history` from the journal. The end of a run that was interrupted is told for it."""
    found: list[dict[str, Any]] = store.journal.runs()
    open_ = [run for run in found if run["status"] == STARTED]
    for run, now_ in zip(open_, store.each(lambda run: summary(store, run["run_id"]), open_), strict=True):
        run["status"] = "interrupted"  # its record is gone or damaged
        if now_:
            run |= now_
            if now_["status"] != "running":
                _settle(store, now_)
    return sorted(found, key=lambda run: (run["started_at"], run["run_id"]))


def _settle(store: Store, run: dict[str, Any]) -> None:
    name, folder = run["run_id"], layout.stages(run["run_id"])
    told = {f"{folder}/{file}": store.read(f"{folder}/{file}", "stage") for file in store.names(folder)}
    told |= {layout.started(name): store.read(layout.started(name), "run")}
    told |= {layout.finished(name): {k: run[k] for k in ("run_id", "status", "finished_at")}}
    store.tell({record: value for record, value in told.items() if value})


def _remembered(cache: Path) -> dict[str, dict[str, Any]]:
    value = files.read_json(cache)
    if isinstance(value, dict) and isinstance(value.get("runs"), dict) and value.get("check") == _check(value["runs"]):
        return dict(value["runs"])
    return {}


def _check(known: dict[str, dict[str, Any]]) -> str:
    import json
    from hashlib import sha256

    return sha256(json.dumps(known, ensure_ascii=False).encode()).hexdigest()[:16]


def summary(store: Store, run_id: str) -> dict[str, Any] | None:
    """A run as in `history`; None where its record is not there or damaged."""
    # In this order: a run is alive before it has its record, and has its end before it is not any more.
    run = store.read(layout.started(run_id), "run")
    if run is None:
        return None
    alive = store.is_alive(run_id)
    end = store.read(layout.finished(run_id), "finished") or {
        "status": "running" if alive else "interrupted",
        "finished_at": None,
    }
    return {k: (run | end)[k] for k in ("run_id", "recipe", "status", "started_at", "finished_at")}


def never_began(path: Path) -> bool:
    """Whether the directory of a run holds no record: its process ended before it could write one."""
    return set(files.names(path)) <= {"lock"}


def source(store: Store, run_id: str) -> dict[str, Any]:
    """The recipe of a run, as JSON values; {} where its record is damaged."""
    run = store.read(layout.started(run_id), "run")
    return run["source"] if run else {}


def planned(store: Store, run_id: str) -> tuple[list[str], list[str]]:
    """The words after `align run` that asked for a run, and the stages that were to take part; empty where a record
    does not say."""
    run = store.read(layout.started(run_id), "run") or {}
    asked, stages = ([str(v) for v in found] if isinstance(found := run.get(name), list) else []
                     for name in ("asked", "planned"))  # fmt: skip
    return asked, stages


def stages(store: Store, run_id: str) -> list[dict[str, Any]]:
    """The stage outcomes of a run, in order."""
    folder = layout.stages(run_id)
    found = store.each(lambda name: store.read(f"{folder}/{name}", "stage"), store.names(folder))
    return [record for record in found if record]


def attempt_of(store: Store, stage: dict[str, Any]) -> Attempt | None:
    """The newest attempt that answers for a stage outcome; None where its record is gone or damaged."""
    made = store.attempts(stage["key"]) if stage["key"] else []
    return next((a for a in reversed(made) if a.artifact == stage["artifact"]), None)


def latest(store: Store, recipe: str | None = None) -> dict[str, Any] | None:
    """The newest run (of a recipe) in which a stage came to something."""
    for run in reversed(history(store)):
        if recipe in (None, run["recipe"]) and any(s["artifact"] for s in stages(store, run["run_id"])):
            return run
    return None
