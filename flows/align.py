"""The whole pipeline as a Prefect flow of cached tasks."""

import sys
import time
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect.flow_runs import suspend_flow_run
from prefect.futures import PrefectFuture
from prefect.runtime import deployment, flow_run
from prefect.states import Completed, Paused
from prefect.task_runners import ThreadPoolTaskRunner

from align.redact import clean, leaving, redact
from flows import ending, watch
from flows import run as runs
from flows.devices import leased
from flows.execute import WIDEST, execute
from flows.promotion import Decision, Promotion
from flows.recipe import load
from flows.send import Sender
from flows.show import say
from flows.slots import unshared
from flows.task import TASKS
from flows.work import Work


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
        asked = runs.words(recipe, overrides or [], select, refresh)
        return shown(execute(load(recipe, overrides or []), runs.store_at(store), select, refresh, Tasks(), asked))


def shown(outcome: runs.Outcome) -> Any:
    """The state in which Prefect shows a flow run that did its work; it gives whoever called the flow the outcome."""
    return Completed(message=redact(outcome.summary), data=outcome)


class Tasks:
    """Carries works as Prefect tasks; made in a flow. Where Prefect's server is lost on the way, the works that are
    left are done without it."""

    def __init__(self) -> None:
        ending.listen()
        self.flow_run: str | None = flow_run.id
        self.forward = bool(deployment.id)  # from the command line, what a stage prints is for the terminal
        self.lend = leased if deployment.id else unshared
        self.log: Any = get_run_logger()
        self._sender: Sender | None = None

    def sender(self, pool: str) -> Sender | None:
        """What sends stages to a pool; None for a flow run of that pool, which would wait for itself."""
        with get_client(sync_client=True) as client:
            here = client.read_flow_run(flow_run.id).work_pool_name
        self._sender = None if here == pool else Sender(pool, self.log)
        return self._sender

    def carry(self, works: list[Work], log: runs.Log) -> None:
        """Have Prefect run every work as a task and wait for all; where it is lost, do the rest without it."""
        try:
            self._carry(works, log)
        except BaseException:
            if self._sender:
                self._sender.recall()
            raise

    def _carry(self, works: list[Work], log: runs.Log) -> None:
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

    def approves(self, decision: Decision) -> bool | None:
        """Pause this flow run until a person resumes it, which approves, or ends it, which does not.

        One of a deployment leaves its worker meanwhile and begins again when it is resumed: all that it did is cached,
        and a decision that it was not resumed for pauses it again. A decision that was found in the store was asked
        about in the flow run that made it, so that nobody is asked again.
        """
        key = f"promote {decision.id} {decision.artifact}"
        try:
            with get_client(sync_client=True) as client:
                paused = client.read_flow_run(flow_run.id).empirical_policy.pause_keys or set()
            if not decision.fresh and key not in paused:
                return None
            if deployment.id:
                suspend_flow_run(timeout=WAITS, key=key)
                return True
            return _waited(key, decision)
        except Exception as error:
            self.log.warning("Nobody can be asked here whether to promote %s: %s", decision.model, error)
            return None

    def tell(self, promotion: Promotion) -> None:
        """Log what came of a decision, and tell Prefect as an event where that is new."""
        self.log.info("%s: %s", promotion.status, promotion.text)
        if promotion.decision.fresh or promotion.status == "promoted":
            announce(promotion)


WAITS = 30 * 24 * 3600  # seconds that a flow run is paused for a person, after which it fails
_LOOK = 2.0


def _waited(key: str, decision: Decision) -> bool | None:
    """Pause the flow run of this process, and wait until a person resumes it or ends it."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(flow_run.id, Paused(timeout_seconds=WAITS, pause_key=key))
        say(
            f"align: {decision.model} waits for approval: resume this run in the Prefect UI ({flow_run.ui_url}), or "
            f"end this command and type `align promote {decision.run_id}`.",
            sys.stderr,
        )
        while (state := client.read_flow_run(flow_run.id).state) and state.is_paused():
            time.sleep(_LOOK)
    return bool(state and state.is_running())


def announce(promotion: Promotion) -> None:
    """Tell Prefect what came of a decision: the event align.promoted, align.not-promoted or align.waits."""
    decision = promotion.decision
    name = watch.key(decision.recipe)
    facts = {"recipe": decision.recipe, "verdict": promotion.text, "reasons": decision.reasons, "run": decision.run_id,
             "model": decision.model, "artifact": decision.artifact}  # fmt: skip
    emit_event(
        f"align.{promotion.status.replace(' ', '-')}",
        resource={"prefect.resource.id": f"align.champion.{name}", "prefect.resource.name": decision.recipe},
        related=[
            {"prefect.resource.id": f"align.run.{decision.run_id}", "prefect.resource.role": "run"},
            {"prefect.resource.id": f"align.artifact.{decision.artifact}", "prefect.resource.role": "model"},
        ],
        payload=facts,
    )


def _tag(log: runs.Log) -> None:
    """Let the flow run say which run of the store it is, as the run's record says which flow run."""
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
