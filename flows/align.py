"""The whole pipeline as a Prefect flow of cached tasks."""

from typing import Any

from prefect import flow, get_run_logger
from prefect.futures import PrefectFuture
from prefect.runtime import deployment, flow_run
from prefect.task_runners import ThreadPoolTaskRunner

from align.redact import clean, leaving
from flows import ending
from flows import run as runs
from flows.execute import WIDEST, execute
from flows.recipe import load
from flows.task import TASKS
from flows.work import Work
from storage.store import Store


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
        return execute(load(recipe, overrides or []), Store(runs.store_path(store)), select, refresh, Tasks())


class Tasks:
    """Carries works as Prefect tasks; made in a flow. Where Prefect's server is lost on the way, the works that are
    left are done without it."""

    def __init__(self) -> None:
        ending.listen()
        self.flow_run: str | None = flow_run.id
        self.forward = bool(deployment.id)  # from the command line, what a stage prints is for the terminal
        self.log: Any = get_run_logger()

    def carry(self, works: list[Work], log: runs.Log) -> None:
        """Have Prefect run every work as a task and wait for all; where it is lost, do the rest without it."""
        _tag(log)
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
            if log.lost:
                work.to_the_end()


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


def _submit(work: Work, futures: dict[str, PrefectFuture[Any]]) -> PrefectFuture[Any]:
    """The task of a work. Prefect reads the edges of its graph off what is handed over, and waits for it."""
    waits = {v.name: futures[v.name] for v in work.before}
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
    if not work.over and not state.is_completed():  # Prefect did not let it begin
        refusal: Any = state.result(raise_on_failure=False)
        if isinstance(refusal, BaseException) and runs.unreachable(refusal):
            log.lose()
        elif all(v.done or v.skipped for v in work.before):
            work.fail(clean(refusal))
