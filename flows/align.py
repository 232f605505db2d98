"""The whole pipeline as a Prefect flow of cached tasks."""

from collections.abc import Callable
from typing import Any

from prefect import flow
from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner

from flows import run as runs
from flows.dag import Node, dag
from flows.plan import Planned, latest, plan
from flows.recipe import Recipe, load
from storage.build import differences
from storage.store import Attempt, Store
from tasks.lib.config import Config
from tasks.lib.progress import announce
from tasks.stage import run_stage


@flow(name="align", task_runner=ThreadPoolTaskRunner(max_workers=1), persist_result=False)
def align(
    recipe: str = "quickstart",
    overrides: list[str] | None = None,
    select: str | None = None,
    refresh: bool = False,
    store: str | None = None,
) -> Any:
    """Run a recipe: a path, or the name of a file in recipes/. `overrides` are `dotted.key=value`."""
    return execute(load(recipe, overrides or []), Store(runs.store_path(store)), select, refresh)


def execute(recipe: Recipe, store: Store, select: str | None = None, refresh: bool = False) -> runs.Outcome:
    """Submit the DAG's stages in order and record what becomes of each. Call it inside a flow."""
    planned = {stage.stage: stage for stage in plan(store, recipe, select, refresh)}
    before = latest(store, recipe.name)
    futures: dict[str, PrefectFuture[Attempt]] = {}

    def submit(
        name: str, function: Callable[..., dict[str, Any]], config: Config, **inputs: Node | Config | None
    ) -> Node:
        if planned[name].status != "skipped":
            present = {role: value for role, value in inputs.items() if value is not None}
            futures[name] = run_stage.with_options(name=name, task_run_name=name).submit(
                name,
                function,
                config,
                inputs={role: v.value if isinstance(v, Node) else v for role, v in present.items()},
                files={role: v.file for role, v in present.items() if isinstance(v, Node)},
                store=store,
                refresh=refresh and planned[name].status in ("run", "waits"),
            )
        return Node(name, futures.get(name))

    with runs.recording(store, recipe) as log:
        dag(recipe, submit)
        for name, future in futures.items():
            future.wait()
            if future.state.is_completed():
                attempt, hit = future.result(), future.state.name == "Cached"
                log.add(name, attempt, *(("cached", "") if hit else ("ran", _why(planned[name], attempt, before))))
                announce(log.stages[-1])
            elif future.state.name != "NotReady":
                error = future.state.result(raise_on_failure=False)
                log.add(name, None, "failed", str(error))
                raise runs.failure(name, error)
    return runs.Outcome(log.run.id, tuple(log.stages))


def _why(planned: Planned, attempt: Attempt, before: dict[str, Attempt]) -> str:
    """Why a stage ran: what the plan said, or, where it had to wait for its inputs, what they turned out to be."""
    if planned.status == "run":
        return planned.reason
    if planned.stage not in before:
        return "never ran"
    return "; ".join(differences(attempt.config, attempt.inputs, attempt.code, before[planned.stage])) or "refresh"
