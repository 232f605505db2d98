"""The whole pipeline as a Prefect flow of cached tasks."""

from collections.abc import Callable
from typing import Any

from prefect import State, flow, get_run_logger
from prefect.runtime import deployment

from align.config import Config
from align.progress import announce
from flows import run as runs
from flows.dag import Node, dag
from flows.plan import Planned, latest, plan
from flows.recipe import Recipe, load
from flows.task import Done, run_stage
from storage.build import differences
from storage.store import Attempt, Store


@flow(name="align", persist_result=False)
def align(
    recipe: str = "quickstart",
    overrides: list[str] | None = None,
    select: str | None = None,
    refresh: bool = False,
    store: str | None = None,
) -> runs.Outcome:
    """Run a recipe: a path, or the name of a file in recipes/. `overrides` are `dotted.key=value`."""
    return execute(load(recipe, overrides or []), Store(runs.store_path(store)), select, refresh)


def execute(recipe: Recipe, store: Store, select: str | None = None, refresh: bool = False) -> runs.Outcome:
    """Run the DAG's stages in order, each as a task, and record what becomes of each. Call it inside a flow.

    A task runs in the thread that calls it, here the main one: Ctrl-C and a cancellation in the UI end it at once.
    """
    planned = {stage.stage: stage for stage in plan(store, recipe, select, refresh)}
    before = latest(store, recipe.name)

    with runs.recording(store, recipe) as log:
        get_run_logger().info("Run %s of %s in %s", log.run.id, recipe.name, store.root)

        def run(
            name: str, function: Callable[..., dict[str, Any]], config: Config, **inputs: Node | Config | None
        ) -> Node:
            if planned[name].status == "skipped":
                return Node(name)
            present = {role: value for role, value in inputs.items() if value is not None}
            # From a worker, what a stage prints is for the UI; from the command line, for the terminal.
            task = run_stage.with_options(name=name, task_run_name=name, log_prints=bool(deployment.id))
            state: State[Done] = task(
                name,
                function,
                config,
                inputs={role: v.value if isinstance(v, Node) else v for role, v in present.items()},
                files={role: v.file for role, v in present.items() if isinstance(v, Node)},
                store=store,
                refresh=refresh and planned[name].status in ("run", "waits"),
                return_state=True,
            )
            if not state.is_completed():
                error = state.result(raise_on_failure=False)
                log.add(name, None, "failed", str(error))
                raise runs.failure(name, error)
            done, hit = state.result(), state.name == "Cached"
            attempt = done.attempt
            log.add(name, attempt, *(("cached", "") if hit else ("ran", _why(planned[name], attempt, before))))
            announce(log.stages[-1])
            return Node(name, done)

        dag(recipe, run)
    return runs.Outcome(log.run.id, tuple(log.stages))


def _why(planned: Planned, attempt: Attempt, before: dict[str, Attempt]) -> str:
    """Why a stage ran: what the plan said, or, where it had to wait for its inputs, what they turned out to be."""
    if planned.status == "run":
        return planned.reason
    if planned.stage not in before:
        return "never ran"
    return "; ".join(differences(attempt.config, attempt.inputs, attempt.code, before[planned.stage])) or "refresh"
