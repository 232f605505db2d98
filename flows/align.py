"""The whole pipeline as a Prefect flow of cached tasks."""

import sys
from collections.abc import Callable
from typing import Any

from prefect import flow, get_run_logger
from prefect.futures import PrefectFuture
from prefect.runtime import deployment, flow_run
from prefect.task_runners import ThreadPoolTaskRunner

from align.config import Config, Metrics
from align.progress import announce
from align.redact import clean, leaving
from flows import ending
from flows import run as runs
from flows.dag import Node, dag
from flows.needs import gpu_bytes, warnings
from flows.plan import Planned, latest, plan, read_code
from flows.processes import PEAK, Processes
from flows.recipe import Recipe, load
from flows.show import say
from flows.slots import Slots
from flows.task import TASKS, NotBegun, Work
from storage.build import differences
from storage.store import Attempt, Store

WIDEST = 32  # stages that wait or run at once; each is a thread that waits for a process


def _called() -> str:
    asked = flow_run.parameters
    return runs.flow_run_name(load(asked.get("recipe") or "quickstart", asked.get("overrides") or []))


@flow(
    name="align",
    persist_result=False,
    task_runner=ThreadPoolTaskRunner(max_workers=WIDEST),  # type: ignore[arg-type]
    flow_run_name=_called,
)
def align(
    recipe: str = "quickstart",
    overrides: list[str] | None = None,
    select: str | None = None,
    refresh: bool = False,
    store: str | None = None,
) -> runs.Outcome:
    """Run a recipe: a path, or the name of a file in recipes/. `overrides` are `dotted.key=value`."""
    with leaving():
        return execute(load(recipe, overrides or []), Store(runs.store_path(store)), select, refresh)


def execute(recipe: Recipe, store: Store, select: str | None = None, refresh: bool = False) -> runs.Outcome:
    """Run the DAG's stages, each as a task in a process of its own, and record what becomes of each. Call it in a flow.

    What does not depend on each other runs side by side, as far as there are places for it. After a failure nothing new
    begins. Where Prefect's server is lost on the way, the stages that are left run without it.
    """
    ending.listen()
    read_code(recipe)
    planned = {stage.stage: stage for stage in plan(store, recipe, select, refresh)}
    _warn(recipe, [p.stage for p in planned.values() if p.status in ("run", "waits")])
    before = latest(store, recipe.name)
    works: list[Work] = []
    slots = Slots(earlier=lambda order: any(not (w.done or w.error) for w in works[:order]))

    # From a worker, what a stage prints is for the UI; from the command line, for the terminal.
    with runs.recording(store, recipe, flow_run.id) as log, Processes(forward=bool(deployment.id)) as processes:
        get_run_logger().info("Run %s of %s in %s", log.run.id, recipe.name, store.root)
        _tag(log)

        def tell(work: Work) -> None:
            if work.done is None:
                log.add(work.name, None, "failed", str(work.error))
                return
            attempt, ran = work.done
            known = planned[work.name]
            log.add(work.name, attempt, *(("ran", _why(known, attempt, before)) if ran else ("cached", "")))
            announce(log.stages[-1])

        def run(name: str, function: Callable[..., Metrics], config: Config, **inputs: Node | Config | None) -> Node:
            if planned[name].status == "skipped":
                return Node(name)
            present = {role: value for role, value in inputs.items() if value is not None}
            work = Work(
                name, function, config, store,
                inputs={role: v.value if isinstance(v, Node) else v for role, v in present.items()},
                files={role: v.file for role, v in present.items() if isinstance(v, Node)},
                recipe=recipe.name, run=log.run.id, order=len(works),
                refresh=refresh and planned[name].status in ("run", "waits"),
                memory=_memory(before.get(name)), slots=slots, compute=recipe.compute, processes=processes, tell=tell,
                stopped=lambda: any(w.error for w in works),
            )  # fmt: skip
            works.append(work)
            return Node(name, work)

        dag(recipe, run)
        _finish(works, log)
        for work in works:
            if work.error:
                raise runs.failure(work.name, work.error) from work.error
    return log.outcome


def _warn(recipe: Recipe, names: list[str]) -> None:
    """Say which of the stages that are to run will not fit on the GPU that is here. As an estimate it stops nothing."""
    size = gpu_bytes()
    if size is None:
        return
    try:
        sentences = warnings(recipe, names, size)
    except Exception as error:
        get_run_logger().info("The memory that stages need cannot be estimated: %s", error)
        return
    for sentence in sentences:
        get_run_logger().warning(sentence)
        say(f"align: {sentence}", sys.stderr)


def _tag(log: runs.Log) -> None:
    """Let the flow run say which run of the store it is, as the run's record says which flow run."""
    from prefect.client.orchestration import get_client

    try:
        with get_client(sync_client=True) as client:
            client.update_flow_run(flow_run.id, tags={*flow_run.tags, f"run:{log.run.id}"})
    except Exception as error:
        if not runs.unreachable(error):
            raise
        log.lose()


def _finish(works: list[Work], log: runs.Log) -> None:
    """Have Prefect run every work as a task and wait for all; do without it what it cannot do because it is lost."""
    futures: dict[str, PrefectFuture[Any]] = {}
    for work in works:
        try:
            futures[work.name] = _submit(work, futures)
        except Exception as error:
            if not runs.unreachable(error):
                raise
            log.lose()
            break
    for work in works:
        if work.name in futures:
            _wait(work, futures[work.name], log)
        if work.unseen and runs.unreachable(work.unseen):
            log.lose()
        while log.lost and work.done is None and work.error is None:
            try:
                work()
            except NotBegun:
                break
            except Exception:
                continue  # the work knows, and may be tried again


def _submit(work: Work, futures: dict[str, PrefectFuture[Any]]) -> PrefectFuture[Any]:
    """The task of a work. Prefect reads the edges of its graph off what is handed over, and waits for it."""
    waits = {role: futures[v.name] if isinstance(v, Work) else v for role, v in work.inputs.items()}
    task = TASKS[work.row.name].with_options(task_run_name=work.name, log_prints=bool(deployment.id))
    future: PrefectFuture[Any] = task.submit(work, waits)
    return future


def _wait(work: Work, future: PrefectFuture[Any], log: runs.Log) -> None:
    """Wait for a task, and notice where the server is lost. What came of the work, if it was begun, the work knows."""
    try:
        future.wait()
        state = future.state
    except Exception as error:
        if not (log.lost or runs.unreachable(error)):
            raise
        log.lose()
        return
    if log.lost:
        return
    if not state.is_final():  # what it waits for did not end, so that Prefect did not begin it
        return
    if work.done is None and work.error is None and not state.is_completed():  # Prefect did not let it begin
        refusal: Any = state.result(raise_on_failure=False)
        if isinstance(refusal, BaseException) and runs.unreachable(refusal):
            log.lose()
        elif not any(isinstance(v, Work) and v.done is None for v in work.inputs.values()):
            work.fail(clean(refusal))


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
