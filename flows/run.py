"""Running a recipe from Python or the command line: answer from the store where nothing has to run, else the flow."""

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.errors import AlignError, StageError
from align.redact import leaving, redact
from flows.plan import Planned, plan, read_code
from flows.promotion import Promotion, crowned, settle
from flows.recipe import Recipe, load, names
from flows.since import nothing_new
from storage import places
from storage.runs import Run, StageRun
from storage.store import Attempt, Store

server_lost = False  # whether Prefect still has things to tell a server that is gone


@dataclass(frozen=True)
class Outcome:
    """A finished run: its id and what every stage that took part came to."""

    run_id: str
    stages: tuple[StageRun, ...]
    promotion: Promotion | None = None
    """What came of the verdict of promote, where there is one."""
    note: str = ""
    """Why nothing was run, where nothing was."""

    @property
    def summary(self) -> str:
        """It in one line."""
        if self.note:
            return self.note
        count = Counter(stage.status for stage in self.stages)
        said = [f"{count[status]} {status}" for status in ("ran", "cached", "skipped") if count[status]]
        spent = f" in {sum(s.seconds for s in self.stages):.0f} s" if count["ran"] else ""
        said[:1] = [f"{word}{spent}" for word in said[:1]]
        return "; ".join([f"run {self.run_id}: {', '.join(said)}", *([self.promotion.text] if self.promotion else [])])


def store_at(given: str | Path | None = None) -> Store:
    """The store: what is given, a directory or a URL, else $ALIGN_STORE, else .align in the working directory."""
    return places.at(store_name(given))


def store_name(given: str | Path | None = None) -> str | Path:
    """The store that is meant, as it is written."""
    return given or os.environ.get("ALIGN_STORE") or ".align"


def run(
    recipe: str = "quickstart",
    overrides: Sequence[str] = (),
    store: Store | None = None,
    select: str | None = None,
    refresh: bool = False,
) -> Outcome:
    """Run a recipe and return what happened: as a flow run where a Prefect server is up (flows.server.connect), else in
    this process alone. Raises AlignError."""
    store = store or store_at()
    loaded = crowned(store, load(recipe, overrides))
    if note := nothing_new(store, loaded):
        return Outcome("", (), note=note)
    planned = plan(store, loaded, select, refresh)
    if all(stage.status in ("cached", "skipped") for stage in planned):
        return answer(store, loaded, planned, words(recipe, overrides, select, refresh))
    from flows.processes import serving
    from flows.server import connect

    read_code(loaded)
    with serving():
        if connect(store):
            return _flow(recipe, overrides, store, select, refresh)
        from flows.execute import execute

        with leaving():
            return execute(loaded, store, select, refresh, asked=words(recipe, overrides, select, refresh))


def _flow(recipe: str, overrides: Sequence[str], store: Store, select: str | None, refresh: bool) -> Outcome:
    """Run the recipe as a Prefect flow; what it did stays done where Prefect's server goes away meanwhile."""
    from flows.align import align

    begun: list[Log] = []
    token = _BEGUN.set(begun)
    try:
        outcome: Outcome = align(recipe, list(overrides), select, refresh, store.where)
        return outcome
    except Exception as error:
        url = os.environ["PREFECT_API_URL"]
        if not begun and getattr(getattr(error, "response", None), "status_code", None) == 401:
            raise AlignError(f"The Prefect server at {url} wants a login; set PREFECT_API_AUTH_STRING.") from error
        if not unreachable(error):
            raise
        if not begun:
            raise AlignError(
                f"The Prefect server at {url} does not answer; start it or unset PREFECT_API_URL."
            ) from error
        begun[-1].lose()
        if begun[-1].error:  # what ended the work, not that the server could not be told
            raise begun[-1].error from None
        return begun[-1].outcome
    finally:
        _BEGUN.reset(token)
        if begun and begun[-1].lost:
            said = f"align: The Prefect server at {os.environ['PREFECT_API_URL']} went away: its UI lost this run."
            print(redact(f"{said} What was done is in {store.where}."), file=sys.stderr, flush=True)


def flow_run_name(recipe: Recipe, part: str = "") -> str:
    """What a flow run is called: the recipe, which stage of it, and the beginning of a digest over its settings."""
    digest = hashlib.sha256(recipe.model_dump_json().encode()).hexdigest()[:8]
    return " ".join(filter(None, [recipe.name, part, digest]))


def unreachable(error: BaseException | None) -> bool:
    """Whether an error of Prefect's, or what caused it, means that its server did not answer, or failed, rather than
    refused something."""
    if error is None:
        return False
    modules = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", 500)
    silent = type(error) is RuntimeError and "Failed to reach API" in str(error)
    # A task asks for the slots of its tags before it begins; none of ours is limited.
    slots = type(error).__name__ == "ConcurrencySlotAcquisitionError"
    return ("httpx" in modules and status >= 500) or silent or slots or unreachable(error.__cause__)


def words(recipe: str, overrides: Sequence[str], select: str | None, refresh: bool) -> list[str]:
    """What follows `align run` to ask for the same from any folder, without secrets."""
    named = recipe if recipe in names() else str(Path(recipe).absolute())
    given = [word for override in overrides for word in ("--set", override)]
    chosen = ["--select", select] if select is not None else []
    return [redact(word) for word in [named, *given, *chosen, *(["--refresh"] if refresh else [])]]


def answer(store: Store, recipe: Recipe, planned: Sequence[Planned], asked: Sequence[str] = ()) -> Outcome:
    """Record a run in which everything was there already."""
    with recording(store, recipe, asked=asked, planned=[p.stage for p in planned if p.attempt or p.shut]) as log:
        for stage in planned:
            if stage.attempt:
                log.add(stage.stage, stage.attempt, "cached", "")
            elif stage.shut:
                log.add(stage.stage, None, "skipped", stage.reason)
    log.promotion = settle(store, recipe, log.run.id, log.stages, lambda _: None)
    return log.outcome


class Log:
    """The stages of a run in progress, kept as they end."""

    def __init__(self, run: Run):
        self.run = run
        self.stages: list[StageRun] = []
        self.error: BaseException | None = None  # what ended the run
        self.promotion: Promotion | None = None
        self.lost = False  # whether the Prefect server went away: what is left to do is done without it

    @property
    def outcome(self) -> Outcome:
        """What has come of it."""
        return Outcome(self.run.id, tuple(self.stages), self.promotion)

    def lose(self) -> None:
        """The Prefect server has gone."""
        global server_lost
        self.lost = server_lost = True

    def add(self, stage: str, attempt: Attempt | None, status: str, reason: str) -> None:
        """Record the outcome of a stage: ran, cached, skipped or failed."""
        reason = redact(reason)
        if attempt is None:
            record = StageRun(stage, None, None, status, 0.0, reason, {})
        else:
            seconds = attempt.seconds if status == "ran" else 0.0
            record = StageRun(stage, attempt.key, attempt.artifact, status, seconds, reason, attempt.metrics)
        self.run.stage(record)
        self.stages.append(record)


_BEGUN: ContextVar[list[Log] | None] = ContextVar("begun", default=None)  # where `run` finds what it started


@contextmanager
def recording(
    store: Store, recipe: Recipe, flow_run: str | None = None, asked: Sequence[str] = (), planned: Sequence[str] = ()
) -> Iterator[Log]:
    """A run's record, from start to end. An exception ends it as failed, Ctrl-C as interrupted, a kill not at all."""
    run = Run(store, recipe.name, recipe.model_dump(mode="json"), flow_run, asked, planned)
    log = Log(run)
    if (begun := _BEGUN.get()) is not None:
        begun.append(log)
    try:
        yield log
    except BaseException as error:
        log.error = error
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
