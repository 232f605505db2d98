"""A pipeline over two pools, whose workers are as on machines of their own, on a server with a PostgreSQL database."""

import json
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import buckets
import postgres
import pytest
from clusters import Cluster, of_flow_run
from served import TINY, next_line, wait_for

from align.errors import InputError
from flows import automations, deploy
from flows.deploy import CPU, GPU
from flows.recipe import ROOT, load
from storage import places, runs, upkeep

HOLDS = """
import sys
from flows.devices import leased
with leased(1, ["0"], lambda: False) as held:
    print(*held, flush=True)
    sys.stdin.read()
"""
CHOOSES = """
import os
from flows.devices import leased
from flows.slots import devices
os.environ["CUDA_VISIBLE_DEVICES"] = "7,8"
def never(): return False
with leased(1, ["7"], never) as first, leased(1, ["7"], never) as second:
    print(*first, *second, flush=True)
    with leased(1, ["7"], lambda: True) as none:
        print("stopped", flush=True)
with leased(2, ["7", "8"], never) as both, leased(0, [], never) as reads:
    print(*both, *reads, flush=True)
os.environ["CUDA_VISIBLE_DEVICES"] = "0"
devices.cache_clear()
with leased(1, ["0"], never) as held:
    print("held", *held, flush=True)
"""
MAINTAINS = """
from flows.maintain import maintain
state = maintain(return_state=True)
print(state.message)
"""
SENDS = """
import logging, threading, time
from prefect.client.orchestration import get_client
from prefect.states import Cancelled
from flows.remote import Call
from flows.send import Sender
call = Call(recipe={}, node="sft", artifacts={}, key="k", code={}, run="r", refresh=False)
def ask(pool="align-gpu", stopped=lambda: False, then=lambda sender: None, call=call):
    sender = Sender(pool, logging.getLogger())
    def go():
        try:
            sender(call, stopped)
        except BaseException as error:
            print(type(error).__name__, error, flush=True)
    thread = threading.Thread(target=go)
    thread.start()
    while thread.is_alive() and not sender._going:
        time.sleep(0.05)
    then(sender)
    thread.join()
def in_turn(sender, left=[("b", "sft"), ("a", "sample")]):
    if left:
        (run, node), *rest = left
        ask(then=lambda s: in_turn(s, rest), call=call.model_copy(update={"run": run, "node": node}))
    else:
        with get_client(sync_client=True) as client:
            waiting = client.request("POST", "/work_pools/align-gpu/get_scheduled_flow_runs", json={}).json()
        print(*[entry["flow_run"]["name"] for entry in waiting], sep=", ", flush=True)
    sender.recall()
def cancel(sender):
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(*sender._going, Cancelled(), force=True)
ask("other")
ask(stopped=lambda: True)
ask(then=Sender.recall)
ask(then=cancel)
ask(then=in_turn)
from prefect.settings import PREFECT_API_URL, temporary_settings
with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
    try:
        Sender("align-gpu", logging.getLogger())(call, lambda: False)
    except Exception as error:
        print(type(error).__name__, error, flush=True)
"""


@pytest.fixture(scope="module")
def told() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An address of apprise, and what was told there."""
    heard: list[dict[str, Any]] = []

    class Hears(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Hears) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"json://127.0.0.1:{server.server_port}/secret", heard
        server.shutdown()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, told: Any) -> Iterator[Cluster]:
    with ExitStack() as stack:
        cluster = Cluster(tmp_path_factory.mktemp("cluster"), stack)
        done = cluster.deploy()
        assert done.returncode == 0, done.stderr
        cluster.work(CPU, ALIGN_NOTIFY=told[0])
        cluster.work(GPU, cluster.other_installation())
        yield cluster


@pytest.fixture(scope="module")
def chosen(cluster):
    """What a process says that wants devices, of which another that was killed held the last."""
    holds = cluster.python(HOLDS, CUDA_VISIBLE_DEVICES="0")
    assert next_line(holds) == "0\n"
    holds.kill()
    return cluster.python(CHOOSES)


@pytest.fixture(scope="module")
def crossed(cluster, chosen):
    """A pipeline whose first worker of sft was lost."""
    run = cluster.pipeline("+pairs")
    lost = wait_for(lambda: cluster.sent(run), every=1)[0]
    for process in wait_for(lambda: of_flow_run(lost.id)):
        process.kill()
    state = cluster.end(run)
    assert state.is_completed(), state.message
    return run


def test_a_run_crosses_to_the_other_pool_and_back(cluster, crossed):
    (record,) = runs.history(cluster.store)
    stages = {s["stage"]: s["status"] for s in runs.stages(cluster.store, record["run_id"]) if s["status"] != "skipped"}
    assert record["status"] == "done"
    assert stages == dict.fromkeys(["ingest", "filter", "sft", "sample", "pairs"], "ran")
    sent = cluster.sent(crossed)
    assert {r.work_pool_name for r in sent} == {GPU} and all(r.parent_task_run_id for r in sent)
    assert [r.name.partition(" ")[0] for r in sent] == ["sft", "sft", "sample"]


def test_a_worker_that_is_lost_is_replaced(cluster, crossed):
    first, second, _ = cluster.sent(crossed)
    assert (first.state.type, second.state.type) == ("CRASHED", "COMPLETED")
    assert len([a for a in cluster.store.attempts() if a.stage == "sft"]) == 1


@pytest.mark.parametrize("which", ["pipeline", "stage"])
def test_cancelling_a_pipeline_or_what_it_sent_ends_the_training(cluster, crossed, which):
    """And frees the device, and leaves nothing in the store."""
    limit = f"align-gpu-{platform.node()}-cpu"
    run = cluster.pipeline("sft", f"sft.num_train_epochs={500 + (which == 'stage')}")
    wait_for(lambda: list((cluster.store.root / "tmp").glob("sft-*/*")))
    (sent,) = cluster.sent(run)
    assert of_flow_run(sent.id) and active(cluster, limit) == 1
    began = time.monotonic()
    with cluster.client() as client:
        from prefect.states import Cancelling

        client.set_flow_run_state(run if which == "pipeline" else sent.id, Cancelling())
    wait_for(lambda: not of_flow_run(sent.id))
    print(f"\nthe training had ended {time.monotonic() - began:.1f} s after its {which} was cancelled")
    assert cluster.end(sent.id).is_cancelled()
    state = cluster.end(run)
    if which == "pipeline":
        assert state.is_cancelled() and runs.history(cluster.store)[-1]["status"] == "interrupted"
    else:
        assert state.is_failed() and "it was cancelled in the Prefect UI" in state.message, state.message
        assert runs.history(cluster.store)[-1]["status"] == "failed"
    assert not list((cluster.store.root / "tmp").glob("sft-*"))
    assert wait_for(lambda: active(cluster, limit) == 0)
    assert not [problem for _, problem in upkeep.verify(cluster.store) if problem]


def test_a_pipeline_outlives_its_server_and_the_database(cluster, crossed):
    """Both are started again while a worker of the other pool trains: the server is away for as long as that takes."""
    run = cluster.pipeline("sft", "sft.num_train_epochs=16")
    wait_for(lambda: list((cluster.store.root / "tmp").glob("sft-*/*")))
    if cluster.database:
        cluster.database.restart()
    cluster.restart_server()
    state = cluster.end(run)
    assert state.is_completed(), state.message
    (sent,) = cluster.sent(run)
    assert wait_for(lambda: cluster.state(sent.id).is_completed())
    assert runs.history(cluster.store)[-1]["status"] == "done"
    assert len([a for a in cluster.store.attempts() if a.stage == "sft"]) == 2
    assert not [problem for _, problem in upkeep.verify(cluster.store) if problem]


def active(cluster: Cluster, limit: str) -> int:
    with cluster.client() as client:
        return int(client.read_global_concurrency_limit_by_name(limit).active_slots)


def test_people_are_told_of_a_damaged_store(cluster, crossed, told):
    """From the nightly run over an automation to the address that only the worker knows."""
    address, heard = told
    artifact = next(p for p in (cluster.store.root / "artifacts").glob("pairs-*") if p.is_dir())
    (artifact / "metrics.json").write_text("{}")
    said, _ = cluster.python(MAINTAINS).communicate()
    assert f"damaged: {artifact.name}: " in said and "Nothing was removed" in said
    of_it, *_ = wait_for(lambda: [one for one in heard if artifact.name in one["message"]])  # others failed before
    assert of_it["title"].startswith("align: ") and of_it["title"].endswith(" Failed")
    with cluster.client() as client:
        told_by = [r for r in client.read_flow_runs() if set(r.parameters) == {"title", "text"}]
        assert told_by and "secret" not in json.dumps([r.parameters for r in told_by])


def test_making_it_again_changes_nothing(cluster, crossed):
    """Deployments, Prefect itself knows by their names."""

    def there(client: Any) -> Any:
        facts = {"id", "work_pool_name", "parameters", "entrypoint", "pull_steps", "tags", "job_variables"}
        deployments = {d.name: d.model_dump(include=facts) for d in client.read_deployments()}
        pools = {p.name: p.base_job_template for p in client.read_work_pools()}
        return deployments, pools, {a.name: a.id for a in client.read_automations()}

    with cluster.client() as client:
        before = there(client)
        assert len(before[2]) == 4 and not any(d["pull_steps"] for d in before[0].values())
        for pool in (CPU, GPU):
            deploy.pool(client, pool, "process", None)
            deploy.pool(client, pool, "keep", None)
        deploy.deployed(client, dict.fromkeys((CPU, GPU), "process"), str(TINY.resolve()), load(TINY))
        automations.make(client, before[0]["notify"]["id"])
        assert there(client) == before
        with pytest.raises(InputError, match="align-gpu is of type process"):
            deploy.pool(client, GPU, "kubernetes", "align:test")
        with pytest.raises(InputError, match="no work pool align-slurm to keep"):
            deploy.pool(client, "align-slurm", "keep", None)


def test_each_device_is_held_by_one_and_comes_back_from_who_was_killed(chosen):
    assert next_line(chosen).split() == ["7", "8"]
    assert [next_line(chosen).split() for _ in range(2)] == [["stopped"], ["7", "8"]]
    assert next_line(chosen).split() == ["held", "0"]


def test_two_machines_with_one_bucket_compute_a_stage_once(cluster, crossed, s3, monkeypatch):
    """Two pipelines ask for the same at once, of workers that have only the server and the bucket in common."""
    for worker in cluster.workers.values():
        worker.kill()
        worker.wait()
    more = buckets.environment(s3) | {"ALIGN_STORE": f"s3://{buckets.BUCKET}/cluster"}
    for pool, root in ((CPU, ROOT), (GPU, cluster.folder / "installation")):
        cluster.work(pool, root, ALIGN_CACHE_DIR=str(cluster.folder / f"cache-{pool}"), **more)
    ended = [cluster.end(run) for run in [cluster.pipeline("+sft") for _ in range(2)]]
    assert [state.message for state in ended if not state.is_completed()] == []
    for name, value in (more | {"ALIGN_CACHE_DIR": str(cluster.folder / "cache")}).items():
        monkeypatch.setenv(name, value)
    store = places.at(more["ALIGN_STORE"])
    assert [run["status"] for run in runs.history(store)] == ["done", "done"]
    assert sorted(attempt.stage for attempt in store.attempts()) == ["filter", "ingest", "sft"]
    assert not [problem for _, problem in upkeep.verify(store) if problem]


def test_what_is_sent_and_not_begun_is_cancelled(cluster, crossed):
    """And pipelines are served in the order in which they sent. The last test: it ends the workers."""
    for worker in cluster.workers.values():
        worker.kill()
        worker.wait()
    said, _ = cluster.python(SENDS).communicate()
    wrong, stopped, recalled, cancelled, turns, *recalls, gone = said.splitlines()
    assert wrong.startswith("InputError compute.pool is other, but the deployments of stages are in the pool align-gpu")
    assert stopped.startswith("NotBegun") and recalled.startswith("KeyboardInterrupt")
    assert turns == "sft of r, sft of b, sample of a" and len(recalls) == 3
    assert cancelled.startswith("StageError it was cancelled in the Prefect UI")
    assert gone.startswith("StageError the Prefect server does not answer, which has the workers of the pool align-gpu")
    with cluster.client() as client:
        sent = [r for r in client.read_flow_runs() if "run:r" in r.tags]
    assert len(sent) == 4 and all(r.state.is_cancelled() for r in sent)


@pytest.mark.skipif(postgres.binaries() is None, reason="PostgreSQL is not installed")
def test_the_server_keeps_its_data_in_postgresql(cluster):
    assert not list(Path(cluster.folder / "prefect").glob("*.db"))
