"""The devices of this machine, held against other flow runs of the same Prefect server.

Each device has a global concurrency limit of 1 there. A flow run holds it by a lease that it renews: where it is
killed, the lease ends by itself. Kubernetes and Slurm give a job devices that no other has: there nothing is held.
"""

import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import ConcurrencyLeaseHolder
from prefect.exceptions import ObjectAlreadyExists
from prefect.logging import get_logger
from prefect.runtime import flow_run

from align.errors import StageError
from flows.run import unreachable
from flows.slots import devices

LEASE = 60.0  # seconds; Prefect takes none that is shorter
_RENEW, _LOOK = 15.0, 1.0
_GIVEN = ("KUBERNETES_SERVICE_HOST", "SLURM_JOB_ID")
_LOCKED, _GONE = 423, 410


def limit(device: str) -> str:
    """The name of the limit of a device of this machine."""
    return f"align-gpu-{platform.node()}-{device}"


@contextmanager
def leased(wanted: int, free: Sequence[str], stopped: Callable[[], bool]) -> Iterator[Sequence[str]]:
    """Hold so many of this machine's devices as a stage may use that wants some (flows.slots.Lend). On a machine
    without any, stages that want one take turns all the same.

    Where the server is lost, or the run is stopped, nothing is held: nobody else is sent anything either.
    """
    if not wanted or any(name in os.environ for name in _GIVEN):
        yield free
        return
    names = {limit(device): device for device in devices() or ("cpu",)}
    lease: _Lease | None = None
    try:
        while lease is None and not stopped():
            lease = _take(list(names), max(1, len(free)))
    except Exception as error:
        if not unreachable(error):
            raise
        get_logger("flows").warning("The Prefect server is gone, so that no device is held: %s", error)
    if lease is None:
        yield free
        return
    try:
        yield [names[name] for name in lease.names] if free else free
    finally:
        lease.end()


def _take(names: Sequence[str], many: int) -> "_Lease | None":
    """Take so many limits that are free, all or none; None after a little while where there are not enough."""
    with get_client(sync_client=True) as client:
        for name in names:
            with suppress(ObjectAlreadyExists):  # made at the same time
                client.upsert_global_concurrency_limit_by_name(name, 1)
        free = [name for name in names if not client.read_global_concurrency_limit_by_name(name).active_slots]
    if len(free) >= many:
        try:
            return _Lease(free[:many])
        except Exception as error:
            if _status(error) != _LOCKED:  # taken meanwhile
                raise
    time.sleep(_LOOK)
    return None


class _Lease:
    """Limits that are held until `end`. Prefect's own `concurrency` gives up renewing after three attempts: a training
    of hours would lose its device to a server that is started again."""

    def __init__(self, names: Sequence[str]):
        self.names = names
        self._holder = ConcurrencyLeaseHolder(type="flow_run", id=flow_run.id) if flow_run.id else None
        self._over = threading.Event()
        self._id = self._acquire()
        self._renewing = threading.Thread(target=self._renew, daemon=True)
        self._renewing.start()

    def end(self) -> None:
        """Let go. Where the server is gone, the lease ends by itself."""
        self._over.set()
        self._renewing.join()
        with suppress(Exception), get_client(sync_client=True) as client:
            client.release_concurrency_slots_with_lease(self._id)

    def _acquire(self) -> Any:
        with get_client(sync_client=True) as client:
            answer = client.increment_concurrency_slots_with_lease(
                list(self.names), 1, "concurrency", LEASE, self._holder
            )
        found = answer.json()
        if len(found["limits"]) != len(self.names):  # Prefect takes a limit that is not there for none
            raise StageError(f"the limits {', '.join(self.names)} were removed from the Prefect server meanwhile.")
        return found["lease_id"]

    def _renew(self) -> None:
        while not self._over.wait(_RENEW):
            try:
                with get_client(sync_client=True) as client:
                    client.renew_concurrency_lease(self._id, LEASE)
            except Exception as error:
                if _status(error) == _GONE:
                    with suppress(Exception):
                        self._id = self._acquire()


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)
