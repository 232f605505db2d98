"""The record of runs: started, one outcome per stage, finished. Immutable files, like everything in the store."""

import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from storage import files
from storage.store import Store, now


@dataclass(frozen=True)
class StageRun:
    """What became of one stage in one run."""

    stage: str
    key: str | None
    artifact: str | None
    status: str  # ran, cached, failed
    seconds: float
    reason: str
    metrics: dict[str, Any]


class Run:
    """A run in progress. While its process lives, it holds a lock; a run without lock and end was interrupted."""

    def __init__(self, store: Store, recipe: str, source: dict[str, Any]):
        self.store = store
        self.id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        self.path = store.root / "runs" / self.id
        self._stages = 0
        self._lock = files.locked(self.path / "lock")
        self._lock.__enter__()
        files.write_once(
            self.path / "run.json", {"run_id": self.id, "recipe": recipe, "started_at": now(), "source": source}
        )

    def stage(self, stage_run: StageRun) -> None:
        """Record the outcome of a stage."""
        self._stages += 1
        record = {"run_id": self.id, "ended_at": now(), **asdict(stage_run)}
        files.write_once(self.path / "stages" / f"{self._stages:03d}-{stage_run.stage}.json", record)

    def finish(self, status: str) -> None:
        """Record the end: done, failed or interrupted."""
        files.write_once(self.path / "finished.json", {"run_id": self.id, "status": status, "finished_at": now()})
        self._lock.__exit__(None, None, None)


def history(store: Store) -> list[dict[str, Any]]:
    """All runs, oldest first: run_id, recipe, status (done, failed, running, interrupted), started_at, finished_at."""
    runs = []
    for path in sorted((store.root / "runs").glob("*/run.json")):
        run = files.read_json(path)
        if not run:
            continue
        end = files.read_json(path.parent / "finished.json")
        alive = "running" if files.is_locked(path.parent / "lock") else "interrupted"
        runs.append(run | (end or {"status": alive, "finished_at": None}))
    return sorted(runs, key=lambda run: run["started_at"])


def stages(store: Store, run_id: str) -> list[dict[str, Any]]:
    """The stage outcomes of a run, in order."""
    found = sorted((store.root / "runs" / run_id / "stages").glob("*.json"))
    return [record for record in map(files.read_json, found) if record]
