"""Stages sent to another work pool: each as a flow run of its stage's deployment, which is waited for."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling

from align.errors import InputError, StageError
from flows.remote import Call
from flows.run import unreachable
from flows.stages import row
from flows.work import NotBegun

LOST = 2  # how often a stage is sent again whose worker was lost
PATIENCE = 600.0  # seconds that the Prefect server may be away while a stage is computed elsewhere
LOOK = 2.0  # seconds between looks at it
_TICK = 0.1
_WAITING = (StateType.SCHEDULED, StateType.PENDING)


class Sender:
    """Sends the stages of one flow run to a pool."""

    def __init__(self, pool: str, log: Any):
        self.pool, self.log = pool, log
        self._lock = threading.Lock()
        self._going: set[UUID] = set()
        self._recalled = False

    def __call__(self, call: Call, stopped: Callable[[], bool]) -> None:
        """Have a worker of the pool do what a call says, and wait for it.

        A worker that is lost (its run crashed) is replaced. Raises StageError for what failed there, and where the
        server is lost; NotBegun where the run is stopped before a worker has begun; KeyboardInterrupt once all were
        recalled.
        """
        try:
            self._ask(call, stopped)
        except Exception as error:
            if not unreachable(error):
                raise
            raise StageError(
                f"the Prefect server does not answer, which has the workers of the pool {self.pool}; the same command "
                "resumes once it does."
            ) from error

    def _ask(self, call: Call, stopped: Callable[[], bool]) -> None:
        for left in reversed(range(LOST + 1)):
            run = self._start(call)
            state = self._end(call, run, stopped)
            where = f"(flow run {run.name} in the pool {self.pool})"
            if state.type == StateType.COMPLETED:
                return
            if state.type == StateType.FAILED:
                raise StageError(f"{state.message} {where}")
            if state.type != StateType.CRASHED:
                raise StageError(f"it was cancelled in the Prefect UI {where}.")
            said = state.message or "it says nothing"
            if not left:
                raise StageError(f"its worker was lost {LOST + 1} times, the last time so: {said} {where}")
            self.log.warning("The worker of %s was lost and another is asked: %s %s", call.node, said, where)

    def recall(self) -> None:
        """Cancel everything that has been sent and not ended: whoever waits for it is ending."""
        with self._lock:
            self._recalled, going = True, list(self._going)
        for run in going:
            with suppress(Exception):
                _cancel(run, "what asked for it was ended")

    def _start(self, call: Call) -> FlowRun:
        name = row(call.node).name
        with get_client(sync_client=True) as client:
            self._check(client, name)
        with self._lock:
            if self._recalled:
                raise KeyboardInterrupt
            run: FlowRun = run_deployment(  # type: ignore[assignment] # not a coroutine: nothing is running an event loop
                deployment(name), parameters={"call": call.model_dump(mode="json")}, timeout=0,
                flow_run_name=f"{call.node} of {call.run}", tags=[f"run:{call.run}"],
            )  # fmt: skip
            self._going.add(run.id)
        return run

    def _check(self, client: SyncPrefectClient, name: str) -> None:
        try:
            found = client.read_deployment_by_name(deployment(name)).work_pool_name
        except ObjectNotFound:
            raise InputError(
                f"the Prefect server has no deployment {deployment(name)}; `align deploy` makes it."
            ) from None
        if found != self.pool:
            raise InputError(f"compute.pool is {self.pool}, but the deployments of stages are in the pool {found}.")

    def _end(self, call: Call, run: FlowRun, stopped: Callable[[], bool]) -> State[Any]:
        """The state in which a flow run has ended."""
        late, heard = False, time.monotonic()
        try:
            while True:
                try:
                    with get_client(sync_client=True) as client:
                        state = client.read_flow_run(run.id).state
                    heard = time.monotonic()
                except Exception as error:
                    if not unreachable(error) or time.monotonic() - heard > PATIENCE:
                        raise
                    state = None
                if state and state.is_final() and not self._recalled:
                    return state
                if state and state.name == "Late" and not late:
                    late = True
                    self.log.warning("%s waits for a worker of the pool %s.", call.node, self.pool)
                if state and state.type in _WAITING and stopped():
                    _cancel(run.id, "another stage of the pipeline failed")
                    raise NotBegun(f"{call.node} was not begun, because another stage failed.")
                self._pause()
        finally:
            with self._lock:
                self._going.discard(run.id)

    def _pause(self) -> None:
        until = time.monotonic() + LOOK
        while time.monotonic() < until:
            if self._recalled:
                raise KeyboardInterrupt
            time.sleep(_TICK)


def deployment(stage: str) -> str:
    """What Prefect calls the deployment of a stage."""
    return f"rerun-{stage}/{stage}"


def _cancel(run: UUID, why: str) -> None:
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run, Cancelling(message=f"Cancelled, because {why}."))
