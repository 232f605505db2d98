"""A Prefect server, the deployments of align on it, and workers as separate machines have them: each with an installation
and a working directory of its own, all with one store."""

import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import postgres
import psutil
import pytest
from served import ALIGN, PATIENCE, TINY, client, own_environment, wait_for

from flows import server
from flows.recipe import ROOT
from storage.store import Store

PARTS = ("align", "flows", "tasks", "storage", "quickstart", "recipes", "prefect.yaml")


class Cluster:
    """All of it; close `stack` to end it."""

    def __init__(self, folder: Path, stack: ExitStack):
        self.folder, self.store, self.stack = folder, Store(folder / "store"), stack
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.database = stack.enter_context(postgres.running()) if postgres.binaries() else None
        self.server = self._serve()
        stack.callback(self._stop)
        self.env = own_environment(
            **server.settings(folder / "prefect"), **self.server.clients, ALIGN_STORE=str(self.store.root),
            PREFECT_WORKER_QUERY_SECONDS="2", ALIGN_GPU_POOL="align-gpu",
        )  # fmt: skip

    def _serve(self, **again: Any) -> server.Server:
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("PREFECT")]:
                patch.delenv(name)
            if self.database:
                patch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", self.database.url)
            patch.setenv("PREFECT_API_BLOCKS_REGISTER_ON_START", "false")
            return server.start(self.folder / "prefect", **again)

    def _stop(self) -> None:
        self.server.stop()

    def restart_server(self) -> None:
        """Kill the server, and start it again where it was."""
        self.server.process.kill()
        self.server.process.wait()
        self.server = self._serve(port=int(self.server.ui.rpartition(":")[2]), known=self.server.login)

    def deploy(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`align deploy` with the tiny recipe."""
        done = [*ALIGN, "deploy", str(TINY), *words]
        return subprocess.run(done, capture_output=True, text=True, timeout=PATIENCE, env=self.env)

    def python(self, code: str, **more: str) -> "subprocess.Popen[str]":
        """A process that runs some code with this server."""
        words, env = [sys.executable, "-c", code], {**self.env, "PYTHONPATH": str(ROOT), **more}
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.stack.callback(process.kill)
        return process

    def work(self, pool: str, root: Path = ROOT, **more: str) -> None:
        """Start a worker of a pool with the installation in `root`."""
        folder = self.folder / f"at-{pool}-{len(self.workers)}"
        folder.mkdir()
        words = ["worker", "start", "--pool", pool, "--name", folder.name, "--install-policy", "never"]
        env = {**self.env, "PYTHONPATH": str(root), **more}
        with (self.folder / f"{folder.name}.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "prefect", *words], stdout=log, stderr=log, cwd=folder, env=env
            )
        self.workers[folder.name] = process
        self.stack.callback(_end, process)

    def other_installation(self) -> Path:
        """A copy of this one elsewhere."""
        root = self.folder / "installation"
        root.mkdir()
        for part in PARTS:
            if (ROOT / part).is_dir():
                shutil.copytree(ROOT / part, root / part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / part, root / part)
        return root

    def client(self) -> Any:
        return client(self.server)

    def start(self, deployment: str, **parameters: Any) -> Any:
        """Start a deployment as the UI does."""
        with self.client() as client:
            found = client.read_deployment_by_name(deployment)
            return client.create_flow_run_from_deployment(found.id, parameters=parameters).id

    def pipeline(self, select: str, *overrides: str) -> Any:
        """Start the pipeline, some of whose stages are for the other pool."""
        return self.start("align/pipeline", select=select, overrides=list(overrides))

    def state(self, run: Any) -> Any:
        with self.client() as client:
            return client.read_flow_run(run).state

    def end(self, run: Any) -> Any:
        """The state in which a flow run ends."""
        return wait_for(lambda: (state := self.state(run)).is_final() and state, every=1)

    def sent(self, run: Any) -> list[Any]:
        """The flow runs that a pipeline sent away, oldest first."""
        with self.client() as client:
            tags = [tag for tag in client.read_flow_run(run).tags if tag.startswith("run:")]
            found = [r for r in client.read_flow_runs() if r.id != run and set(tags) & set(r.tags)]
        return sorted(found, key=lambda r: r.created)


def of_flow_run(run: Any) -> list[psutil.Process]:
    """The processes that compute a flow run."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("PREFECT__FLOW_RUN_ID") == str(run):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
