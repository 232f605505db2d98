"""The whole chain on tests/tiny.yaml: killed at every stage, run twice at once, changed knob by knob, asked by SQL."""

import html
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from served import ALIGN, own_environment, prefect
from test_report_words import Texts, english
from warm import align, start

from align.tables import TABLES
from flows import reporting
from flows.graph import parents
from flows.plan import plan
from flows.recipe import load
from flows.stages import row
from storage import runs
from storage.record_views import RECORDS
from storage.store import Store
from storage.upkeep import verify
from storage.views import connect

TINY = Path(__file__).with_name("tiny.yaml")


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Store:
    """A store whose run was killed (SIGKILL, with all its children) once in every stage and resumed each time; of those
    that share a function in one."""
    folder = tmp_path_factory.mktemp("killed")
    store, log, rng = Store(folder / "store"), folder / "log", random.Random(0)
    todo = list({row(name).function: name for name in parents(load(TINY))}.values())
    deadline = time.monotonic() + 900
    while True:
        process = start("run", str(TINY), "--store", str(store.root), log=log, env=own_environment())
        while process.poll() is None and time.monotonic() < deadline:
            begun = {p.name.rsplit("-", 1)[0] for p in (store.root / "tmp").glob("*") if p.is_dir()}
            if found := [stage for stage in todo if stage in begun]:
                time.sleep(rng.random() * 1.5)
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                todo.remove(found[0])
                break
            time.sleep(0.02)
        else:
            assert process.returncode == 0, log.read_text()
            break
    # A stage that ended before its kill landed is not killed again; nearly all of them were.
    assert len(todo) <= 4, f"too few stages were killed: {todo} were not"
    return store


@pytest.fixture(scope="module")
def twice(tmp_path_factory) -> Store:
    """A store on which two processes ran the recipe at once, as flow runs of one server."""
    folder = tmp_path_factory.mktemp("twice")
    store = Store(folder / "store")
    with prefect(folder / "prefect"):
        both = [start("run", str(TINY), "--store", str(store.root), log=folder / f"log{i}") for i in range(2)]
        assert [p.wait(timeout=900) for p in both] == [0, 0], "".join(p.read_text() for p in folder.glob("log*"))
    return store


def artifacts(store: Store) -> dict[str, str]:
    last = runs.history(store)[-1]
    return {s["stage"]: s["artifact"] for s in runs.stages(store, last["run_id"])}


def test_killed_at_every_stage_gives_the_same_artifacts(killed, twice):
    assert artifacts(killed) == artifacts(twice)
    assert set(artifacts(killed)) == set(parents(load(TINY)))


def test_a_kill_costs_at_most_the_stage_that_was_running(killed):
    made = [a.stage for a in killed.attempts()]
    assert sorted(made) == sorted(set(made)), "a finished stage was computed again"
    assert {run["status"] for run in runs.history(killed)} == {"interrupted", "done"}
    assert all(problem is None for _, problem in verify(killed))


def test_two_runs_at_once_compute_nothing_twice(twice):
    assert [run["status"] for run in runs.history(twice)] == ["done", "done"]
    made = [a.stage for a in twice.attempts()]
    assert sorted(made) == sorted(set(made))


def test_again_is_cached_without_torch_or_prefect(twice):
    code = (
        "import sys, flows.cli; flows.cli.main(sys.argv[1:]); "
        "sys.exit(any(m in sys.modules for m in ('torch', 'prefect', 'transformers')) * 9)"
    )
    for verb in ("run", "plan"):
        done = subprocess.run(
            [sys.executable, "-c", code, verb, str(TINY), "--store", str(twice.root), "--json"],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        stages = json.loads(done.stdout)
        stages = stages["stages"] if verb == "run" else stages
        assert {s["status"] for s in stages} == {"cached"}


KNOBS = {
    "ingest": "ingest.seed=1",
    "filter": "filter.seed=1",
    "sft": "sft.learning_rate=0.001",
    "sample": "sample.n=3",
    "pairs": "pairs.held_out=0.3",
    "reward": "reward.center_rewards_coefficient=0.02",
    "resample": "resample.temperature=0.8",
    "select": "select.top=0.5",
    "dpo": "dpo.beta=0.2",
    "evaluate": "evaluate.primary=greedy",
    "report": "report.examples=2",
}


@pytest.mark.parametrize("stage", KNOBS)
def test_a_knob_reaches_its_stage_and_what_follows(twice, stage):
    recipe = load(TINY, [KNOBS[stage]])
    after = {stage}
    for name, before in parents(recipe).items():
        if after & set(before):
            after.add(name)
    planned = plan(twice, recipe)
    assert {p.stage for p in planned if p.status != "cached"} == after
    words = next(p.reason for p in planned if p.stage == stage)
    assert KNOBS[stage].split("=")[0].split(".", 1)[1].split(".")[0] in words and "→" in words


def test_the_shared_settings_of_sft_rs_reach_both_arms(twice):
    planned = plan(twice, load(TINY, ["sft_rs.learning_rate=0.0005"]))
    assert {p.stage for p in planned if p.status == "run"} == {"sft_rs", "sft_random"}


@pytest.mark.parametrize(
    ("knob", "expected"),
    [
        ("dpo.beta=0.2", {"dpo", "answer_dpo", "report"}),
        ("filter.rules.near_duplicate.threshold=0.71", {"filter"}),
    ],
)
def test_exactly_the_affected_stages_run(twice, knob, expected):
    done = align("run", str(TINY), "--store", str(twice.root), "--set", knob, "--json")
    assert done.returncode == 0, done.stderr
    ran = {s["stage"]: s["reason"] for s in json.loads(done.stdout)["stages"] if s["status"] == "ran"}
    assert set(ran) - {"evaluate"} == expected  # if the new policy answers as the old one did, nothing is graded again
    first = next(iter(ran.values()))
    assert "→" in first and knob.split("=")[1] in first


def test_plan_says_that_an_artifact_is_missing(killed):
    name = artifacts(killed)["select"]
    folder = killed.root / "artifacts" / name
    (folder / "manifest.json").rename(folder / "hidden.json")
    try:
        planned = {p.stage: p for p in plan(killed, load(TINY))}
        assert (planned["select"].status, planned["select"].reason) == ("run", "artifact missing")
    finally:
        (folder / "hidden.json").rename(folder / "manifest.json")


def test_every_view_has_rows(twice):
    con = connect(twice)
    empty = [v for v in [*TABLES, *RECORDS] if con.execute(f"SELECT count(*) FROM {v}").fetchone() == (0,)]
    others = {"options", "win_rates", "rewards", "divergences"}  # of suites and stages that tiny.yaml has not
    assert set(empty) <= {"quarantine", "dropped", "altered", "verdicts", "promotion", "champions", "rollouts"} | others


def test_a_question_can_be_followed_to_its_evaluations(twice):
    con = connect(twice)

    def first(rows: str) -> str:
        found = con.execute(f"SELECT row_id FROM {rows} LIMIT 1").fetchone()
        assert found is not None
        return found[0]

    item, prompt, row = first("evaluations"), first("pairs"), first("instructions WHERE NOT kept")
    expected = {item: {"ingested", "evaluated"}, prompt: {"ingested", "sampled", "paired"}, row: {"filtered"}}
    for id_, chapters in expected.items():
        done = align("trace", id_, "--store", str(twice.root), "--json")
        assert done.returncode == 0, done.stderr
        assert chapters <= set(json.loads(done.stdout))


def test_lineage_joins_every_artifact_to_its_parents(twice):
    con = connect(twice)
    orphans = con.execute(
        "SELECT stage FROM artifacts WHERE stage <> 'ingest' AND artifact NOT IN (SELECT child FROM lineage)"
    ).fetchall()
    assert orphans == []
    path = con.execute(
        "WITH RECURSIVE up AS (SELECT artifact AS a FROM artifacts WHERE stage = 'report' "
        "UNION SELECT parent FROM lineage JOIN up ON child = a) "
        "SELECT count(DISTINCT stage) FROM up JOIN artifacts ON artifact = a"
    ).fetchone()
    assert path == (len(parents(load(TINY))),)


def test_a_korean_report_of_it_has_no_english_but_names(twice):
    recipe = load(TINY, ["report.language=ko"])
    run = reporting.chosen(twice, None)
    html = reporting.html(reporting.Recorded(twice, run.run, [s for s in run.stages if s["stage"] != "report"], recipe))
    assert english(html) == [] and "체인" in html and "비용" in html
    named = connect(twice).execute("SELECT string_agg(name || ' ' || coalesce(text, ''), ' ') FROM metrics").fetchone()
    buckets = connect(twice).execute("SELECT string_agg(DISTINCT bucket, ' ') FROM distributions").fetchone()
    names = f"{recipe.model_dump_json()} {run.artifacts.keys()} {named} {buckets} SFT DPO UTC SQL SHA NLL nat base controls champion"
    told = {word for text in Texts(html).texts for word in re.findall(r"(?<![\w-])[A-Za-z][a-z]{2,}(?![\w-])", text)}
    assert {word for word in told if word not in names} == set()


def test_report_show_runs_and_export(twice, tmp_path):
    store = ["--store", str(twice.root)]
    page = Path(align("report", *store).stdout.strip())
    assert page.is_file() and "<html" in page.read_text(encoding="utf-8")
    run_id = json.loads(align("runs", *store, "--json").stdout)[0]["run_id"]
    assert len(json.loads(align("show", run_id, *store).stdout)["stages"]) == len(parents(load(TINY)))
    done = align("export", run_id, "--to", str(tmp_path / "model"), *store)
    assert done.returncode == 0, done.stderr
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    ids: Any = tokenizer.apply_chat_template(
        [{"role": "user", "content": "고객 수는?"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    assert model.generate(**ids, max_new_tokens=4, do_sample=False).shape[1] > ids["input_ids"].shape[1]
    served = json.loads((tmp_path / "model" / "served.json").read_text())
    assert served["certified"] and served["plain"]["same_text"] == served["server"]["same_text"] == 1.0
    assert "exists" in align("export", run_id, "--to", str(tmp_path / "model"), *store).stderr


def test_chat_answers(twice):
    done = subprocess.run(
        [*ALIGN, "chat", "--store", str(twice.root)], input="How many customers are there?\n", capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.strip(), done.stderr


def test_a_sweep_ranks_its_points_and_runs_what_is_new(twice):
    before = {run["run_id"] for run in runs.history(twice)}
    done = align("sweep", str(TINY), "--store", str(twice.root), "--set", "dpo.beta=0.1,0.2,0.3", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["model"] == "dpo" and found["level"] == pytest.approx(1 - 0.05 / 2)
    scores = {p["settings"][0]: p["results"]["questions"]["value"] for p in found["points"]}
    assert set(scores) == {"dpo.beta=0.1", "dpo.beta=0.2", "dpo.beta=0.3"}
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    assert [p["settings"] for p in found["points"] if p["first"]] == [["dpo.beta=0.1"]]
    assert {p["against_first"] == {} for p in found["points"] if p["first"]} == {True}
    made = {p["run_id"]: p["settings"][0] for p in found["points"]}
    assert set(made) == {run["run_id"] for run in runs.history(twice)} - before
    ran = {made[r]: {s["stage"] for s in runs.stages(twice, r) if s["status"] == "ran"} for r in made}
    assert ran["dpo.beta=0.3"] - {"evaluate"} == {"dpo", "answer_dpo", "report"} and not ran["dpo.beta=0.2"]
    assert f"--set {found['points'][0]['settings'][0]}" in found["command"]


def test_a_search_typed_again_finds_its_runs_and_its_page_has_what_it_found(twice, tmp_path):
    page = tmp_path / "page.html"
    words = ["sweep", str(TINY), "--store", str(twice.root), "--set", "dpo.beta=0.05..0.5", "--trials", "2", "--json"]
    done = align(*words, "--html", str(page))
    assert done.returncode == 0 and done.stderr.strip().splitlines()[-1] == str(page), done.stderr
    found = json.loads(done.stdout)
    assert found["seed"] == 0 and found["axes"] == {"dpo.beta": {"low": 0.05, "high": 0.5, "scale": "log"}}
    tried = {p["settings"][0]: p for p in found["points"]}
    assert len(tried) == 2 and tried["dpo.beta=0.1"]["first"], "it begins with the recipe's own value"
    assert (made := {p["run_id"] for p in tried.values()}) == {run["run_id"] for run in runs.history(twice)[-2:]}
    assert found["command"] in html.unescape(page.read_text()) and page.read_text().count("<svg") == 1
    again = Path(align(*words[:-1]).stdout.splitlines()[-1])  # with no file to write, the store keeps its page
    assert again.is_relative_to(twice.root) and found["command"] in html.unescape(again.read_text())
    new = {run["run_id"] for run in runs.history(twice)[-2:]} - made
    assert len(new) == 2 and all(s["status"] == "cached" for run in new for s in runs.stages(twice, run))


def test_a_late_stage_that_fails_says_why_and_a_sweep_goes_on(twice):
    done = align("sweep", str(TINY), "--store", str(twice.root), "--set", "dpo.max_length=8,192", "--json")
    assert done.returncode == 1 and "UnfinishedRun" not in done.stderr, done.stderr
    assert "align: reference: " in done.stderr and "longer than max_length = 8" in done.stderr
    assert "1 of 2 runs failed" in done.stderr and "resumes" in done.stderr
    best, failed = json.loads(done.stdout)["points"]
    assert best["settings"] == ["dpo.max_length=192"] and best["results"] and not best["against_first"]
    assert failed["first"] and "max_length = 8" in failed["error"]
