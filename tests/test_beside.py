"""Points of a sweep side by side: on two devices two runs go on at once, and what they share is computed once."""

import json
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from served import ALIGN, PATIENCE, TINY, alive, descendants, own_environment, wait_for

from align.errors import InputError
from flows import beside
from flows.recipe import load
from storage import champions, runs
from storage.store import Store

# Either point grades only once the other has begun to: one after another they would not end.
GRADER = """
import os, pathlib, time

def meet(name):
    here = pathlib.Path(__file__).parent
    (here / name).touch()
    deadline = time.monotonic() + 200
    while not all((here / other).exists() for other in ("one", "two")):
        assert time.monotonic() < deadline, "the other point does not come"
        time.sleep(0.05)

def one(prompt, response, reference, meta):
    meet("one")
    return 1.0

def two(prompt, response, reference, meta):
    meet("two")
    return "1" in response
"""


def test_points_go_on_side_by_side_and_share_what_is_equal(tmp_path: Path) -> None:
    (tmp_path / "grader.py").write_text(GRADER)
    suite = f"grader: {{kind: python, file: {tmp_path / 'grader.py'}, function: %s}}, limit: 4"
    fixed = [
        "controls.random_of_n=false", "sample.limit=6", "resample.limit=6", "select.grader={kind: none}",
        "sample.max_new_tokens=12", "resample.max_new_tokens=12", "evaluate.max_new_tokens=12", "evaluate.n=0",
        "evaluate.primary=greedy", "promote.against=sft", "filter.rules=[{rule: empty}]",
        f"evaluate.suites.questions={{{suite % 'one'}}}",
        "ingest.sources.instructions.limit=40",
    ]  # fmt: skip
    axis = "evaluate.suites.questions.grader.function=one,two"
    words = ["sweep", str(TINY), *(w for o in [*fixed, axis] for w in ("--set", o)), "--store", str(tmp_path / "store")]
    done = subprocess.run([*ALIGN, *words, "--json"], capture_output=True, text=True, timeout=PATIENCE,
                          env=own_environment(CUDA_VISIBLE_DEVICES="0,1"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    store, found = Store(tmp_path / "store"), json.loads(done.stdout)
    assert [p["settings"] for p in found["points"] if p["first"]] == [["evaluate.suites.questions.grader.function=one"]]
    assert all(p["results"]["questions"]["n"] == 4 for p in found["points"])
    lines = done.stderr.splitlines()
    assert any(line.startswith("1 of 2 on ") for line in lines) and any(line.startswith("2 of 2 on ") for line in lines)
    assert {line.split(": ")[0].split(" on ")[1] for line in lines if " on " in line[:12]} == {"0", "1"}
    assert all(line.startswith(("1 of 2", "2 of 2")) for line in lines if "evaluate " in line)
    stages = [s for p in found["points"] for s in runs.stages(store, p["run_id"])]
    ran = Counter(s["stage"] for s in stages if s["status"] == "ran")
    assert {name for name, n in ran.items() if n > 1} <= {"evaluate", "promote", "report"}
    assert ran["sft"] == ran["dpo"] == 1 and champions.current(store, "tiny") is None


def test_a_point_that_fails_leaves_the_others(tmp_path: Path) -> None:
    """Here what no run can begin with, one way and another."""
    points = [beside.Point((f"ingest.sources.instructions.path={name}",)) for name in ("nowhere.jsonl", "'[never'")]
    beside.run_all(points, ["1", "2"], str(TINY), [], Store(tmp_path / "store"), [("0",), ("1",)])
    assert "nowhere.jsonl" in points[0].error and points[1].error and not points[0].run_id


def test_an_interruption_ends_every_point(tmp_path: Path) -> None:
    words = ["sweep", str(TINY), "--set", "dpo.beta=0.1,0.2,0.3", "--store", str(tmp_path / "store")]
    process = subprocess.Popen([*ALIGN, *words], stderr=subprocess.PIPE, text=True,
                               env=own_environment(CUDA_VISIBLE_DEVICES="0,1"))  # fmt: skip

    def going() -> list[int]:
        """The processes of both points, once one of their stages runs."""
        found = [pid for pid in descendants(process.pid) if alive(pid)]
        return found if len(found) > 3 and len(runs.history(Store(tmp_path / "store"))) == 2 else []

    there = wait_for(going)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and "interrupted; the same command resumes" in said and "3 of 3" not in said, said
    wait_for(lambda: not any(alive(pid) for pid in there))
    assert {run["status"] for run in runs.history(Store(tmp_path / "store"))} == {"interrupted"}


@pytest.mark.parametrize(
    ("there", "overrides", "expected"),
    [
        ((), [], [()]),
        (("0",), [], [("0",)]),
        (("0", "1", "2"), [], [("0",), ("1",), ("2",)]),
        (("0", "1", "2"), ["compute.processes=2"], [("0", "1")]),
        (("0", "1", "2", "3"), ["compute.processes=2"], [("0", "1"), ("2", "3")]),
        (("0", "1"), ["compute.strategy=fsdp", "base.quantization=none"], [("0", "1")]),
        (("0", "1"), ["compute.processes=4"], [("0", "1")]),
    ],
)
def test_each_point_has_the_devices_that_its_stages_share(
    there: tuple[str, ...], overrides: list[str], expected: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "devices", lambda: there)
    recipe = load(str(TINY), overrides)
    assert beside.places(recipe) == expected and beside.places(recipe, 1) == expected[:1]
    with pytest.raises(InputError, match=r"--at-once \d: each point has .* to itself, and this machine has \d device"):
        beside.places(recipe, 3 if len(expected) < 3 else 4)
    assert beside.places(load(str(TINY), [*overrides, "compute.pool=gpus"]), 3) == [(), (), ()]
