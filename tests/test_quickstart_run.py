"""The quickstart as a user runs it: the bars that it promises, measured by its own report."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from served import own_environment

from align.text import normalise
from storage.store import Store
from storage.views import connect

ALIGN = [sys.executable, "-m", "flows.cli"]


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory) -> Store:
    """A store with one cold run of the quickstart; `$ALIGN_TEST_STORE` names a directory to keep it in."""
    root = Path(os.environ.get("ALIGN_TEST_STORE") or tmp_path_factory.mktemp("quickstart"))
    command = [*ALIGN, "run", "--store", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, env=own_environment())
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    return Store(root)


def value(store: Store, query: str):
    found = connect(store).execute(query).fetchone()
    assert found is not None, query
    return found[0]


def accuracy(store: Store, model: str, mode: str) -> float:
    return value(store, f"SELECT mean FROM comparisons WHERE against IS NULL AND model = '{model}' AND mode = '{mode}'")


def difference(store: Store, model: str, against: str, mode: str) -> tuple[float, float, float]:
    found = connect(store).execute(
        "SELECT diff, diff_low, diff_high FROM comparisons WHERE model = ? AND against = ? AND mode = ?",
        [model, against, mode],
    ).fetchone()  # fmt: skip
    assert found is not None
    return found


def test_held_out_questions(quickstart):
    assert value(quickstart, "SELECT count(DISTINCT row_id) FROM evaluations") >= 300


def test_splits_are_disjoint(quickstart):
    rows = connect(quickstart).execute("SELECT prompt, split FROM rows WHERE use = 'prompts'").fetchall()
    trained = connect(quickstart).execute("SELECT prompt, 'sft' FROM instructions WHERE kept").fetchall()
    splits: dict[str, set[str]] = {}
    for prompt, split in rows + trained:
        splits.setdefault(normalise(prompt), set()).add(split)
    assert {split for found in splits.values() for split in found} == {"sft", "preference", "rejection", "evaluation"}
    assert not [prompt for prompt, found in splits.items() if len(found) > 1]


def test_no_query_is_asked_in_two_splits(quickstart):
    """Wordings of one question in two languages stay together: the reward model has not seen what it selects among."""
    shared = value(
        quickstart,
        "SELECT count(*) FROM (SELECT reference FROM rows WHERE use = 'prompts' GROUP BY reference "
        "HAVING count(DISTINCT split) > 1)",
    )
    assert shared == 0


def test_the_base_does_not_answer_usably(quickstart):
    assert accuracy(quickstart, "base", "greedy") <= 0.10
    assert accuracy(quickstart, "base", "sampled") <= 0.10


def test_sft_answers(quickstart):
    assert accuracy(quickstart, "sft", "greedy") >= 0.45


def test_rejection_sampling_does_not_fall_below_sft(quickstart):
    assert accuracy(quickstart, "sft_rs", "sampled") >= accuracy(quickstart, "sft", "sampled")


def test_the_final_model_beats_sft_in_the_primary_metric(quickstart):
    primary = value(quickstart, "SELECT text FROM metrics WHERE stage = 'evaluate' AND name = 'primary'")
    other = {"sampled": "greedy", "greedy": "sampled"}[primary]
    diff, low, _ = difference(quickstart, "dpo", "sft", primary)
    assert diff > 0 and low > 0
    assert difference(quickstart, "dpo", "sft", other)[0] >= 0


def test_the_control_arm_stands_in_the_table(quickstart):
    assert accuracy(quickstart, "sft_random", "sampled") > 0


def test_the_reward_model_is_right_on_held_out_pairs_and_not_by_length(quickstart):
    con = connect(quickstart)
    facts = dict(con.execute("SELECT name, value FROM metrics WHERE stage = 'reward'").fetchall())
    assert facts["accuracy.held_out"] >= 0.75
    assert facts["accuracy.held_out"] > facts["accuracy.length_baseline"]


def test_cold_run_stays_in_memory(quickstart):
    """Peak resident memory of the largest child of this process, which is the cold run (or a larger one)."""
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6 <= 3.0


def test_the_result_table_is_printed(quickstart):
    done = subprocess.run([*ALIGN, "run", "--store", str(quickstart.root), "--json"], capture_output=True, text=True)
    assert {s["status"] for s in json.loads(done.stdout)["stages"]} == {"cached"}
