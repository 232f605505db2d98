"""Promotion in real runs, as flow runs of a real server: approval, the event, the champion in every verb, the next run."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import warm
from served import PATIENCE, Served, client, wait_for

from flows.cli import main
from flows.server import Server
from storage import champions, runs
from storage.store import Store

TINY = Path(__file__).with_name("tiny.yaml")
GRADER = '''
def short(prompt, response, reference, meta):
    """The base writes a line before the SQL; what was trained on SQL alone does not."""
    return "\\n" not in response.strip()
'''


class Small:
    """The tiny recipe with less work and a grader that sees what SFT changed, on one store."""

    out, err = "", ""  # what the first run said

    def __init__(self, folder: Path):
        self.store = Store(folder / "store")
        grader = folder / "grader.py"
        grader.write_text(GRADER)
        settings = [
            "controls.random_of_n=false", "sample.limit=8", "resample.limit=8", "sft.num_train_epochs=3",
            f"evaluate.suites.questions={{grader: {{kind: python, file: {grader}, function: short}}, limit: 16}}",
            "promote.against=base", "promote.approve=true",
        ]  # fmt: skip
        self.words = ["run", str(TINY), "--store", str(self.store.root), *(w for s in settings for w in ("--set", s))]

    def run(self, *more: str) -> subprocess.CompletedProcess[str]:
        return warm.align(*self.words, *more, timeout=PATIENCE)

    def champion(self) -> champions.Champion:
        found = champions.current(self.store, "tiny")
        assert found is not None
        return found

    def kept(self) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in (self.store.root / "champions").rglob("*.json")}


def events(up: Server, name: str) -> list[dict[str, Any]]:
    """The events of that name that the server has."""
    with client(up) as asked:
        answer = asked.request("POST", "/events/filter", json={"filter": {"event": {"name": [name]}}, "limit": 50})
    return answer.json()["events"]


@pytest.fixture(scope="module")
def small(tmp_path_factory, prefect_server) -> Small:
    """A run that was paused for approval, and approved by resuming it."""
    small = Small(tmp_path_factory.mktemp("small"))
    process = warm.Command(*small.words)

    def paused() -> Any:
        assert process.poll() is None, process.communicate()
        if not runs.history(small.store):
            return None
        (name,) = {f"run:{run['run_id']}" for run in runs.history(small.store)}
        with client(prefect_server) as asked:
            found = [run for run in asked.read_flow_runs() if name in run.tags]
        return found[0] if found and found[0].state.is_paused() else None

    flow_run = wait_for(paused)
    assert not small.kept() and runs.history(small.store)[-1]["status"] == "done"
    with client(prefect_server) as asked:
        asked.resume_flow_run(flow_run.id)
    small.out, small.err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, small.err
    with client(prefect_server) as asked:
        assert asked.read_flow_run(flow_run.id).state.is_completed()
    return small


def test_resuming_the_flow_run_approves(small):
    crown = small.champion()
    (run,) = runs.history(small.store)
    assert (crown.number, crown.model, crown.run_id) == (1, "dpo", run["run_id"])
    assert "waits for approval" in small.err and f"align promote {run['run_id']}" in small.err
    assert small.out.splitlines()[-1].startswith(f"promoted: dpo of run {run['run_id']} is the champion of tiny now: ")
    assert "points above base [" in small.out.splitlines()[-1]


def test_the_event_is_in_prefect(small, prefect_server):
    crown = small.champion()
    (event,) = wait_for(
        lambda: [e for e in events(prefect_server, "align.promoted") if e["payload"]["artifact"] == crown.artifact]
    )
    assert event["resource"]["prefect.resource.id"] == "align.champion.tiny"
    related = {r["prefect.resource.role"]: r["prefect.resource.id"] for r in event["related"]}
    assert related["run"] == f"align.run.{crown.run_id}" and related["model"] == f"align.artifact.{crown.artifact}"
    assert related["flow-run"].startswith("prefect.flow-run.")
    assert event["payload"]["reasons"][0].startswith("questions: dpo is ")
    with client(prefect_server) as asked:
        (shown,) = [a for a in asked.read_artifacts() if a.key == "tiny-promotion" and "fit to be champion" in a.data]
    assert event["payload"]["reasons"][0] in shown.data


def test_the_verdict_is_a_view_and_leads_the_report(small, capsys):
    at = ["--store", str(small.store.root)]
    main(["sql", "SELECT rule, held FROM promotion ORDER BY ALL", "--csv", *at])
    assert capsys.readouterr().out == "rule,held\nbetter,True\nungraded,True\nungraded,True\n"
    main(["report", "champion", *at])
    page = Path(capsys.readouterr().out.strip()).read_text()
    box = page.partition("dpo is fit to be champion.")[2].partition("</ul>")[0]
    assert re.search(r"✓</span>questions: dpo has to be better than base: \+[\d.]+ points \[", box) and "✗" not in box
    assert page.index('class="verdict') < page.index("dpo is fit to be champion.") < page.index("<nav")


def test_the_same_run_again_changes_nothing(small):
    before = small.kept()
    done = small.run("--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert {s["status"] for s in said["stages"]} == {"cached"} and said["promotion"]["status"] == "unchanged"
    assert small.kept() == before


def test_a_run_that_is_not_better_than_the_champion_leaves_it(small, prefect_server):
    before, crown = small.kept(), small.champion()
    done = small.run("--set", "promote.against=champion", "--set", "dpo.beta=0.9", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    artifacts = {s["stage"]: s["artifact"] for s in said["stages"]}
    assert artifacts["dpo"] != crown.artifact and artifacts["answer_champion"]
    assert said["promotion"]["status"] == "not promoted" and "the champion" in said["promotion"]["text"]
    assert small.kept() == before
    last = runs.history(small.store)[-1]["run_id"]
    wait_for(lambda: [e for e in events(prefect_server, "align.not-promoted") if e["payload"]["run"] == last])


def test_new_goes_on_from_the_champion_with_what_has_come(small):
    before, crown, ran = small.kept(), small.champion(), len(runs.history(small.store))
    done = small.run("--new")
    said = f"nothing new: no row and no label has come to tiny since run {crown.run_id}, which made its champion; "
    assert done.returncode == 0 and done.stdout.startswith(said), done.stdout + done.stderr
    assert len(runs.history(small.store)) == ran
    more = ["ingest.sources.instructions.limit=300", "fresh.replay=60", "promote.approve=false"]
    done = small.run("--new", "--json", *(w for s in more for w in ("--set", s)))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    stages = {s["stage"]: s for s in said["stages"]}
    assert 0 < stages["fresh"]["metrics"]["new"] <= 60 and stages["fresh"]["metrics"]["replayed"] > 60
    (sft,) = small.store.attempts(stages["sft"]["key"])
    assert sft.inputs["adapter"]["artifact"] == crown.artifact
    assert stages["answer_champion"]["status"] in ("ran", "cached")
    promoted = said["promotion"]["status"] == "promoted"
    assert (len(small.kept()), small.kept() == before) == ((2, False) if promoted else (1, True))


def test_chat_and_export_take_the_champion(small, tmp_path, capsys, monkeypatch):
    at, crown = ["--store", str(small.store.root)], small.champion()
    lines = iter(["How many customers are there?", ""])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    main(["chat", *at])
    said = capsys.readouterr()
    assert said.out.strip() and f"align: dpo of run {crown.run_id}, the champion of tiny" in said.err
    main(["export", "champion", "--to", str(tmp_path / "model"), *at])
    assert (tmp_path / "model" / "config.json").is_file()


def test_a_deployment_leaves_its_worker_while_it_waits_and_goes_on_when_it_is_resumed(small, tmp_path):
    """On a copy of the store, in which all but the decision is there already."""
    shutil.copytree(small.store.root, tmp_path / "store")
    words = [word for word in small.words[4:] if word != "--set"]
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PREFECT_API")]:
            patch.delenv(name)
        served = Served(tmp_path)
        try:
            before, overrides = (
                champions.current(served.store, "tiny"),
                [*words, "dpo.beta=0.9", "evaluate.suites.questions.limit=15", "promote.approve=true"],
            )
            with served.client() as asked:
                pipeline = asked.read_deployment_by_name("align/pipeline").id
                run = asked.create_flow_run_from_deployment(pipeline, parameters={"overrides": overrides}).id
                wait_for(lambda: asked.read_flow_run(run).state.name in ("Suspended", "Failed", "Crashed"))
                assert asked.read_flow_run(run).state.name == "Suspended", asked.read_flow_run(run).state.message
                assert champions.current(served.store, "tiny") == before
                asked.resume_flow_run(run)
                done = wait_for(lambda: (found := asked.read_flow_run(run)).state.is_final() and found)
                assert done.state.is_completed(), done.state.message
            now = champions.current(served.store, "tiny")
            assert (
                now is not None
                and before is not None
                and now.number == before.number + 1
                and now.artifact != before.artifact
            )
        finally:
            served.process.kill()
            served.process.wait()
