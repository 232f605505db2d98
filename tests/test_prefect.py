"""Deployments as a user of the UI meets them: a real server, real process workers, forms, states and artifacts."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil
import pytest
from served import PATIENCE, TINY, Served, align, alive, descendants, next_line, own_environment, wait_for

from align.config import Config
from align.errors import AlignError
from flows import automations, child, server
from flows.deploy import CPU, GPU, POOLS, deployments
from flows.paths import portable
from flows.recipe import ROOT, load
from flows.stages import STAGES
from storage.runs import history


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", os.environ.get("PREFECT_HOME", str(folder)))  # of the client in this process
        up = Served(folder)
        yield up
    up.process.kill()
    up.process.wait()


def test_a_form_runs_its_stage_with_what_was_typed_in(served):
    with served.client() as client:
        form = client.read_deployment_by_name("rerun-filter/filter")
    fields = form.parameter_openapi_schema["definitions"]["FilterConfig"]["properties"]
    assert "order" in fields["rules"]["description"]
    config = dict(form.parameters["config"])
    assert config == portable(load(TINY).filter)

    done = served.run("rerun-filter/filter", config=config | {"seed": 7}, upstream=True)
    assert done.state.name == "Completed", done.state.message
    tasks = served.tasks(done)
    assert {name: task.state.name for name, task in tasks.items()} == {"ingest": "Completed", "filter": "Completed"}
    assert {e.id for edges in tasks["filter"].task_inputs.values() for e in edges} == {tasks["ingest"].id}

    artifacts = served.artifacts(done)
    shown = {name for name in artifacts if not name.endswith("-progress")}  # that of a stage which takes long enough
    assert shown == {"tiny-ingest-metrics", "tiny-filter-metrics", "tiny-filter-funnel"}
    funnel = json.loads(artifacts["tiny-filter-funnel"].data)
    assert [step["step"] for step in funnel[:2]] == ["read", "kept"]
    read, kept, *drops = (step["rows"] for step in funnel)
    assert drops and read + sum(drops) == kept > 0

    attempts = {attempt.stage: attempt for attempt in served.store.attempts()}
    assert set(attempts) == {"ingest", "filter"} and attempts["filter"].config["seed"] == 7


def test_a_form_without_what_its_stage_needs_fails_in_one_sentence(served):
    done = served.run("rerun-dpo/dpo")
    assert done.state.name == "Failed"
    assert "needs pairs and sft_rs" in done.state.message


def test_a_command_uses_the_server_that_is_up(served):
    words = ["run", str(TINY), "--store", str(served.store.root), "--select", "+filter"]
    done = align(*words, "--set", "filter.seed=8")
    assert done.returncode == 0, done.stderr
    assert "prefect" not in (done.stdout + done.stderr).replace(str(served.store.root), "").lower()
    with served.client() as client:
        runs = [run for run in client.read_flow_runs() if run.deployment_id is None]
    assert len(runs) == 1
    states = {name: task.state.name for name, task in served.tasks(runs[0]).items()}
    assert states == {"ingest": "Cached", "filter": "Completed"}
    said = {name: task.state.message for name, task in served.tasks(runs[0]).items()}
    first = history(served.store)[0]["run_id"]
    assert said["ingest"] == f"cached: same key as run {first}"
    assert re.fullmatch(r"ran \d+ s: seed 7 → 8", said["filter"])
    assert re.fullmatch(r"run \S+: 1 ran in \d+ s, 1 cached", runs[0].state.message)

    done = align(
        *words, "--set", "filter.rules=[{rule: length, unit: characters, min_response: 90000, max_response: 99999}]"
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("align: filter: ")]
    with served.client() as client:
        failed = [run for run in client.read_flow_runs() if run.deployment_id is None and run.id != runs[0].id]
        assert [run.state.name for run in failed] == ["Failed"]
        wait_for(lambda: any("filter" in log.message and log.level >= 40 for log in client.read_logs()))


def test_deployments_schedule_and_the_watch_over_heartbeats(served):
    with served.client() as client:
        assert {d.name: d.work_pool_name for d in client.read_deployments()} == pools()
        pipeline = client.read_deployment_by_name("align/pipeline")
        assert pipeline.parameters["recipe"] == str(TINY.resolve())
        assert [(s.schedule.cron, s.active) for s in pipeline.schedules] == [("0 2 * * *", True)]
        wait_for(lambda: [r for r in client.read_flow_runs() if r.deployment_id == pipeline.id and r.auto_scheduled])
        assert all(automation.enabled for automation in client.read_automations())
        names = {automation.name for automation in client.read_automations()}
        assert names == {"Runs without heartbeats have crashed", "Runs that do not begin have crashed"}


def test_a_run_that_its_worker_took_and_does_not_begin_has_crashed(served, monkeypatch):
    """Within ten seconds here, the least that Prefect waits."""
    from prefect.states import Pending, Scheduled

    with served.client() as client, monkeypatch.context() as patch:
        patch.setattr(automations, "BEGINS", timedelta(seconds=10))
        automations.make(client, None)
        deployment = client.read_deployment_by_name("rerun-filter/filter")
        later: Any = Scheduled(scheduled_time=datetime.now(UTC) + timedelta(hours=1))
        run = client.create_flow_run_from_deployment(deployment.id, state=later)
        client.set_flow_run_state(run.id, Pending(), force=True)
        state = wait_for(lambda: (found := client.read_flow_run(run.id).state).is_final() and found)
        assert state.is_crashed() and state.message == "It did not begin: the worker that took it was lost."
        patch.undo()
        automations.make(client, None)


def test_other_web_pages_may_not_ask_the_server(served):
    for origin, allowed in (("http://elsewhere.example", None), (served.ui, served.ui)):
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        ask = Request(f"{served.ui}/api/deployments/filter", method="OPTIONS", headers=headers)
        try:
            answer = urlopen(ask, timeout=PATIENCE).headers
        except HTTPError as error:
            answer = error.headers
        assert answer.get("Access-Control-Allow-Origin") == allowed


def test_one_server_per_store_and_per_port(served, tmp_path):
    again = align("serve", "--store", str(served.store.root))
    assert again.returncode == 2 and served.ui in again.stderr and again.stdout == ""
    taken = align("serve", "--store", str(tmp_path), "--port", served.ui.rsplit(":", 1)[1])
    assert taken.returncode == 2 and "is taken" in taken.stderr and "Traceback" not in taken.stderr


def test_a_failed_run_is_retried_in_the_ui_and_goes_on_from_its_checkpoint(served):
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, LogFilter, LogFilterFlowRunId
    from prefect.states import AwaitingRetry

    settings = ["sft.num_train_epochs=12", "sft.save_steps=4", "ingest.seed=3"]
    with served.client() as client:
        pipeline = client.read_deployment_by_name("align/pipeline")
        run = client.create_flow_run_from_deployment(pipeline.id, parameters={"overrides": settings, "select": "+sft"})
        checkpoints = served.store.root / "checkpoints"
        wait_for(lambda: list(checkpoints.glob("sft-*/checkpoint-*/whole.json")), every=0.02)
        for pid in descendants(served.process.pid):
            if not descendants(pid) and any("stage_server" in word for word in psutil.Process(pid).cmdline()):
                os.kill(pid, signal.SIGKILL)

        def ended():
            state = client.read_flow_run(run.id).state
            return state.is_final() and state

        failed = wait_for(ended)
        assert failed.name == "Failed" and "sft: The process of the stage ended with status -9" in failed.message
        assert list(checkpoints.glob("sft-*/checkpoint-*/whole.json"))  # what tests/test_resume.py goes on from
        client.set_flow_run_state(run.id, AwaitingRetry())  # what the button Retry does
        wait_for(lambda: client.read_flow_run(run.id).run_count == 2)
        assert wait_for(ended).name == "Completed"
        of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
        states = sorted((task.name, task.state.name) for task in client.read_task_runs(flow_run_filter=of_run))
        second = [("filter", "Cached"), ("ingest", "Cached"), ("sft", "Completed")]
        assert states == sorted([("filter", "Completed"), ("ingest", "Completed"), ("sft", "Failed"), *second])
        logs = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))
        wait_for(lambda: any("goes on from step " in log.message for log in client.read_logs(log_filter=logs)))
    assert not list(checkpoints.glob("sft-*"))
    first, again = history(served.store)[-2:]
    assert (first["status"], again["status"]) == ("failed", "done")


def test_ctrl_c_ends_a_stage_at_once(served):
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    words = [
        "run",
        str(TINY),
        "--store",
        str(served.store.root),
        "--select",
        "+sft",
        "--set",
        "sft.num_train_epochs=500",
    ]
    code = (  # a shell's background jobs, which tests may be, ignore SIGINT
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import flows.cli; flows.cli.main(sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], stderr=subprocess.PIPE, text=True, env=own_environment()
    )
    seen: dict[str, float] = {}  # how far the stage is, by what the UI says of it

    def moves() -> bool:
        with served.client() as client:
            moving = client.read_artifacts(
                artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["tiny-sft-progress"]))
            )
        seen.update({a.description: float(a.data) for a in moving if " of 2000 · loss " in a.description})
        return len(set(seen.values())) >= 2

    wait_for(moves)
    assert all(re.fullmatch(r"sft: \d+ of 2000 · loss \S+ · [\d,]+ tokens/s · (\d+ min )?\d+ s left", s) for s in seen)
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    assert process.wait(PATIENCE) == 130
    assert time.monotonic() - begun < PATIENCE / 3
    assert process.stderr is not None
    assert process.stderr.read().splitlines()[-1] == "align: interrupted; the same command resumes."
    assert history(served.store)[-1]["status"] == "interrupted"
    assert not list((served.store.root / "tmp").glob("sft-*"))


def test_sigterm_ends_everything(served):
    children = descendants(served.process.pid)
    assert len(children) >= 2
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(PATIENCE) == 0, served.log.read_text()
    assert not [pid for pid in children if alive(pid)]
    assert server.address(served.store) is None
    assert served.log.read_text().splitlines()[2:] == ["stopped"]


def test_what_was_going_when_it_was_killed_has_crashed_when_it_is_there_again(served):
    """The last test on `served`, which had ended."""
    served.start()
    with served.client() as client:
        pipeline = client.read_deployment_by_name("align/pipeline")
        (nightly,) = pipeline.schedules
        client.update_deployment_schedule(pipeline.id, nightly.id, active=False)
        asked = {"select": "+sft", "overrides": ["sft.num_train_epochs=500"]}
        run = client.create_flow_run_from_deployment(pipeline.id, parameters=asked)
        wait_for(lambda: list((served.store.root / "tmp").glob("sft-*")))
    children = descendants(served.process.pid)
    served.process.kill()
    served.process.wait()
    wait_for(lambda: not [pid for pid in children if alive(pid)])
    served.start()
    with served.client() as client:
        state = client.read_flow_run(run.id).state
        assert state.name == "Crashed" and "align serve was ended while it ran" in state.message
        assert not client.read_deployment(pipeline.id).schedules[0].active, "what somebody paused stays so"
    assert history(served.store)[-1]["status"] == "interrupted"


def test_a_child_ends_when_its_parent_is_killed(tmp_path):
    code = (
        "import os, sys, time; from pathlib import Path; from flows import child\n"
        "print(child.spawn('http.server', '0', env=os.environ, log=Path(sys.argv[1])).pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True)
    pid = int(next_line(parent))
    assert alive(pid)
    parent.kill()
    parent.wait()
    wait_for(lambda: not alive(pid))


def test_a_server_that_cannot_start_says_why_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_SERVER_API_KEEPALIVE_TIMEOUT", "soon")
    with pytest.raises(AlignError, match="ended at once: .*ValidationError.*server.log"):
        server.start(tmp_path)


def test_prefect_yaml_has_every_stage_and_no_path_of_a_machine():
    declared = {d["name"]: d for d in deployments(dict.fromkeys(POOLS, "process"))["deployments"]}
    assert str(ROOT) not in json.dumps(declared)
    assert {name: deployment["work_pool"]["name"] for name, deployment in declared.items()} == pools()
    for name in stages():
        assert declared[name]["entrypoint"] == f"flows.rerun.{name}"


def test_a_log_is_told_by_its_last_exception(tmp_path):
    log = tmp_path / "log"
    assert child.tail(log) == "it printed nothing"
    log.write_text("starting\nTraceback (most recent call last):\na.OSError: no space\nERROR: failed. Exiting.\n\n")
    assert child.tail(log) == "a.OSError: no space"
    log.write_text("starting\nbye\n\n")
    assert child.tail(log) == "bye"


def pools() -> dict[str, str]:
    """Every deployment and its pool: one for each stage with settings of its own or with a model to load."""
    load_models = {stage.name for stage in STAGES if stage.load}
    own = dict.fromkeys(["pipeline", "maintain", "notify", *stages()], CPU)
    return own | dict.fromkeys(load_models, GPU)


def stages() -> list[str]:
    slices = {name: value for name, value in load(TINY) if isinstance(value, Config)}
    return [name for name in slices if name not in ("base", "compute", "chain", "controls")]
