"""The seam to Prefect: a stage as a cached Prefect task, one for each row of the table of stages.

The store is the one cache: a task asks it under a lock that the kernel releases, and returns Prefect's own `Cached`
state on a hit. Prefect's result records would be a second truth about the same thing, to be kept from disagreeing with
artifacts that were deleted or damaged; so they are off.
"""

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect import Task, get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, State
from pydantic import BaseModel

from align.config import Config, Metrics
from align.errors import AlignError
from align.models.tracking import place
from align.redact import clean
from flows.processes import Processes
from flows.ranks import Compute
from flows.slots import Slots, devices
from flows.stages import STAGES, Stage, row
from storage import build
from storage.build import Output
from storage.store import Attempt, Store


class NotBegun(AlignError):
    """A stage was not begun, because another failed."""


@dataclass(eq=False)
class Work:
    """One stage to run, or to find that it has run.

    It is done once however often and from however many threads it is called: inside a Prefect task and, where Prefect's
    server is lost on the way, outside of one. Errors hold no secrets.
    """

    name: str
    function: Callable[..., Metrics]
    config: Config
    store: Store
    inputs: "dict[str, Work | Config]"
    files: dict[str, str | None]  # role -> the file of that input that is meant
    recipe: str
    run: str
    refresh: bool
    order: int  # its place in the DAG
    memory: int | None  # MB that it is known to need
    slots: Slots
    compute: Compute
    processes: Processes
    tell: "Callable[[Work], None]"  # called once, when it is done or has failed
    stopped: Callable[[], bool]  # whether a stage has failed, so that nothing new begins
    done: tuple[Attempt, bool] | None = None
    error: Exception | None = None
    unseen: Exception | None = None  # why the server does not show what was done
    _lock: Any = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.tries = self.row.retries + 1

    @property
    def row(self) -> Stage:
        """Its row in the table of stages."""
        return row(self.name)

    def __call__(self) -> tuple[Attempt, bool]:
        """The attempt, and whether it ran now. Raises NotBegun where another failed before this could begin."""
        with self._lock:
            if self.error:
                raise self.error
            if self.done is None:
                if self.stopped():
                    raise NotBegun(f"{self.name} was not begun, because another stage failed.")
                try:
                    self.done = self._build()
                except NotBegun:
                    raise
                except Exception as error:
                    self.tries -= 1
                    if self.tries:
                        raise
                    self.fail(error)
                    raise self.error or error from error.__cause__
                self.tell(self)
        return self.done

    def fail(self, error: Exception) -> None:
        """Record why it failed."""
        self.error = clean(error)
        self.tell(self)

    def _build(self) -> tuple[Attempt, bool]:
        inputs: dict[str, Any] = {}
        for role, value in self.inputs.items():
            if not isinstance(value, Work):
                inputs[role] = value
            elif value.done is None:
                raise NotBegun(f"{self.name} was not begun, because {value.name} did not end.")
            else:
                inputs[role] = Output(value.done[0].artifact, self.files[role])
        request = build.request(self.store, self.name, self.function, self.config, inputs)
        return build.build(self.store, request, self.refresh, self._call)

    def _call(
        self, function: Callable[..., Metrics], config: BaseModel, out: Path, inputs: dict[str, Any]
    ) -> dict[str, Any]:
        processes = self.compute.of(len(devices())) if self.row.trains else 1
        with self.slots.turn(self.order, processes * self.row.gpu, self.memory) as environment:
            if self.stopped():
                raise NotBegun(f"{self.name} was not begun, because another stage failed.")
            environment |= place(self.store.root / "tracking", self.run, self.name)
            return self.processes.run(function, config, out, inputs, environment, self.row.timeout, processes)


class Done:
    """What a stage's task hands on. Prefect looks inside what it knows for results of earlier tasks, and would find the
    values that attempts share: it cannot look inside this, so that its graph has the DAG's edges and no others."""

    def __init__(self, attempt: Attempt):
        self.attempt = attempt


def _task(stage: Stage) -> Task[..., Any]:
    def run(work: Work, waits: dict[str, Any]) -> Any:
        log = get_run_logger()
        attempt, ran = work()
        where = work.store.root / "artifacts" / attempt.artifact
        log.info("%s %s: %s", work.name, "ran" if ran else "was there already", where)
        try:
            publish(work, attempt)
        except Exception as error:  # the artifact is safe in the store: what people see here is not worth a failure
            work.unseen = error
            log.warning("%s is not shown here: %s", attempt.artifact, error)
        return Done(attempt) if ran else cached(attempt)

    run.__name__ = run.__qualname__ = stage.name  # what Prefect makes the task's key of
    about = (stage.function.__doc__ or stage.title).partition("\n")[0]
    return Task(
        run, name=stage.name, description=about, tags=stage.tags, retries=stage.retries, cache_policy=NO_CACHE,
        persist_result=False,
    )  # fmt: skip


TASKS = {stage.name: _task(stage) for stage in STAGES}


def cached(attempt: Attempt) -> State[Done]:
    """The state that Prefect shows for a hit."""
    return Completed(name="Cached", message=f"{attempt.artifact}, made {attempt.created_at}", data=Done(attempt))


def publish(work: Work, attempt: Attempt) -> None:
    """Show an attempt in the Prefect UI: its metrics as a table, the filter's funnel, the report."""
    folder = work.store.root / "artifacts" / attempt.artifact
    where = f"`{attempt.artifact}` in `{work.store.root}`"

    def key(what: str) -> str:
        return re.sub("[^a-z0-9]+", "-", f"{work.recipe} {what}".lower()).strip("-")

    create_table_artifact(metrics(attempt.metrics), key=key(f"{work.name} metrics"), description=f"Metrics of {where}")
    if attempt.stage == "filter":
        create_table_artifact(funnel(attempt.metrics), key=key("filter funnel"), description=f"Rows dropped by {where}")
    if attempt.stage == "report":
        summary = (folder / "summary.md").read_text(encoding="utf-8")
        page = f"The whole report: `{folder / 'report.html'}` (`align report --open`)"
        create_markdown_artifact(f"{summary}\n\n{page}\n", key=key("report"), description=f"Report of {where}")


def metrics(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Metrics as rows of a table, numbers with four significant digits."""
    shown = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in sorted(values.items())}
    return [{"metric": name, "value": value} for name, value in shown.items()]


def funnel(values: dict[str, Any]) -> list[dict[str, Any]]:
    """The filter's metrics as rows of a table: read, kept, then the rules, those that dropped most first."""
    drops = {k.removeprefix("dropped."): v for k, v in values.items() if k.startswith("dropped.") and v}
    ends = [{"step": step, "rows": values.get(step)} for step in ("read", "kept")]
    steps = sorted(drops.items(), key=lambda drop: (-drop[1], drop[0]))
    return [*ends, *({"step": f"dropped: {rule}", "rows": -rows} for rule, rows in steps)]
