"""A real `align serve` for tests, and what they do with it and with other processes."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import warm

from flows import server
from storage.store import Store

TINY = Path(__file__).with_name("tiny.yaml")
ALIGN = [sys.executable, "-m", "flows.cli"]
PATIENCE = 300  # seconds, for a machine that does other things too


class Served:
    """A store with `align serve` on it."""

    def __init__(self, folder: Path, recipe: str | Path = TINY):
        self.store, self.log, self.recipe = Store(folder / "store"), folder / "log", recipe
        self.start()

    def start(self) -> None:
        """Start it, also where it has ended."""
        words = ["serve", str(self.recipe), "--store", str(self.store.root), "--port", "0"]
        env = own_environment(PREFECT_API_BLOCKS_REGISTER_ON_START="false")
        with self.log.open("w") as out:
            self.process = subprocess.Popen([*ALIGN, *words], stdout=out, stderr=out, env=env)
        self.ui = wait_for(self._address)
        address = server.address(self.store)
        assert address is not None
        self.login = address["login"]

    def _address(self) -> str | None:
        assert self.process.poll() is None, self.log.read_text()
        found = re.search(r"Prefect UI: (\S+)", self.log.read_text())
        return found[1] if found and "asks for a login" in self.log.read_text() else None

    def client(self) -> Any:
        return client(self)

    def run(self, deployment: str, **parameters):
        """Start a deployment as the UI does, and wait for its end."""
        with self.client() as client:
            flow_run = client.create_flow_run_from_deployment(
                client.read_deployment_by_name(deployment).id, parameters=parameters
            )
            return wait_for(lambda: (found := client.read_flow_run(flow_run.id)).state.is_final() and found)

    def tasks(self, flow_run) -> dict:
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

        with self.client() as client:
            found = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.id])))
        return {task.name: task for task in found}

    def artifacts(self, flow_run) -> dict:
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

        with self.client() as client:
            found = client.read_artifacts(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.id])))
        return {artifact.key: artifact for artifact in found}


def client(up: Served | server.Server) -> Any:
    """A client of its Prefect server, whatever the environment was when prefect was imported here."""
    from prefect.client.orchestration import SyncPrefectClient

    return SyncPrefectClient(api=f"{up.ui}/api", auth_string=up.login)


@contextmanager
def prefect(home: Path) -> Iterator[server.Server]:
    """A Prefect server, which every `align run` uses that is started meanwhile."""
    running = server.start(home)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (server.settings(home) | running.clients).items():
            patch.setenv(name, value)
        yield running
    running.stop()


def wait_for(ready, every: float = 0.2, patience: float = PATIENCE):
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if found := ready():
            return found
        time.sleep(every)
    raise AssertionError(f"not within {patience} s")


def own_environment(**more: str) -> dict[str, str]:
    """The environment without the server that other tests share."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")} | more


def align(*words: str) -> subprocess.CompletedProcess:
    return warm.align(*words, timeout=PATIENCE, env=own_environment())


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def descendants(pid: int) -> list[int]:
    import psutil

    return [process.pid for process in psutil.Process(pid).children(recursive=True)]


def alive(pid: int) -> bool:
    import psutil

    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
