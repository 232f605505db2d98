"""One stage of a run: it is done once, from the store where it is there already, else in a process of its own."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from align.config import Config, Metrics
from align.errors import AlignError, StageError
from align.models.tracking import place
from align.progress import TOLD
from align.redact import clean
from flows.compute import Compute
from flows.processes import Processes
from flows.ranks import nodes
from flows.rounds import shut
from flows.slots import Slots, devices
from flows.stages import Stage, row
from storage import build, going
from storage.build import Output, Request
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
    inputs: "dict[str, Work | Output | Config]"
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
    gate: "Work | None" = None  # where that is shut, this is skipped
    away: "Callable[[Work, Request], None] | None" = None  # has another machine build it; None: it is built here
    done: tuple[Attempt, bool] | None = None
    error: Exception | None = None
    skipped: str = ""  # why it was
    reason: str = ""  # why it ran, once that was told
    unseen: Exception | None = None  # why the server does not show what was done
    _lock: Any = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.tries = self.row.retries + 1

    @property
    def row(self) -> Stage:
        """Its row in the table of stages."""
        return row(self.name)

    @property
    def over(self) -> bool:
        """Whether nothing more becomes of it."""
        return bool(self.done or self.error or self.skipped)

    @property
    def before(self) -> "list[Work]":
        """What must be over before it begins."""
        read = [value for value in self.inputs.values() if isinstance(value, Work)]
        return [*read, self.gate] if self.gate else read

    def __call__(self) -> tuple[Attempt, bool] | None:
        """The attempt, and whether it ran now; None where it is skipped. Raises NotBegun where another failed before
        this could begin."""
        with self._lock:
            if self.error:
                raise self.error
            if self.done is None and not self.skipped:
                if self.stopped():
                    raise NotBegun(f"{self.name} was not begun, because another stage failed.")
                if why := self._shut():
                    self.skipped = why
                    self.tell(self)
                    return None
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

    def to_the_end(self) -> None:
        """Do it, again as often as it may be tried, unless what it reads is not there. Its errors are in it."""
        while not self.over:
            try:
                self()
            except NotBegun:
                return
            except Exception:
                continue

    def fail(self, error: Exception) -> None:
        """Record why it failed."""
        self.error = clean(error)
        self.tell(self)

    def _shut(self) -> str:
        """Why its gate is shut; "" where it is open, or there is none."""
        if self.gate is None or self.gate.skipped:
            return self.gate.skipped if self.gate else ""
        if self.gate.done is None:
            raise NotBegun(f"{self.name} was not begun, because {self.gate.name} did not end.")
        return shut(self.gate.name, self.gate.done[0].metrics)

    def _build(self) -> tuple[Attempt, bool]:
        inputs: dict[str, Any] = {}
        for role, value in self.inputs.items():
            if not isinstance(value, Work):
                inputs[role] = value
            elif value.skipped:
                continue
            elif value.done is None:
                raise NotBegun(f"{self.name} was not begun, because {value.name} did not end.")
            else:
                inputs[role] = Output(value.done[0].artifact, self.files[role])
        request = build.request(self.store, self.name, self.function, self.config, inputs)
        if self.away is None:
            return build.build(self.store, request, self.refresh, self._call, self.run)
        hit, _ = self.store.lookup(request.key)
        if hit and not self.refresh:
            return hit, False
        self.away(self, request)
        found, wrong = self.store.lookup(request.key)
        if found is None or found == hit:
            raise StageError(
                f"another machine says that it is done, but it is not in {self.store.where} ({wrong or 'no attempt'}); "
                "all workers must use one store ($ALIGN_STORE)."
            )
        return found, True

    def _call(
        self, function: Callable[..., Metrics], config: BaseModel, out: Path, inputs: dict[str, Any]
    ) -> dict[str, Any]:
        processes = self.compute.of(len(devices())) if self.row.gpu else 0  # what only reads is not shared
        group = processes if processes * nodes() > 1 else None
        with self.slots.turn(self.order, processes, self.memory) as environment:
            if self.stopped():
                raise NotBegun(f"{self.name} was not begun, because another stage failed.")
            environment |= place(self.store.root / "tracking", self.run, self.name)
            with going.told(self.store, self.run, self.name) as file:
                return self.processes.run(
                    function, config, out, inputs, {**environment, TOLD: str(file)}, self.row.timeout, group,
                    models=self.row.gpu, compute=self.compute,
                )  # fmt: skip
