"""Running a recipe from Python or the command line: answer from the store where nothing has to run, else the flow."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.errors import AlignError, StageError
from flows.plan import Planned, plan
from flows.recipe import Recipe, load
from storage.runs import Run, StageRun
from storage.store import Attempt, Store


@dataclass(frozen=True)
class Outcome:
    """A finished run: its id and what every stage that took part came to."""

    run_id: str
    stages: tuple[StageRun, ...]


def store_path(given: str | Path | None = None) -> Path:
    """The store: what is given, else $ALIGN_STORE, else .align in the working directory."""
    return Path(given or os.environ.get("ALIGN_STORE") or ".align")


def run(
    recipe: str = "quickstart",
    overrides: Sequence[str] = (),
    store: Store | None = None,
    select: str | None = None,
    refresh: bool = False,
) -> Outcome:
    """Run a recipe and return what happened. Imports Prefect only if a stage has to run. Raises AlignError."""
    store = store or Store(store_path())
    loaded = load(recipe, overrides)
    planned = plan(store, loaded, select, refresh)
    if all(stage.status in ("cached", "skipped") for stage in planned):
        return answer(store, loaded, planned)
    from flows.server import connect

    connect(store)
    from flows.align import align

    try:
        outcome: Outcome = align(recipe, list(overrides), select, refresh, str(store.root))
    except Exception as error:
        if type(error).__module__.partition(".")[0] == "httpx":
            raise AlignError(f"The Prefect server at {os.environ['PREFECT_API_URL']} went away.") from error
        raise
    return outcome


def answer(store: Store, recipe: Recipe, planned: Sequence[Planned]) -> Outcome:
    """Record a run in which everything was there already."""
    with recording(store, recipe) as log:
        for stage in planned:
            if stage.attempt:
                log.add(stage.stage, stage.attempt, "cached", "")
    return Outcome(log.run.id, tuple(log.stages))


class Log:
    """The stages of a run in progress, kept as they end."""

    def __init__(self, run: Run):
        self.run = run
        self.stages: list[StageRun] = []

    def add(self, stage: str, attempt: Attempt | None, status: str, reason: str) -> None:
        """Record the outcome of a stage: ran, cached or failed."""
        if attempt is None:
            record = StageRun(stage, None, None, status, 0.0, reason, {})
        else:
            seconds = attempt.seconds if status == "ran" else 0.0
            record = StageRun(stage, attempt.key, attempt.artifact, status, seconds, reason, attempt.metrics)
        self.run.stage(record)
        self.stages.append(record)


@contextmanager
def recording(store: Store, recipe: Recipe) -> Iterator[Log]:
    """A run's record, from start to end. An exception ends it as failed, Ctrl-C as interrupted, a kill not at all."""
    run = Run(store, recipe.name, recipe.model_dump(mode="json"))
    try:
        yield Log(run)
    except BaseException as error:
        run.finish("failed" if isinstance(error, Exception) else "interrupted")
        raise
    run.finish("done")


def failure(stage: str, error: Any) -> AlignError:
    """What a stage raised, as one sentence."""
    if isinstance(error, AlignError):
        return type(error)(f"{stage}: {error}")
    wrapped = StageError(f"{stage} failed with {type(error).__name__}: {error or 'no message'}")
    wrapped.__cause__ = error
    return wrapped
