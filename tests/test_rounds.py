"""Rounds: their stages, the gate after each, and what a run ends with; on a real chain whose gate a grader decides."""

import json
import re
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
import warm
from rounded import Chain
from served import PATIENCE, TINY, align, client

from align import tables
from flows.check import problems
from flows.graph import mermaid, parents
from flows.needs import needs
from flows.plan import plan
from flows.promotion import by_hand
from flows.recipe import load
from flows.show import final_of
from flows.stages import final, outline
from storage import champions, layout, runs

ONE = """
ingest:
filter: ingest
sft: filter
sft_unfiltered: filter
sample: ingest sft
pairs: ingest sample
reward: pairs sft
resample: ingest sft
select: ingest resample reward
sft_rs: select sft
sft_random: select sft
reference: pairs sft_rs
dpo: pairs sft_rs reference
answer_base: ingest
answer_sft: ingest sft
answer_sft_unfiltered: ingest sft_unfiltered
answer_sft_rs: ingest sft_rs
answer_sft_random: ingest sft_random
answer_dpo: ingest dpo
evaluate: ingest answer_base answer_sft answer_sft_unfiltered answer_sft_rs answer_sft_random answer_dpo
"""
EDGES = {name: read.split() for name, _, read in (line.partition(":") for line in ONE.strip().splitlines())}
PLAIN = ["chain.dpo_pairs=pairs", "promote.against=none"]
ROUND = ("sample", "pairs", "reward", "resample", "select", "sft_rs", "reference", "dpo")


def test_one_round_is_the_chain_that_it_was():
    recipe = load("quickstart", PLAIN)
    assert list(parents(recipe).items()) == [*EDGES.items(), ("report", list(EDGES))]
    assert final(recipe) == "dpo" and not any("round" in p.title for p in outline(recipe).parts)


def test_each_round_has_stages_of_its_own_and_goes_on_from_the_newest_policy():
    recipe = load("quickstart", [*PLAIN, "chain.rounds=3"])
    edges = parents(recipe)
    assert {name: read for name, read in edges.items() if name in EDGES and name != "evaluate"} == {
        name: read for name, read in EDGES.items() if name != "evaluate"
    }
    assert edges["gate"] == ["ingest", "sft", "dpo"]
    for k, began, gate in ((2, "dpo", "gate"), (3, "dpo_r2", "gate_r2")):
        own = {f"{name}_r{k}" for name in ROUND}
        for name in own:
            assert set(edges[name]) - own == {gate, *({"ingest"} if "ingest" in EDGES[name[:-3]] else ())} | (
                {began} if "sft" in EDGES[name[:-3]] else set()
            ), name
        assert edges[f"gate_r{k}"] == ["ingest", began, f"dpo_r{k}", gate]
        assert edges[f"answer_dpo_r{k}"] == ["ingest", f"dpo_r{k}", gate]
        assert f"sft_random_r{k}" not in edges
    assert edges["newest"] == ["sft", "dpo", "dpo_r2", "dpo_r3", "gate", "gate_r2", "gate_r3"]
    assert final(recipe) == "newest" and "answer_newest" not in edges
    drawn = mermaid(recipe)
    assert "gate -.-> sample_r2" in drawn and "gate -.-> pairs_r2" not in drawn and "gate --> newest" in drawn
    asked = [(p.round, q.model, q.against) for p in outline(recipe).parts for q in p.questions if "round" in q.topic]
    assert asked == [(2, "dpo_r2", "dpo"), (3, "dpo_r3", "dpo_r2")]
    assert outline(recipe).title("dpo_r2") == "DPO, round 2"
    assert set(needs(recipe)) == set(needs(load("quickstart", PLAIN))) | {"gate"}


def test_rounds_with_several_reward_models_own_pairs_and_online_rl():
    overrides = ["chain.rounds=2", "chain.rewards=2", "chain.dpo_pairs=both", "pairs_dpo.reward=true",
                 "pairs_dpo.grader={kind: none}", "controls.longer=true"]  # fmt: skip
    recipe = load("quickstart-grpo", overrides)
    edges = parents(recipe)
    assert {"reward_r2", "reward_2_r2"} <= set(edges["select_r2"]) and not {"reward", "reward_2"} & set(
        edges["select_r2"]
    )
    assert set(edges["pairs_dpo_r2"]) == {"ingest", "sample_dpo_r2", "pairs_r2", "reward_r2", "gate"}
    assert edges["sample_dpo_r2"] == ["ingest", "sft_rs_r2", "gate"] and "pairs_dpo_r2" in edges["dpo_r2"]
    assert "newest" in edges["grpo"] and "newest" in edges["sft_longer"] and "dpo" not in edges["grpo"]
    assert final(recipe) == "grpo" and list(problems(recipe)) == []
    kept = parents(load("quickstart-grpo", [*overrides, "chain.reward_each_round=false"]))
    assert {"reward", "reward_2"} <= set(kept["select_r2"]) and not any(n.startswith("reward_r") for n in kept)
    assert "reward" in kept["pairs_dpo_r2"]
    from_rs = parents(load("quickstart-grpo", ["chain.rounds=2", "chain.grpo=sft_rs"]))
    assert from_rs["newest"] == ["sft", "sft_rs", "sft_rs_r2", "gate", "gate_r2"] and "newest" in from_rs["grpo"]


REFUSED = {
    ("chain.gate.level=0.9",): "chain.gate: has no effect where chain.rounds is 1",
    ("chain.reward_each_round=false",): "chain.reward_each_round: has no effect where chain.rounds is 1",
    ("chain.rounds=2", "pairs.held_out=0"): "pairs.held_out: is 0, but prompts that are held out decide",
    ("chain.rounds=2", "pairs.grader={kind: none}"): "chain.gate.grader: is none, and so is pairs.grader",
    ("chain.rounds=2", "sample.split=evaluation"): "sample.split: is evaluation, but evaluation items must not decide",
    ("chain.rounds=2", "sample.split=sft"): "sample.split: is sft, but sft is trained on what would decide",
    ("chain.rounds=2", "resample.split=preference"): "resample.split: is preference as sample.split is",
    ("chain.rounds=2", "chain.dpo_pairs=both", "pairs_dpo.reward=true", "pairs_dpo.held_out=0"):
        "pairs_dpo.held_out: is 0",
}  # fmt: skip


@pytest.mark.parametrize("overrides", REFUSED, ids=" ".join)
def test_a_gate_that_would_decide_nothing_or_by_what_was_trained_on_is_refused(overrides: tuple[str, ...]):
    assert any(p.startswith(REFUSED[overrides]) for p in problems(load("quickstart", overrides)))
    assert list(problems(load("quickstart", [*PLAIN, "chain.rounds=3"]))) == []


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return Chain(tmp_path_factory.mktemp("rounds"))


def test_what_is_not_shown_to_help_ends_the_rounds(chain: Chain):
    found = {s.stage: s for s in chain.outcome.stages}
    assert set(found) == set(parents(chain.recipe()))
    assert found["gate"].metrics["shown"] == 1 and found["gate"].metrics["verdict"] == "better"
    assert found["gate_r2"].metrics["shown"] == 0 and found["gate_r2"].metrics["verdict"] == "worse"
    skipped = {name for name, s in found.items() if s.status == "skipped"}
    last = {f"{name}_r3" for name in (*ROUND, "gate", "answer_sft_rs", "answer_dpo") if name != "reward"}
    assert skipped == last and all(s.status == "ran" for name, s in found.items() if name not in skipped)
    assert {found[name].reason for name in skipped} == {
        f"round 2 was not shown to help: {_points(found['gate_r2'].metrics)}"
    }
    assert all(found[name].artifact is None for name in skipped)
    assert runs.history(chain.store)[-1]["status"] == "done"


def _points(m: dict[str, Any]) -> str:
    return f"{100 * m['gain']:+.1f} [{100 * m['gain.low']:.1f}, {100 * m['gain.high']:.1f}]"


def test_the_run_ends_with_the_policy_of_the_last_round_that_helped(chain: Chain):
    assert final_of(chain.store, chain.outcome.run_id) == "dpo"
    weights = {name: (chain.folder(name) / "adapter" / "adapter_model.safetensors").read_bytes()
               for name in ("dpo", "dpo_r2", "newest")}  # fmt: skip
    assert weights["newest"] == weights["dpo"] != weights["dpo_r2"]


def test_a_gate_asks_prompts_that_nothing_is_trained_on_and_draws_what_sample_draws(chain: Chain):
    drawn = tables.read(chain.folder("gate") / "samples.parquet")
    asked = {s["row_id"] for s in drawn}
    pairs = [p for name in ("pairs", "pairs_r2") for p in tables.read(chain.folder(name) / "pairs.parquet")]
    assert asked and not asked & {p["row_id"] for p in pairs if not p["held_out"]}
    assert asked & {p["row_id"] for p in pairs if p["held_out"]}
    rows = {r["row_id"]: r for r in tables.read(chain.folder("ingest") / "rows.parquet")}
    assert {rows[i]["split"] for i in asked} == {"preference"}
    again = {s["sample_id"] for s in tables.read(chain.folder("sample_r2") / "samples.parquet")}
    assert {s["sample_id"] for s in drawn} <= again
    assert {s["sample_id"] for s in tables.read(chain.folder("gate") / "scores.parquet")} <= again


def test_evaluation_and_report_go_on_with_the_policies_that_there_are(chain: Chain):
    graded = {r["model"] for r in tables.read(chain.folder("evaluate") / "evaluations.parquet")}
    assert graded == {"base", "sft", "sft_rs", "dpo", "sft_rs_r2", "dpo_r2"}
    page = (chain.folder("report") / "summary.md").read_text()
    assert "The final model (dpo)" in page and "**Round 2**" in page and "DPO, round 2" in page
    assert "Round 3" not in page and "**Whether to go on after round 2** (worse)" in page
    assert "later rounds were skipped" in page
    table = json.loads((chain.folder("report") / "summary.json").read_text())
    assert [row[0] for row in table["rows"]] == ["base", "sft", "sft_rs", "dpo", "sft_rs_r2", "dpo_r2"]
    assert "1 round of 3 shown to help" in (chain.folder("report") / "report.html").read_text()
    content = json.loads((chain.folder("report") / "page.json").read_text())
    (rounds,) = [each for each in content["chapters"] if each["id"] == "rounds"]
    trained = [block for block in rounds["blocks"] if block["kind"] == "table"][1]
    column = dict(zip(trained["columns"], zip(*trained["rows"], strict=True), strict=True))
    assert column["round"] == ("1", "2") and column["reward model, held out %"][1] == "–"
    for k, name in enumerate(("pairs", "pairs_r2")):
        metrics = json.loads((chain.folder(name) / "metrics.json").read_text())
        assert column["pairs"][k] == str(metrics["pairs"])
        right = metrics["correct"] / (metrics["correct"] + metrics["wrong"] + metrics["unreadable"])
        assert column["right samples %"][k] == f"{100 * right:.1f}"


def test_what_the_rounds_end_with_is_compared_for_promotion_and_by_hand_becomes_champion(chain: Chain):
    done = chain.run("promote.against=sft")
    found = {s.stage: s for s in done.stages}
    assert {n for n, s in found.items() if s.status == "ran"} == {"promote", "report"}
    said = json.loads((chain.store.root / "artifacts" / str(found["promote"].artifact) / "promotion.json").read_text())
    assert (said["model"], said["against"], said["promoted"]) == ("dpo", "sft", False)
    assert done.promotion is not None and done.promotion.status == "not promoted"
    by_hand(chain.store, done.run_id, chain.recipe("promote.against=sft"), force="a look at its answers")
    champion = champions.current(chain.store, "tiny")
    assert champion and (champion.model, champion.artifact) == ("dpo", found["dpo"].artifact)


def test_again_is_cached_and_skipped_and_plan_says_so(chain: Chain):
    code = (
        "import sys, flows.cli; flows.cli.main(sys.argv[1:]); "
        "sys.exit(any(m in sys.modules for m in ('torch', 'prefect', 'transformers')) * 9)"
    )
    words = ["run", str(TINY), *chain.words, "--json"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    before = {s.stage: (s.artifact, "skipped" if s.status == "skipped" else "cached") for s in chain.outcome.stages}
    assert {s["stage"]: (s["artifact"], s["status"]) for s in json.loads(done.stdout)["stages"]} == before
    planned = {p.stage: p for p in plan(chain.store, chain.recipe())}
    assert {name: p.status for name, p in planned.items()} == {name: status for name, (_, status) in before.items()}
    assert planned["sample_r3"].reason.startswith("round 2 was not shown to help: -")


def test_another_beta_runs_from_the_first_dpo_on(chain: Chain):
    planned = {p.stage: p for p in plan(chain.store, chain.recipe("dpo.beta=0.2"))}
    assert planned["dpo"].status == "run" and "beta" in planned["dpo"].reason
    assert {p.status for p in planned.values() if p.stage in ("sft", "pairs", "reward", "sft_rs", "reference")} == {
        "cached"
    }
    rest = [n for n in planned if n.endswith(("_r2", "_r3")) or n in ("gate", "newest", "evaluate")]
    assert {planned[name].status for name in rest} == {"waits"}
    assert "gate" in planned["sample_r2"].reason


def test_views_show_what_was_skipped_and_trace_follows_a_row_through_rounds(chain: Chain):
    store = ["--store", str(chain.store.root), "--run", chain.outcome.run_id]
    query = "SELECT status, count(*) AS n FROM stage_runs GROUP BY 1"
    found = json.loads(align("sql", query, *store, "--json").stdout)
    assert {r["status"]: r["n"] for r in found} == Counter(s.status for s in chain.outcome.stages)
    row = min(s["row_id"] for s in tables.read(chain.folder("gate") / "samples.parquet"))
    done = align("trace", row, *store, "--json")
    sampled = json.loads(done.stdout)["sampled"]
    assert {s["artifact"].rpartition("-")[0] for s in sampled} == {"sample", "gate", "sample_r2", "gate_r2"}
    assert all(len({json.dumps(x) for x in s["scores"]}) == len(s["scores"]) for s in sampled)


def test_a_gate_that_sees_no_difference_skips_from_the_second_round_on_and_a_sweep_compares_what_runs_end_with(
    chain: Chain, prefect_server
):
    """As a flow run, whose tasks end in a state of their own name."""
    strict = "chain.gate.grader.function=same"
    planned = {p.stage: p for p in plan(chain.store, chain.recipe(strict))}
    assert planned["gate"].status == "run" and planned["sample_r2"].status == planned["evaluate"].status == "waits"
    words = ["sweep", str(TINY), *chain.words, "--set", f"{strict.replace('=', '=grade,')}", "--json"]
    swept = warm.align(*words, timeout=PATIENCE)
    assert swept.returncode == 0, swept.stderr
    found = json.loads(swept.stdout)
    ids = {p["settings"][0]: p["run_id"] for p in found["points"]}
    stages = {s["stage"]: s for s in runs.stages(chain.store, ids[strict])}
    assert stages["gate"]["metrics"]["verdict"] == "too few to tell" and stages["dpo_r2"]["status"] == "skipped"
    reason = stages["dpo_r2"]["reason"]
    assert re.fullmatch(r"round 1 was not shown to help: 0\.0 \[-([\d.]+), \1], too few to tell", reason), reason
    assert {s["status"] for n, s in stages.items() if n.endswith(("_r2", "_r3"))} == {"skipped"}
    assert found["model"] == "newest" and final_of(chain.store, ids[strict]) == "sft"
    assert all(p["results"] for p in found["points"])
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    record = chain.store.read(layout.started(ids[strict]), "run")
    assert record is not None
    own = FlowRunFilter(id=FlowRunFilterId(any_=[record["flow_run"]]))
    with client(prefect_server) as asked:
        states = {t.name: t.state for t in asked.read_task_runs(flow_run_filter=own) if t.state}
    assert states["dpo_r2"].name == "Skipped" and "round 1 was not shown" in str(states["dpo_r2"].message)
    assert states["newest"].name == "Completed" and states["dpo"].name == "Cached"
