"""Several seeds of the last policy: their stages, what their spread does to intervals and verdicts, and what is said."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align import tables
from align.grading.graders import ExactGrader
from align.paired import paired_difference
from align.report.evidence import load as evidence_of
from align.report.findings import compare
from align.seeds import mean_of_seeds, seeded_difference, spread
from align.stats import mean_interval
from benchmarks import coverage
from flows.check import problems
from flows.graph import parents
from flows.plan import plan
from flows.points import Point
from flows.recipe import load
from flows.stages import final, outline
from flows.sweep import compare as swept
from flows.sweep import scores_of
from storage.store import Store
from tasks.evaluate import EvaluateConfig, Seeds, SuiteConfig, evaluate

TINY = Path(__file__).with_name("tiny.yaml")


def scores(*rights: int, n: int = 100) -> list[dict[str, float]]:
    """The items' scores of seeds, of which so many are right."""
    return [{f"{i:03}": float(i < right) for i in range(n)} for right in rights]


def test_the_last_policy_has_a_stage_for_each_seed_and_the_rest_is_as_it_was() -> None:
    one, three = parents(load(TINY)), parents(load(TINY, ["chain.seeds=3"]))
    more = {f"{answer}dpo_s{k}" for answer in ("", "answer_") for k in (2, 3)}
    assert three.keys() - one.keys() == more and not one.keys() - three.keys()
    assert three["dpo_s2"] == three["dpo_s3"] == three["dpo"] == one["dpo"]
    assert {n: read for n, read in three.items() if n not in {*more, "evaluate", "report"}} == {
        n: read for n, read in one.items() if n not in ("evaluate", "report")}  # fmt: skip
    recipe = load(TINY, ["chain.seeds=3", "dpo.limit=8"])
    assert {"reference_s2", "reference_s3"} <= parents(recipe).keys() and "reference_s2" in parents(recipe)["dpo_s2"]
    assert final(recipe) == "dpo" and outline(recipe).policies[-1] == "dpo"
    assert outline(recipe).title("dpo_s2") == "DPO, seed 2"
    kto = parents(load(TINY, ["chain.seeds=2", "dpo.loss_type=kto"]))
    assert "dpo_s2" in kto and "reference" not in kto
    online = load("quickstart-grpo", ["chain.seeds=2", "chain.rounds=2"])
    assert "grpo_s2" in parents(online) and "dpo_s2" not in parents(online) and not list(problems(online))
    (said,) = problems(load(TINY, ["chain.seeds=2", "chain.rounds=2", "controls.random_of_n=false"]))
    assert said.startswith("chain.seeds: which policy several rounds end with")


def test_each_seed_is_planned_with_a_seed_of_its_own(tmp_path: Path) -> None:
    from flows.dag import Node, dag

    seen: dict[str, Any] = {}

    def walk(name: str, function: Any, config: Any, *gate: Node, **inputs: Any) -> Node:
        seen[name] = config
        return Node(name)

    dag(load(TINY, ["chain.seeds=3", "dpo.seed=7"]), walk)
    assert [seen[name].seed for name in ("dpo", "dpo_s2", "dpo_s3")] == [7, 8, 9]
    assert seen["dpo"].model_copy(update={"seed": 9}) == seen["dpo_s3"]
    planned = plan(Store(tmp_path / "store"), load(TINY, ["chain.seeds=3"]))
    assert {"dpo_s3", "answer_dpo_s3"} <= {p.stage for p in planned}


def test_one_seed_is_what_it_was_and_equal_seeds_add_nothing() -> None:
    a, b = scores(60), scores(40)
    assert seeded_difference(a, b) == paired_difference(a[0], b[0]) and spread(a) is None
    assert mean_of_seeds(a) == mean_interval(list(a[0].values()))
    same = seeded_difference(a * 3, b)
    assert same == paired_difference(a[0], b[0])._replace(seeds=3, seed_sd=0.0)
    again, alone = mean_of_seeds(a * 3), mean_of_seeds(a)
    assert (again.low, again.high) == pytest.approx((alone.low, alone.high), abs=0.002)
    back = seeded_difference(b, a * 3)
    assert (back.low, back.high, back.verdict) == pytest.approx((-same.high, -same.low, "worse"))


def test_what_seeds_differ_by_is_in_the_interval() -> None:
    b = scores(40)
    near, far = (seeded_difference(scores(*rights), b) for rights in ((59, 60, 61), (42, 60, 78)))
    assert near.value == pytest.approx(far.value) == pytest.approx(0.2)
    assert near.verdict == "better" and far.verdict == "not shown" and far.low < 0
    assert far.seed_sd == pytest.approx(0.18) and spread(scores(42, 60, 78)) == pytest.approx(0.18)
    assert mean_of_seeds(scores(42, 60, 78)).low < mean_of_seeds(scores(59, 60, 61)).low


def test_a_difference_within_the_spread_of_many_seeds_is_not_shown() -> None:
    rights = [*range(30, 62, 2)]  # sixteen seeds
    found = seeded_difference(scores(*rights, n=2000), scores(38, n=2000))
    assert found.low > 0 and abs(found.value) < (found.seed_sd or 0) and found.verdict == "not shown"


def test_intervals_hold_where_seeds_matter_and_one_seed_does_not_tell() -> None:
    held, called = coverage.of_seeds(250, 100, 3, 0.06)
    assert held >= 0.93 and called <= 0.06
    assert coverage.of_seeds(250, 400, 1, 0.06)[1] >= 0.2


def graded(folder: Path, seeds: Seeds | None) -> dict[str, Any]:
    """The evaluation of made-up answers, of which dpo, dpo_s2 and dpo_s3 have 60, 42 and 78 of 100 right."""
    rows = [{"row_id": f"q{i:03}", "source": "quiz", "use": "evaluation", "split": "evaluation", "reference": "yes",
             "prompt": f"question {i}", "messages": [{"role": "user", "content": f"question {i}"}], "meta": "{}"}
            for i in range(100)]  # fmt: skip
    tables.write(folder / "rows.parquet", rows, tables.ROWS)
    given = {}
    for model, right in {"base": 5, "sft": 40, "dpo": 60, "dpo_s2": 42, "dpo_s3": 78}.items():
        given[model] = folder / f"{model}.parquet"
        said = [{"suite": "quiz", "row_id": f"q{i:03}", "mode": "greedy", "sample_index": 0, "finish_reason": "stop",
                 "response": "yes" if i < right else "no", "n_tokens": 1} for i in range(100)]  # fmt: skip
        tables.write(given[model], said, tables.ANSWERS)
    config = EvaluateConfig(suites={"quiz": SuiteConfig(grader=ExactGrader())}, n=0)
    metrics = evaluate(config, folder, rows=folder / "rows.parquet", seeds=seeds, **given)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return metrics


def test_evaluation_report_and_sweep_speak_of_all_seeds(tmp_path: Path) -> None:
    metrics = graded(tmp_path, Seeds(of={"dpo": ("dpo_s2", "dpo_s3")}))
    assert metrics["accuracy.quiz.greedy.dpo"] == pytest.approx(0.6) and metrics["accuracy.quiz.greedy.dpo_s2"] == 0.42
    assert metrics["seed_sd.quiz.greedy.dpo"] == pytest.approx(0.18) and "seed_sd.quiz.greedy.sft" not in metrics
    rows = {(c["model"], c["against"]): c for c in tables.read(tmp_path / "comparisons.parquet")}
    found, own = rows["dpo", "sft"], rows["dpo", "dpo_s2"]
    assert (found["seeds"], found["verdict"]) == (3, "not shown") and found["diff_low"] < 0 < found["diff"]
    assert (own["seeds"], own["diff"]) == (1, pytest.approx(0.18)), "its own seeds are compared with the first"
    assert rows["dpo_s3", "sft"]["verdict"] == "better" and rows["dpo", None]["seeds"] == 3
    evidence = evidence_of(tmp_path, metrics, outline(load(TINY, ["chain.seeds=3"])))
    assert evidence.final == "dpo" and evidence.models == ["base", "sft", "dpo", "dpo_s2", "dpo_s3"]
    verdict, text = compare(evidence, "quiz", "dpo", "sft")
    assert verdict == "open" and "Over 3 seeds, whose means have a standard deviation of 18.0 points" in text
    read = scores_of(tmp_path, "greedy", ("dpo", "dpo_s2", "dpo_s3"))
    first, other = Point(("x=1",)), Point(("x=2",))
    named = [{f"{i:03}": v for i, v in enumerate(seed.values())} for seed in read["quiz"]]
    assert swept([first, other], [{"quiz": scores(40)}, {"quiz": named}], 2) == 0.95
    assert other.against["quiz"].seeds == 3 and other.against["quiz"].verdict == "not shown"


def test_without_seeds_each_is_a_policy_by_itself(tmp_path: Path) -> None:
    graded(tmp_path, None)
    rows = {(c["model"], c["against"]): c for c in tables.read(tmp_path / "comparisons.parquet")}
    assert rows["dpo", "sft"]["verdict"] == "better" and {c["seeds"] for c in rows.values()} == {1}


def test_the_best_of_a_sweep_over_nothing_is_seldom_called_better() -> None:
    assert coverage.swept(80, 5, 3, 60) <= 0.07
    ease = np.linspace(0.1, 0.5, 100)
    points = [Point((f"x={k}",)) for k in range(3)]
    found: list[Any] = [{s: [{str(i): float(p > cut) for i, p in enumerate(ease)}] for s in "ab"}
                        for cut in (0.4, 0.4, 0.2)]  # fmt: skip
    assert swept(points, found, 3) == pytest.approx(1 - 0.05 / 4)
    assert {s: d.verdict for s, d in points[2].against.items()} == {"a": "better", "b": "better"}
