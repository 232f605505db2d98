"""`align serve`: Prefect's server, the deployments of prefect.yaml and a worker, on this machine and for one store."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from align import whole
from align.errors import AlignError, InputError
from flows import child, login, server
from flows.recipe import RECIPES, Recipe, find, load
from flows.stages import STAGES
from storage import files
from storage.store import Store

POOL = "align-local"
MANIFEST = Path(__file__).with_name("prefect.yaml")  # a link to the one at the top, so that packages have it
SILENCE = timedelta(seconds=100)  # three heartbeats: a run that says nothing for so long is dead


def serve(store: Store, port: int = 4200, recipe: str = "quickstart") -> None:
    """Serve until KeyboardInterrupt, then end everything that was started.

    Forms in the UI are filled in with the settings of `recipe`. Raises InputError if the store is served already or
    the port is taken, AlignError if something does not start or ends by itself.
    """
    loaded, path = load(recipe), find(recipe)
    if path.parent != RECIPES:
        recipe = str(path.resolve())  # runs have a working directory of their own
    try:
        with serving(store, port, recipe, loaded) as (running, children):
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
        _pool_and_automation()
        _deploy(environment, folder / "deploy.log")
        _fill_forms(recipe, loaded)
        # One run at a time: a model being trained fills the machine.
        start = ["worker", "start", "--name", platform.node(), "--pool", POOL, "--type", "process", "--limit", "1"]
        worker = child.spawn("prefect", *start, "--install-policy", "never", env=environment, log=folder / "worker.log")
        stack.callback(child.stop, worker)
        stack.callback(_cancel_runs)
        whole.replace(folder / "address.json", {"api": running.api, "ui": running.ui})
        stack.callback((folder / "address.json").unlink, missing_ok=True)
        yield running, {home / "server.log": running.process, folder / "worker.log": worker}


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


def _pool_and_automation() -> None:
    """The work pool, and what ends runs whose worker was killed with them: nobody else would notice."""
    from prefect.automations import AutomationCore, EventTrigger, Posture
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.events.actions import ChangeFlowRunState
    from prefect.states import StateType

    beat = "prefect.flow-run.heartbeat"
    ends = {f"prefect.flow-run.{end}" for end in ("Completed", "Failed", "Crashed", "Cancelled", "Suspended")}
    zombies = AutomationCore(
        name="Runs without heartbeats have crashed",
        description=f"A run that was killed together with its worker would stay Running for ever. After "
        f"{SILENCE.total_seconds():.0f} s without a heartbeat it is marked as crashed.",
        trigger=EventTrigger(
            match={"prefect.resource.id": "prefect.flow-run.*"},
            for_each={"prefect.resource.id"},
            after={beat},
            expect={beat, *ends},
            posture=Posture.Proactive,
            threshold=1,
            within=SILENCE,
        ),
        actions=[
            ChangeFlowRunState(
                name="Crashed",
                state=StateType.CRASHED,
                message="No heartbeats: the process was killed.",
                force=False,
            )
        ],
    )
    with get_client(sync_client=True) as client:
        client.create_work_pool(
            WorkPoolCreate(name=POOL, type="process", description="Processes on this machine."), overwrite=True
        )
        known = client.read_automations_by_name(zombies.name)
        if known:
            client.update_automation(known[0].id, zombies)
        else:
            client.create_automation(zombies)


def _cancel_runs() -> None:
    """End what the worker is running: it would go on without worker and server."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas import filters
    from prefect.states import Cancelling, StateType

    types = filters.FlowRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING, StateType.CANCELLING])
    going = filters.FlowRunFilter(state=filters.FlowRunFilterState(type=types))
    here = filters.WorkPoolFilter(name=filters.WorkPoolFilterName(any_=[POOL]))
    deadline = time.monotonic() + 40  # the worker gives a run 30 s to end by itself
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=going, work_pool_filter=here):
            client.set_flow_run_state(run.id, Cancelling(message="align serve was stopped"))
        while client.read_flow_runs(flow_run_filter=going, work_pool_filter=here) and time.monotonic() < deadline:
            time.sleep(0.5)


def _deploy(environment: dict[str, str], log: Path) -> None:
    log.unlink(missing_ok=True)
    manifest = log.with_name("prefect.yaml")
    manifest.write_text(json.dumps(deployments()), encoding="utf-8")  # JSON is YAML
    words = ["--no-prompt", "deploy", "--all", "--prefect-file", str(manifest)]
    deploying = child.spawn("prefect", *words, env=environment, log=log)
    try:
        if deploying.wait():
            raise AlignError(f"The deployments of prefect.yaml could not be made: {child.tail(log)} (see {log}).")
    finally:
        child.stop(deploying)


def deployments() -> dict[str, Any]:
    """prefect.yaml, and one deployment for each stage that people run alone."""
    from ruamel.yaml import YAML

    found: dict[str, Any] = YAML(typ="safe").load(MANIFEST.read_text(encoding="utf-8"))
    (pipeline,) = found["deployments"]
    found["deployments"] += [
        {"name": stage.name, "entrypoint": f"flows.rerun.{stage.name}", "tags": [*stage.tags, "stage"],
         "work_pool": pipeline["work_pool"]}
        for stage in STAGES if stage.alone
    ]  # fmt: skip
    return found


def _fill_forms(recipe: str, loaded: Recipe) -> None:
    """Make a recipe the default of every deployment, and its settings what the stages' forms show."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import DeploymentUpdate

    with get_client(sync_client=True) as client:
        for deployment in client.read_deployments():
            if "align" not in deployment.tags:
                continue
            parameters: dict[str, Any] = {**deployment.parameters, "recipe": recipe}
            if "stage" in deployment.tags:
                parameters["config"] = getattr(loaded, deployment.name).model_dump(mode="json")
            client.update_deployment(deployment.id, DeploymentUpdate(parameters=parameters))
