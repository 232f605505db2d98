"""Promotion by planted comparisons: which rule holds, who becomes champion, and that nothing else changes it."""

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from align import tables
from align.errors import InputError
from flows import promotion
from flows.cli import main
from flows.plan import plan
from flows.promotion import crowned, settle
from flows.recipe import Recipe, load
from storage import champions, room, runs
from storage.runs import Run, StageRun
from storage.store import Store
from storage.upkeep import verify
from tasks.promote import Contest, PromoteConfig, promote

TINY = Path(__file__).with_name("tiny.yaml")
GUARDS = {"sql": None, "safety": 0.02, "korean": 0.02}
BETTER = {"diff": 0.04, "diff_low": 0.02, "diff_high": 0.06, "verdict": "better"}
FELL = {"diff": -0.076, "diff_low": -0.095, "diff_high": -0.057, "verdict": "worse"}
EVEN = {"diff": 0.0, "diff_low": -0.01, "diff_high": 0.01, "verdict": "not shown"}
FEW = {"diff": 0.01, "diff_low": 0.0025, "diff_high": 0.02, "differ": 4, "verdict": "too few to tell"}


def judged(
    folder: Path, suites: dict[str, dict[str, Any]], ungraded: dict[str, int] | None = None, /, **settings: Any
) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]:
    """The rules, the verdict and the metrics for paired differences of dpo to sft; `ungraded` of 100 answers are so."""
    (folder / "graded").mkdir(exist_ok=True)
    (folder / "out").mkdir(exist_ok=True)
    at = {"mode": "sampled", "n": 400, "differ": 90}
    both = [
        {"suite": suite, "model": model, "against": against, **at, **found}
        for suite, found in suites.items() if found
        for model, against in (("dpo", "sft"), ("dpo", None), ("dpo", "base"))
    ]  # fmt: skip
    tables.write(folder / "graded" / "comparisons.parquet", both, tables.COMPARISONS)
    answers = [
        {"suite": suite, "row_id": str(i), "model": model, "mode": mode, "sample_index": 0,
         "status": "ungraded" if model == "dpo" and mode == "sampled" and i < (ungraded or {}).get(suite, 0) else "wrong"}
        for suite in suites for model in ("base", "sft", "dpo") for mode in ("greedy", "sampled") for i in range(100)
    ]  # fmt: skip
    tables.write(folder / "graded" / "evaluations.parquet", answers, tables.EVALUATIONS)
    newest = settings.pop("newest", None)
    mode, final = settings.pop("mode", "sampled"), "newest" if newest else "dpo"
    contest = Contest(model=final, against="sft", mode=mode, guards=GUARDS)
    config = PromoteConfig(against="sft", **settings)
    if newest:
        (folder / "newest").mkdir()
        (folder / "newest" / "metrics.json").write_text(json.dumps({"policy": newest, "rounds": 3}))
    chosen = folder / "newest" if newest else None
    metrics = promote(config, folder / "out", graded=folder / "graded", contest=contest, newest=chosen)
    verdict = json.loads((folder / "out" / "promotion.json").read_text())
    return tables.read(folder / "out" / "promotion.parquet"), verdict, metrics


def test_nothing_broken_promotes(tmp_path):
    rules, verdict, metrics = judged(tmp_path, {"sql": BETTER, "safety": EVEN, "korean": BETTER})
    assert verdict["promoted"] and (metrics["promoted"], metrics["failed"], metrics["guards.held"]) == (1, 0, 2)
    assert verdict["verdict"].startswith("sql: dpo is 4.0 points above sft [2.0, 6.0] on 400 items; ")
    assert {r["rule"] for r in rules} == {"better", "guard", "ungraded"}
    held = {(r["rule"], r["suite"], r["model"]): r["held"] for r in rules}
    assert all(held.values()) and held["ungraded", "sql", "sft"] and len(held) == 1 + 2 + 6
    assert {r["suite"]: r["limit"] for r in rules if r["rule"] == "guard"} == {"safety": 0.02, "korean": 0.02}


FINE = {"sql": BETTER, "safety": EVEN, "korean": EVEN}


@pytest.mark.parametrize(
    ("suites", "ungraded", "settings", "reason"),
    [
        (FINE | {"sql": EVEN}, {}, {}, "sql: dpo is not shown to differ from sft: 0.0 points [-1.0, 1.0] on 400 items"),
        (FINE | {"sql": FEW}, {}, {}, "sql: dpo differs from sft by +1.0 points [0.2, 2.0] on 400 items, but only in 4"),
        (FINE | {"sql": FELL}, {}, {}, "sql: dpo fell by 7.6 points against sft [-9.5, -5.7]"),
        (FINE | {"safety": FELL}, {}, {}, "safety: dpo fell by 7.6 points against sft [-9.5, -5.7] on 400 items, and a "
         "fall of 2.0 is allowed"),
        (FINE | {"safety": FELL | {"verdict": "too few to tell", "differ": 5}}, {}, {}, "safety: dpo differs"),
        (FINE | {"safety": {}}, {}, {}, "safety: nothing is graded for both dpo and sft"),
        ({"sql": BETTER, "safety": EVEN}, {}, {}, "korean: nothing is graded for both"),
        (FINE, {"sql": 6}, {}, "sql: 6.0 % of the answers of dpo are ungraded, more than 5.0 %"),
        (FINE, {"korean": 6}, {}, "korean: 6.0 % of the answers of dpo are ungraded"),
        (FINE, {}, {"suites": ("sql", "math")}, "math: nothing is graded for both"),
        (FINE, {}, {"mode": "greedy"}, "every suite has a guard"),
    ],
)  # fmt: skip
def test_each_rule_broken_alone_says_so_first(tmp_path, suites, ungraded, settings, reason):
    if settings.get("mode") == "greedy":  # planted are comparisons of samples
        suites = {name: found for name, found in suites.items() if name != "sql"}
    rules, verdict, metrics = judged(tmp_path, suites, ungraded, **settings)
    broken = {(r["rule"], r["suite"]) for r in rules if r["held"] is False}
    assert not verdict["promoted"] and not metrics["promoted"]
    if settings.get("mode") != "greedy":
        assert len(broken) == metrics["failed"] == 1
    assert verdict["reasons"][0].startswith(reason)


def test_what_is_within_its_limit_does_not_break(tmp_path):
    small = {"diff": -0.01, "diff_low": -0.018, "diff_high": -0.002, "verdict": "worse"}
    wide = {"diff": -0.01, "diff_low": -0.05, "diff_high": 0.03, "verdict": "not shown"}
    rules, verdict, metrics = judged(tmp_path, {"sql": BETTER, "safety": small, "korean": wide}, {"sql": 5})
    assert verdict["promoted"] and (metrics["guards.held"], metrics["guards.open"]) == (1, 1)
    assert {r["suite"]: r["held"] for r in rules if r["rule"] == "guard"} == {"safety": True, "korean": None}
    assert any("safety: dpo fell by 1.0 points against sft [-1.8, -0.2]" in reason for reason in verdict["reasons"])
    assert any("korean" in reason and "does not show that a fall stays" in reason for reason in verdict["reasons"])


def test_a_suite_that_decides_nothing_is_named_where_it_fell(tmp_path):
    rules, verdict, _ = judged(tmp_path, FINE | {"math": FELL, "other": EVEN}, suites=("sql",))
    assert verdict["promoted"] and {r["suite"]: r["held"] for r in rules if r["rule"] == "watched"} == {
        "math": None, "other": None}  # fmt: skip
    assert [r for r in verdict["reasons"] if r.startswith("math: dpo fell by 7.6 points against sft [-9.5, -5.7]")]
    assert not [r for r in verdict["reasons"] if r.startswith("other")]


# Champions


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def artifact(store: Store, stage: str, **files: str) -> str:
    with store.draft(stage) as out:
        for name, text in files.items():
            (out / name.replace("_", ".")).write_text(text)
        return store.publish(stage, out).id


def ran(
    store: Store, recipe: Recipe, weights: str, promoted: bool = True, status: str = "ran",
    more: dict[str, str] | None = None,
) -> Any:  # fmt: skip
    """A finished run of a recipe whose dpo made `weights`, and what comes of its verdict; nobody approves."""
    found = {"promoted": promoted, "model": "dpo", "verdict": f"because of {weights}", "reasons": ["because"]}
    made = {
        "sft": artifact(store, "sft", weights_txt="sft"),
        "dpo": artifact(store, "dpo", weights_txt=weights),
        "promote": artifact(store, "promote", promotion_json=json.dumps(found)),
        **(more or {}),
    }
    run = Run(store, recipe.name, recipe.model_dump(mode="json"))
    chose = {"newest": {"policy": "dpo"}}
    stages = [StageRun(name, "k", id_, status, 0.0, "", chose.get(name, {})) for name, id_ in made.items()]
    for stage in stages:
        run.stage(stage)
    run.finish("done")
    return settle(store, recipe, run.id, stages, lambda _: None)


def recipe(store: Store, against: str = "sft", *more: str) -> Recipe:
    return crowned(store, load(TINY, [f"promote.against={against}", *more]))


def champion(store: Store) -> champions.Champion:
    found = champions.current(store, "tiny")
    assert found is not None
    return found


def kept(store: Store) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (store.root / "champions").rglob("*.json")}


def test_a_run_that_is_not_promoted_changes_nothing(store):
    first = ran(store, recipe(store), "one")
    assert first.status == "promoted" and "because of one" in first.text
    before = kept(store)
    assert ran(store, recipe(store), "two", promoted=False).status == "not promoted"
    assert ran(store, recipe(store), "one", status="cached").status == "unchanged"
    with promotion.without():
        assert ran(store, recipe(store), "three") is None
    assert kept(store) == before and len(before) == 1
    second = ran(store, recipe(store), "two")
    assert second.status == "promoted" and len(kept(store)) == 2
    again = ran(store, recipe(store), "one", status="cached")  # carried out before, and succeeded since
    assert again.status == "unchanged" and "align promote" in again.text and len(kept(store)) == 2


def test_a_decision_that_a_kill_kept_from_being_carried_out_is_by_the_next_run(store):
    with promotion.without():
        ran(store, recipe(store), "one")
    assert ran(store, recipe(store), "one", status="cached").status == "promoted"


def test_a_decision_against_a_champion_that_changed_is_not_carried_out(store):
    early = recipe(store, "champion")
    assert early.champion is None
    assert ran(store, recipe(store), "one").status == "promoted"
    late = ran(store, early, "two")
    assert late.status == "not promoted" and "changed meanwhile" in late.text and len(kept(store)) == 1
    now = recipe(store, "champion")
    assert now.champion is not None and now.champion.artifact == champion(store).artifact
    assert ran(store, now, "two").status == "promoted"
    assert ran(store, now, "three").status == "not promoted"


def test_the_champion_is_a_policy_of_the_dag_and_its_change_is_seen(store):
    first = recipe(store, "champion")
    assert "answer_champion" not in {p.stage for p in plan(store, first)}
    ran(store, first, "one")
    with pytest.raises(InputError, match="no stage is called 'answer_champio'; did you mean answer_champion"):
        plan(store, first, "answer_champio")
    planned = {p.stage: p for p in plan(store, first)}
    assert planned["answer_champion"].status == "waits" and "promote" in planned
    (store.root / "artifacts" / champion(store).artifact / "manifest.json").unlink()
    with pytest.raises(InputError, match="The champion of tiny, dpo-.* is not in .* any more"):
        plan(store, first)


def test_without_a_person_it_waits_and_the_verb_approves(store, capsys):
    asked = recipe(store, "sft", "promote.approve=true")
    waits = ran(store, asked, "one")
    assert waits.status == "waits" and not kept(store)
    run = waits.decision.run_id
    assert f"align promote {run}" in waits.text
    assert ran(store, asked, "bad", promoted=False).status == "not promoted"
    bad = runs.history(store)[-1]["run_id"]
    at = ["--store", str(store.root)]
    for words, said in (
        ([run], "add --yes"), ([bad, "--yes"], "because of bad"), ([bad, "--yes", "--force", " "], "wants a reason"),
        (["nope", "--yes"], "no such run"),
    ):  # fmt: skip
        with pytest.raises(SystemExit) as ended:
            main(["promote", *words, *at])
        assert ended.value.code == 2 and said in capsys.readouterr().err and not kept(store)
    main(["promote", run, "--yes", *at])
    assert capsys.readouterr().out.startswith(f"promoted: dpo of run {run} is the champion of tiny now: because of one")
    main(["promote", bad, "--yes", "--force", "the suite is wrong", *at])
    verdict = champion(store).verdict
    assert "because of bad" in verdict and verdict.endswith("promoted by hand: the suite is wrong")
    main(["runs", *at])
    main(["tag", *at])
    assert capsys.readouterr().out.count("champion:tiny") == 2
    main(["show", "champion", *at])
    assert json.loads(capsys.readouterr().out)["run_id"] == bad
    main(["sql", "SELECT number, run_id FROM champions", "--csv", *at])
    assert capsys.readouterr().out == f"number,run_id\n1,{run}\n2,{bad}\n"
    with pytest.raises(SystemExit):
        main(["tag", run, "champion", *at])


def test_gc_keeps_the_champion_and_verify_reads_it(store):
    ran(store, recipe(store), "one")
    run, crown = runs.history(store)[-1]["run_id"], champion(store)
    ran(store, recipe(store), "two", promoted=False)
    room.collect(store, keep_runs=0)
    assert [r["run_id"] for r in runs.history(store)] == [run] and store.artifact(crown.artifact)
    assert not [name for name, wrong in verify(store) if wrong]
    (path,) = (store.root / "champions").rglob("*.json")
    path.write_text(path.read_text().replace("because", "despite"))
    assert [wrong for name, wrong in verify(store) if name.startswith("champions/")] == ["is not what was written"]


def _crowns(root: Path, mine: str, rounds: int, barrier: Any, won: Any) -> None:
    store = Store(root)
    for number in range(rounds):
        barrier.wait(60)
        made = champions.crown(store, "r", number, run_id=mine, model="dpo", artifact=mine, base={}, verdict="",
                               decision=None)  # fmt: skip
        won[number] += made is not None


def test_two_processes_at_once_make_one_champion(store):
    spawn, rounds = multiprocessing.get_context("spawn"), 15
    barrier, won = spawn.Barrier(2), [spawn.Array("i", rounds) for _ in range(2)]
    both = [
        spawn.Process(target=_crowns, args=(store.root, n, rounds, barrier, w)) for n, w in zip("ab", won, strict=True)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [p.exitcode for p in both] == [0, 0]
    assert [a + b for a, b in zip(*won, strict=True)] == [1] * rounds
    assert [c.number for c in champions.history(store, "r")] == list(range(1, rounds + 1))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["promote.against=stf"], "did you mean sft"),
        (["promote.against=dpo"], "the model that is to be promoted"),
        (["promote.against=sft", "promote.suites=[question]"], "did you mean questions"),
        (["promote.against=sft", "evaluate.suites.questions.guard=0.02"], "every suite has a guard"),
        (["evaluate.suites.questions.guard=0.02"], "has no effect where promote.against is none"),
        (["promote.approve=true"], "promote.approve: has no effect where against is none"),
        (["promote.against=sft", "promote.mode=sampled", "evaluate.n=0", "evaluate.primary=greedy"], "evaluate.n is 0"),
    ],
)
def test_settings_that_decide_nothing_are_errors_beforehand(store, settings, said):
    with pytest.raises(InputError, match=said):
        plan(store, load(TINY, settings))
