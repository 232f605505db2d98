"""`align compare`: what was planted between two runs is found, to the number, and what cannot be read is said."""

import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest
from artifacts import HOSTILE
from compared import HERE, Made, N, before, grader, make, run_of

from align import tables
from align.comparison import data, graded, words
from align.comparison.found import Setting
from align.comparison.settings import settings
from align.errors import InputError
from align.paired import paired_difference
from flows.cli import main
from flows.compare import Compared, compare, two
from flows.recipe import load
from storage.store import Store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A store with the two runs; the earlier is tagged."""
    return make(tmp_path_factory.mktemp("compared"))


@pytest.fixture
def copy(made: Made, tmp_path: Path) -> Made:
    """The same in a store that a test may harm."""
    shutil.copytree(made[0].root, tmp_path / "store")
    return Store(tmp_path / "store"), *made[1:]


def told(made: Made, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    main(["compare", "baseline", made[2], "--json", "--store", str(made[0].root), *words])
    return json.loads(capsys.readouterr().out)


def test_settings_and_stages(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(made, capsys)
    assert (found["before"]["run_id"], found["before"]["name"], found["after"]["run_id"]) == (
        made[1], "baseline", made[2],
    )  # fmt: skip
    assert found["before"]["final"] == found["after"]["final"] == "dpo"
    changed = {s["key"]: (s["before"], s["after"], s["only"]) for s in found["settings"]}
    assert changed["dpo.beta"][1:] == (0.37, None)
    assert "***@example.org" in changed.pop("description")[0] and "swordfish1" not in json.dumps(found)
    rules = [key for key in changed if key.startswith("filter.rules.")]
    assert rules and all(changed[key][2] == "before" for key in rules)
    assert set(changed) == {"dpo.beta", *rules}
    stages = {s["stage"]: s for s in found["stages"]}
    assert list(stages) == list(HERE)
    kinds = {name: s["kind"] for name, s in stages.items()}
    assert kinds == {name: "equal" if name in ("sft", "sample") else "different" for name in HERE}
    assert stages["sft"]["settings"] == ['label "as it was" → "as it is"'] and not stages["sft"]["code"]
    assert stages["sample"]["settings"] == [] and stages["sample"]["inputs"] == [
        f"rows changed ({stages['ingest']['after']})"
    ]
    assert stages["sft"]["before"] == stages["sft"]["after"] and stages["pairs"]["before"] != stages["pairs"]["after"]


def test_rows(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    rows = told(made, capsys)["rows"]
    groups = {(g.pop("use"), g.pop("split")): {k: v for k, v in g.items() if v} for g in rows["groups"]}
    assert groups == {
        ("evaluation", "evaluation"): {"before": N, "after": N - 4, "same": N - 4, "removed": 4},
        ("instructions", "sft"): {
            "before": 2 * N, "after": 2 * N, "same": 2 * N - 4, "added": 3, "removed": 2, "changed": 1, "moved_out": 1,
        },
        ("instructions", "rejection"): {"after": 1, "moved_in": 1},
        ("prompts", "preference"): {"before": N, "after": N, "same": N},
        ("prompts", "rejection"): {"before": N, "after": N, "same": N},
    }  # fmt: skip
    kinds = [e["kind"] for e in rows["examples"]]
    assert {k: kinds.count(k) for k in kinds} == {"added": 3, "changed": 1, "moved": 1, "removed": 5}
    changed = next(e for e in rows["examples"] if e["kind"] == "changed")
    assert changed["after"]["row_id"] == "changed0" and changed["before"]["response"] == "SELECT 5"
    assert changed["before"]["prompt"] == changed["after"]["prompt"]
    moved = next(e for e in rows["examples"] if e["kind"] == "moved")
    assert (moved["split_before"], moved["split_after"]) == ("sft", "rejection")
    assert [e["after"]["row_id"] for e in rows["examples"] if e["kind"] == "added"] == ["new0", "new1", "new2"]


def test_verdicts(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(made, capsys)["verdicts"]
    assert found["shared"] == 2 * N and found["kept_after"] == found["kept_before"] - 1
    counts = {(c["before"], c["after"]): c["rows"] for c in found["changes"]}
    assert counts.pop((None, "refusal")) == 2 and sum(counts.values()) == 2
    assert {after for _, after in counts} == {None, "refusal"}
    first = found["examples"][0]
    assert (first["before"], first["after"]) == (None, "refusal") and HOSTILE in json.loads(first["evidence"])["said"]


def test_pairs(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = told(made, capsys, "--limit", "1")["pairs"]
    examples = {e["kind"]: e for e in found.pop("examples")}
    counts = {"same": N - 6, "flipped": 1, "replaced": 2, "added": 1, "removed": 3}
    assert found == {"stage": "pairs", "before": N, "after": N - 2, **counts}
    assert set(examples) == set(counts) - {"same"}
    was, now = examples["flipped"]["before"], examples["flipped"]["after"]
    assert (was["chosen"], was["rejected"]) == (now["rejected"], now["chosen"]) == ("SELECT 1" * 2, "SELECT 1 + 1")
    assert examples["replaced"]["after"]["chosen"] == HOSTILE and examples["added"]["before"] is None


def test_an_imported_preference_that_was_relabelled_is_flipped_though_its_row_is_another(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    pair = {"pair_id": "a", "messages": turns, "labelled_by": "imported", "held_out": False}
    one = pair | {"row_id": "r1", "chosen": "x", "rejected": "y"}
    other = pair | {"row_id": "r2", "chosen": "y", "rejected": "x"}
    elsewhere = one | {"messages": [*turns[:1], {"role": "user", "content": "q2"}]}
    for name, rows in (("one", [one, one]), ("two", [other, elsewhere])):
        tables.write(tmp_path / f"{name}.parquet", rows, tables.PAIRS)
    found = data.pairs("pairs", tmp_path / "one.parquet", tmp_path / "two.parquet", 9)
    assert (found.before, found.after, found.flipped, found.added, found.same) == (1, 2, 1, 1, 0)
    assert next(e["prompt"] for e in found.examples if e["kind"] == "flipped") == "s\n\nq"


def test_scores_are_paired_over_the_items_that_both_graded(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    found = {(d["after"], d["mode"]): d for d in told(made, capsys)["differences"]}
    assert len(found) == 12 and all(d["before"] == d["after"] for d in found.values())
    d = found["dpo", "greedy"]
    assert (d["shared"], d["before_only"], d["after_only"], d["n"], d["differ"]) == (N - 4, 4, 0, N - 5, 14)
    assert d["diff"] == pytest.approx(10 / (N - 5)) and d["verdict"] == "better" and d["grader"] is None
    scores = []
    for run in made[1:]:
        path = Compared(made[0], {"run_id": run}, run).file("evaluate", "evaluations.parquet", [])
        rows = tables.read(path, mode="greedy", model="dpo")
        scores.append({a["row_id"]: a["score"] for a in rows if a["score"] is not None})
    expected = paired_difference(scores[1], scores[0])
    assert (d["low"], d["high"], d["p_exact"]) == (expected.low, expected.high, expected.p)
    assert d["mean_after"] - d["mean_before"] == pytest.approx(d["diff"])
    same = found["sft", "sampled"]
    assert (same["diff"], same["differ"], same["verdict"]) == (0, 0, "too few to tell") and same["low"] == -same[
        "high"
    ] < 0


def test_comparing_the_other_way_round_mirrors_it(made: Made) -> None:
    store, first, second = made
    there, back = (compare(*two(store, a, b), 3) for a, b in ((first, second), (second, first)))
    for d, e in zip(there.differences, back.differences, strict=True):
        assert (d.diff, d.low, d.high) == (-(e.diff or 0), -(e.high or 0), -(e.low or 0))
        assert d.before_only == e.after_only and {d.verdict, e.verdict} in ({"better", "worse"}, {d.verdict})
    assert [(a.gained, a.lost) for a in there.answers] == [(a.lost, a.gained) for a in back.answers]
    assert there.pairs[0].flipped == back.pairs[0].flipped and there.pairs[0].added == back.pairs[0].removed
    assert there.rows and back.rows and there.rows.differ == back.rows.differ


def test_answers(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    found = {a["after"]: a for a in told(made, capsys, "--limit", "4")["answers"]}
    a = found["dpo"]
    assert (a["shared"], a["gained"], a["lost"], a["not_graded"]) == (N - 4, 12, 2, 1)
    assert a["right_in_both"] + a["wrong_in_both"] == N - 4 - 15 and a["other_text"] == 14 and a["regraded"] == 1
    assert [e["kind"] for e in a["examples"]] == ["gained"] * 4 + ["lost"] * 2
    assert [e["row_id"] for e in a["examples"][:4]] == sorted(e["row_id"] for e in a["examples"][:4])
    gained = a["examples"][0]
    assert gained["after"]["response"].startswith("right now") and gained["before"]["status"] == "wrong"
    assert gained["prompt"].startswith("questions question") and gained["reference"].startswith("SELECT ")
    assert (found["sft"]["gained"], found["sft"]["other_text"], found["sft"]["examples"]) == (0, 0, [])


def test_policies_that_runs_end_with_are_compared_though_their_names_differ(made: Made) -> None:
    path = Compared(made[0], {"run_id": made[1]}, "").file("evaluate", "evaluations.parquet", [])
    for finals, n in ((("sft", "dpo"), 7), (("dpo", "dpo"), 6), (("grpo", "dpo"), 6), ((None, "dpo"), 6)):
        differences, answers = graded.graded(path, path, [], finals, {}, 2)
        assert len(answers) == n and len(differences) == 2 * n
    differences, answers = graded.graded(path, path, [], ("sft", "dpo"), {}, 2)
    assert (answers[-1].before, answers[-1].after) == ("sft", "dpo") and answers[-1].gained + answers[-1].lost > 0
    assert all(e["prompt"] is None for e in answers[-1].examples)


def test_scores_of_several_seeds_are_their_means_and_what_seeds_differ_by_is_in_the_interval(tmp_path: Path) -> None:
    """The first seed of the later run is better, as its others are not."""
    right = {"before": {"dpo": 40, "dpo_s2": 42, "dpo_s3": 38}, "after": {"dpo": 70, "dpo_s2": 42, "dpo_s3": 39}}
    for side, models in right.items():
        rows = [
            {"suite": "quiz", "row_id": f"r{i:03}", "model": model, "mode": "greedy", "turn": 1, "sample_index": 0,
             "response": "x", "score": float(i < n), "status": "correct" if i < n else "wrong"}
            for model, n in models.items() for i in range(100)
        ]  # fmt: skip
        tables.write(tmp_path / side, rows, tables.EVALUATIONS)

    def found(*seeds: dict[str, list[str]]) -> Any:
        both = (seeds[0], seeds[-1])
        return graded.graded(tmp_path / "before", tmp_path / "after", [], ("dpo", "dpo"), {}, 2, both)[0]

    alone, *_ = each = found({})
    assert [d.after for d in each] == ["dpo", "dpo_s2", "dpo_s3"] and (alone.verdict, alone.seeds) == ("better", 1)
    (d,) = found({"dpo": ["dpo_s2", "dpo_s3"]})
    assert (d.seeds, d.verdict, d.n, d.shared) == (3, "not shown", 100, 100) and d.low < 0 < d.diff < d.high
    assert (d.mean_before, d.mean_after, d.diff) == (
        pytest.approx(0.4),
        pytest.approx(151 / 300),
        pytest.approx(31 / 300),
    )
    assert d.seed_sd == pytest.approx(statistics.stdev([0.7, 0.42, 0.39])) and words.over_seeds(d) == ", over 3 seeds"
    (one,) = found({}, {"dpo": ["dpo_s2", "dpo_s3"]})
    assert (one.seeds, one.verdict, one.before, one.after) == (3, "not shown", "dpo", "dpo")
    (fewer,) = found({"dpo": ["dpo_s2"]}, {"dpo": ["dpo_s2", "dpo_s3"]})
    assert fewer.mean_before == pytest.approx(0.41) and fewer.seeds == 3


def test_a_run_knows_the_seeds_of_what_it_ends_with(made: Made) -> None:
    recorded = Compared(made[0], {"run_id": made[1], "recipe": "r", "status": "done", "started_at": ""}, "")
    assert recorded.side.final == "dpo" and recorded.seeds(recorded.side) == {}
    recorded.source = load(overrides=["chain.seeds=3"]).model_dump(mode="json")
    assert recorded.seeds(recorded.side) == {"dpo": ["dpo_s2", "dpo_s3"]}


def test_of_several_turns_the_first_is_shown_and_all_count(tmp_path: Path) -> None:
    for side, scores in (("before", (0.0, 1.0)), ("after", (1.0, 1.0))):
        rows = [
            {"suite": "chat", "row_id": f"r{i}", "model": "sft", "mode": "greedy", "turn": turn, "sample_index": 0,
             "response": f"{side} {turn}", "score": score, "status": "correct" if score else "wrong"}
            for i in range(8) for turn, score in enumerate(scores, 1)
        ]  # fmt: skip
        tables.write(tmp_path / side, rows, tables.EVALUATIONS)
    (difference,), (answers,) = graded.graded(tmp_path / "before", tmp_path / "after", [], (None, None), {}, 2)
    assert (difference.n, difference.mean_before, difference.mean_after) == (8, 0.5, 1.0)
    assert (answers.gained, answers.shared) == (8, 8)
    assert [e["after"]["response"] for e in answers.examples] == ["after 1"] * 2


def test_other_graders_are_said_and_give_no_verdict(copy: Made, tmp_path: Path, capsys: Any) -> None:
    store, first, _ = copy
    at, recipe, _ = before(tmp_path / "again")
    third = run_of(store, at, recipe, {"evaluate": grader("exact")})
    found = compare(*two(store, first, third), 2)
    assert {d.verdict for d in found.differences} == {"not measured"}
    assert {d.grader for d in found.differences} == {'grader.kind "number" → "exact"; grader.tolerance 1e-06 → null'}
    main(["compare", first, third, "--store", str(store.root)])
    printed = capsys.readouterr().out
    assert "questions is graded by different graders" in printed and "of different measures" in printed


def test_what_is_missing_or_damaged_is_said_and_the_rest_is_shown(copy: Made, capsys: Any) -> None:
    store, first, second = copy
    now = Compared(store, {"run_id": second}, second)
    now.file("pairs", "pairs.parquet", []).write_bytes(b"PAR1 and no more")
    shutil.rmtree(store.root / "artifacts" / now.stages["evaluate"]["artifact"])
    shutil.rmtree(store.root / "attempts" / now.stages["sft"]["key"])
    found = told(copy, capsys)
    notes = {note["part"]: note["text"] for note in found["notes"]}
    assert set(notes) == {"pairs", "scores"} and found["differences"] == found["pairs"] == []
    assert "pairs.parquet is not what was written; `align run`" in notes["pairs"]
    assert f"of run {second} was removed" in notes["scores"]
    assert found["rows"] and found["verdicts"] and found["settings"]
    assert "damaged" in next(s["note"] for s in found["stages"] if s["stage"] == "sft")
    main(["compare", first, second, "--store", str(store.root)])
    printed = capsys.readouterr().out
    assert "! pairs: " in printed and "nothing is said about quality" in printed and "changed0" in printed


def test_runs_without_an_evaluation_still_show_settings_and_data(copy: Made, tmp_path: Path) -> None:
    store, first, _ = copy
    at, recipe, _ = before(tmp_path / "again")
    third = run_of(store, at, recipe | {"name": "other"}, {}, ("ingest",))
    found = compare(*two(store, third, first), 2)
    assert found.settings == [Setting("name", "other", recipe["name"])] and found.rows and not found.rows.differ
    assert [s.kind for s in found.stages] == ["same"] + ["after only"] * 5 and not found.differences
    assert [note.text for note in found.notes] == [
        f"Run {third} has not finished {stage}." for stage in ("filter", "pairs", "evaluate")
    ]


def test_a_table_of_another_version_is_said(made: Made) -> None:
    with pytest.raises(InputError, match="instructions.parquet is of another version: it has no column nonsense"):
        Compared(made[0], {"run_id": made[1]}, "").file("filter", "instructions.parquet", ["nonsense"])


def test_one_run_is_compared_with_the_latest_other_the_older_first(made: Made) -> None:
    store, first, second = made
    assert [r.id for r in two(store, "baseline", None)] == [r.id for r in two(store, second, None)] == [first, second]
    assert [r.id for r in two(store, second, first)] == [second, first]


def test_settings_of_lists_and_missing_keys() -> None:
    old = {"a": [1, {"b": 2}], "rules": [{"rule": "x"}, {"rule": "y"}], "gone": 1, "same": None, "n": 1, "t": True}
    new = {"a": [1, {"b": 3}], "rules": [{"rule": "y"}], "same": None, "n": 1.0, "t": False, "new": None}
    assert settings(old, new) == [
        Setting("a.1.b", 2, 3), Setting("rules.0", {"rule": "x"}, None, "before"), Setting("t", True, False),
        Setting("new", None, None, "after"), Setting("gone", 1, None, "before"),
    ]  # fmt: skip
