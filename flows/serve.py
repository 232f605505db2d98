"""`align serve`: Prefect's server, its deployments and a worker for each pool, on this machine and for one store."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from align import whole
from align.errors import AlignError, InputError
from flows import child, login, server
from flows.deploy import CPU, GPU, make, named
from flows.recipe import Recipe, load
from storage import files
from storage.store import Store

# Flow runs at once; stages that load models take turns on the device besides, whichever worker they are on. Pipelines
# have no limit: a worker with one ends (Prefect 3.8) when a suspended run is resumed before its first process is gone.
LIMITS = {CPU: [], GPU: ["--limit", "1"]}


def serve(store: Store, port: int = 4200, recipe: str = "quickstart") -> None:
    """Serve until KeyboardInterrupt, then end everything that was started.

    Forms in the UI are filled in with the settings of `recipe`. Raises InputError if the store is served already or
    the port is taken, AlignError if something does not start or ends by itself.
    """
    loaded = load(recipe)
    try:
        with serving(store, port, named(recipe), loaded) as (running, children):
            print(f"Prefect UI: {running.ui} (store {store.where}). Ctrl-C ends it.")
            # Only people see it here: what is redirected ends in files that others may read.
            shown = f" {running.login}" if sys.stdout.isatty() else ""
            print(f"The UI asks for a login:{shown} (kept in {store.root / 'server' / 'login'}).", flush=True)
            _watch(children)
    except KeyboardInterrupt:
        with suppress(OSError):  # the terminal may be gone
            print("stopped", flush=True)


@contextmanager
def serving(
    store: Store, port: int, recipe: str, loaded: Recipe
) -> Iterator[tuple[server.Server, dict[Path, subprocess.Popen[bytes]]]]:
    """The server, and the children by their logs, while everything is up."""
    folder, home = store.root / "server", store.root / "prefect"
    with ExitStack() as stack:
        stack.enter_context(_only_one(store))
        running = server.start(home, port, known=login.kept(folder / "login"))
        stack.callback(running.stop)
        environment = {
            **os.environ,
            **server.settings(home),
            **running.clients,
            "PREFECT_WORKER_QUERY_SECONDS": "3",
            "ALIGN_STORE": store.where,
        }
        os.environ.update(environment)  # before prefect is imported here
        make(recipe, loaded, dict.fromkeys(LIMITS, "process"), tell="ALIGN_NOTIFY" in environment)
        _end_lost_runs()
        workers = {folder / f"{pool}.log": _worker(pool, environment, folder / f"{pool}.log") for pool in LIMITS}
        for worker in workers.values():
            stack.callback(child.stop, worker)
        stack.callback(_cancel_runs)
        whole.replace(folder / "address.json", {"api": running.api, "ui": running.ui})
        stack.callback((folder / "address.json").unlink, missing_ok=True)
        yield running, {home / "server.log": running.process, **workers}


def _worker(pool: str, environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    start = ["worker", "start", "--name", platform.node(), "--pool", pool, "--type", "process"]
    words = [*start, *LIMITS[pool], "--install-policy", "never"]
    return child.spawn("prefect", *words, env=environment, log=log)


@contextmanager
def _only_one(store: Store) -> Iterator[None]:
    """Hold the store's server lock, which says to `align run` that address.json is true."""
    import fcntl

    path = store.root / "server" / "lock"
    try:
        login.private(path.parent)
        opened = path.open("w")
    except PermissionError:
        raise InputError(f"{path.parent} belongs to another user; serve a store of your own with --store.") from None
    with opened as file:
        for attempt in range(10):  # one who only looks holds it for an instant
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == 9:
                    up = files.read_json(path.with_name("address.json"))
                    where = f"at {up['ui']}" if up else "and about to be up"
                    raise InputError(f"The store {store.where} is served already, {where}.") from None
                time.sleep(0.05)
        yield


def _watch(children: dict[Path, subprocess.Popen[bytes]]) -> None:
    while True:
        for log, process in children.items():
            if process.poll() is not None:
                raise AlignError(f"{log.stem} ended by itself: {child.tail(log)} (see {log}).")
        time.sleep(0.5)


def _end_lost_runs() -> None:
    """Say of what was going when this ended the last time, by force, that it crashed: nobody else would of a run that
    had not begun, and only after a while of others."""
    from prefect.states import Crashed

    with _client() as client:
        for run in _going(client):
            told = "align serve was ended while it ran; a retry goes on from what it finished."
            client.set_flow_run_state(run.id, Crashed(message=told), force=True)


def _cancel_runs() -> None:
    """End what the worker is running: it would go on without worker and server."""
    from prefect.states import Cancelling

    deadline = time.monotonic() + 40  # the worker gives a run 30 s to end by itself
    with _client() as client:
        for run in _going(client):
            client.set_flow_run_state(run.id, Cancelling(message="align serve was stopped"))
        while _going(client) and time.monotonic() < deadline:
            time.sleep(0.5)


def _client() -> Any:
    from prefect.client.orchestration import get_client

    return get_client(sync_client=True)


def _going(client: Any) -> list[Any]:
    """The flow runs that workers have, or had."""
    from prefect.client.schemas import filters
    from prefect.states import StateType

    types = filters.FlowRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING, StateType.CANCELLING])
    going = filters.FlowRunFilter(state=filters.FlowRunFilterState(type=types))
    here = filters.WorkPoolFilter(name=filters.WorkPoolFilterName(any_=list(LIMITS)))
    found: list[Any] = client.read_flow_runs(flow_run_filter=going, work_pool_filter=here)
    return found
