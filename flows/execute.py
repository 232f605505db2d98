"""A run: the DAG's stages as works, each told to the store's record when it ends."""

import logging
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Protocol

from align.config import Config, Metrics
from align.errors import InputError
from align.progress import announce
from flows import run as runs
from flows.dag import Node, dag
from flows.needs import gpu_bytes, warnings
from flows.plan import Planned, latest, plan, read_code
from flows.processes import PEAK, Processes
from flows.promotion import Decision, Promotion, crowned, settle
from flows.recipe import Recipe
from flows.remote import Call, call, pool
from flows.show import say
from flows.since import nothing_new
from flows.slots import Lend, Slots, unshared
from flows.stages import row
from flows.work import Work
from storage.build import Output, Request, differences
from storage.going import progress_of
from storage.store import Attempt, Store

Send = Callable[[Call, Callable[[], bool]], None]
"""Returns when what a call asks for is in the store. Where the run is stopped before a worker has begun, or while it is
busy, it raises NotBegun. StageError for what failed there."""
WIDEST = 32  # stages that wait or run at once; each is a thread that waits for a process


class Carrier(Protocol):
    """What takes a run's works to their end, each once those that it reads are done."""

    @property
    def flow_run(self) -> str | None:
        """The id of Prefect's flow run, where there is one."""

    @property
    def forward(self) -> bool:
        """Whether what stages print is for a UI, instead of the terminal."""

    @property
    def log(self) -> Any:
        """A logger of the run's own."""

    def sender(self, pool: str) -> Send | None:
        """What has a worker of that pool do what a call says. None where this run is on one; InputError where nobody
        can be asked."""

    @property
    def lend(self) -> Lend:
        """Holds devices of this machine against other processes."""

    def carry(self, works: list[Work], log: runs.Log) -> None:
        """Return when nothing can be done any more. What became of each work, it knows itself."""

    def approves(self, decision: Decision) -> bool | None:
        """Ask a person whether a model may become champion; None where nobody can be asked here."""

    def tell(self, promotion: Promotion) -> None:
        """Let people know what came of a decision. It is in the store already: raises nothing."""


class Threads:
    """Carries works in threads of this process, and tells nobody."""

    flow_run = None
    forward = False
    lend = staticmethod(unshared)
    log = logging.getLogger("flows.run")

    def carry(self, works: list[Work], log: runs.Log) -> None:
        """Do every work. An interruption leaves the threads to whoever ends the stages that they wait for."""
        futures: dict[str, Future[None]] = {}
        pool = ThreadPoolExecutor(WIDEST)
        try:
            for work in works:
                futures[work.name] = pool.submit(_after, [futures[v.name] for v in work.before], work)
            wait(futures.values())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def sender(self, pool: str) -> Send | None:
        """Nobody can be asked: InputError."""
        raise InputError(
            f"compute.pool or $ALIGN_GPU_POOL is {pool}, but no Prefect server is up that could send stages there; "
            "name one in PREFECT_API_URL, or unset it to compute here."
        )

    def approves(self, decision: Decision) -> bool | None:
        """Nobody is asked: whoever sees the command's answer may approve by another."""
        return None

    def tell(self, promotion: Promotion) -> None:
        """The command's answer says it."""


Threads.log.addHandler(logging.NullHandler())


def _after(before: Iterable[Future[None]], work: Work) -> None:
    wait(before)
    work.to_the_end()


def execute(
    recipe: Recipe, store: Store, select: str | None = None, refresh: bool = False, by: Carrier | None = None,
    asked: Sequence[str] = (),
) -> runs.Outcome:  # fmt: skip
    """Run the DAG's stages, each in a process of its own, and record what becomes of each; `by` defaults to Threads.
    `asked` are the words that asked for it.

    What does not depend on each other runs side by side, as far as there are places for it. After a failure nothing new
    begins.
    """
    by, recipe = by or Threads(), crowned(store, recipe)
    if note := nothing_new(store, recipe):
        by.log.info(note)
        return runs.Outcome("", (), note=note)
    read_code(recipe)
    planned = {stage.stage: stage for stage in plan(store, recipe, select, refresh)}
    _warn(by, recipe, [p.stage for p in planned.values() if p.status in ("run", "waits")])
    before = latest(store, recipe.name)
    works: list[Work] = []
    ended = threading.Event()

    def stopped() -> bool:
        return ended.is_set() or any(w.error for w in works)

    slots = Slots(
        earlier=lambda order: any(not w.over and not w.away for w in works[:order]), stopped=stopped, lend=by.lend
    )
    send = by.sender(pool(recipe)) if pool(recipe) else None

    def away(work: Work, request: Request) -> None:
        assert send is not None
        send(call(recipe, work, request), stopped)

    taking_part = [name for name, p in planned.items() if p.status != "skipped" or p.shut]
    with (
        runs.recording(store, recipe, by.flow_run, asked, taking_part) as log,
        progress_of(store, log.run.id),
        Processes(by.forward, late=bool(send)) as processes,
    ):
        by.log.info("Run %s of %s in %s", log.run.id, recipe.name, store.where)

        def tell(work: Work) -> None:
            if work.skipped:
                log.add(work.name, None, "skipped", work.skipped)
            elif work.done is None:
                log.add(work.name, None, "failed", str(work.error))
                return
            else:
                attempt, ran = work.done
                known = planned[work.name]
                work.reason = _why(known, attempt, before) if ran else ""
                log.add(work.name, attempt, "ran" if ran else "cached", work.reason)
            announce(log.stages[-1])

        def run(
            name: str,
            function: Callable[..., Metrics],
            config: Config,
            *gate: Node,
            **inputs: Node | Output | Config | None,
        ) -> Node:
            if planned[name].status == "skipped" and not planned[name].shut:
                return Node(name)
            present = {role: value for role, value in inputs.items() if value is not None}
            work = Work(
                name, function, config, store,
                inputs={role: v.value if isinstance(v, Node) else v for role, v in present.items()},
                files={role: v.file for role, v in present.items() if isinstance(v, Node)},
                recipe=recipe.name, run=log.run.id, order=len(works),
                refresh=refresh and planned[name].status in ("run", "waits"),
                memory=_memory(before.get(name)), slots=slots, compute=recipe.compute, processes=processes, tell=tell,
                stopped=stopped, gate=next((node.value for node in gate), None),
                away=away if send and row(name).gpu else None,
            )  # fmt: skip
            works.append(work)
            return Node(name, work)

        dag(recipe, run)
        try:
            by.carry(works, log)
        finally:
            ended.set()
        for work in works:
            if work.error:
                raise runs.failure(work.name, work.error) from work.error
    log.promotion = settle(store, recipe, log.run.id, log.stages, by.approves)
    if log.promotion:
        by.tell(log.promotion)
    return log.outcome


def _warn(by: Carrier, recipe: Recipe, names: list[str]) -> None:
    """Say which of the stages that are to run will not fit on the GPU that is here. As an estimate it stops nothing."""
    size = gpu_bytes()
    if size is None:
        return
    try:
        sentences = warnings(recipe, names, size)
    except Exception as error:
        by.log.info("The memory that stages need cannot be estimated: %s", error)
        return
    for sentence in sentences:
        by.log.warning(sentence)
        say(f"align: {sentence}", sys.stderr)


def _memory(before: Attempt | None) -> int | None:
    """MB that a stage's process held at most when it ran last."""
    peak = before.metrics.get(PEAK) if before else None
    return int(peak) if isinstance(peak, int | float) else None


def _why(planned: Planned, attempt: Attempt, before: dict[str, Attempt]) -> str:
    """Why a stage ran: what the plan said, or, where it had to wait for its inputs, what they turned out to be."""
    if planned.status == "run":
        return planned.reason
    if planned.stage not in before:
        return "never ran"
    return "; ".join(differences(attempt.config, attempt.inputs, attempt.code, before[planned.stage])) or "refresh"
