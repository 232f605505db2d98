"""What a sweep is asked for, and what it says of its points. That it runs them is in test_chain.py."""

import pytest
from served import TINY

from align.errors import InputError
from align.paired import paired
from align.stats import mean_interval
from flows.sweep import Point, Sweep, as_rows, grid, sweep
from storage.store import Store


def test_values_are_split_at_commas_of_their_own():
    fixed, axes = grid(["dpo.beta=0.05, 1e-1", "sft.lora.r=8,16", "report.title='a, b'", "x=[1,2]", "y={a: 1, b: 2}"])
    assert fixed == ["report.title='a, b'", "x=[1,2]", "y={a: 1, b: 2}"]
    assert axes == [["dpo.beta=0.05", "dpo.beta=1e-1"], ["sft.lora.r=8", "sft.lora.r=16"]]
    assert grid(["x=[1,2],[3]"])[1] == [["x=[1,2]", "x=[3]"]]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["dpo.beta=0.1"], "needs a setting with several values"),
        ([], "needs a setting with several values"),
        (["dpo.beta=0.1,0.2,0.1"], "dpo.beta=0.1,0.2,0.1: 0.1 stands there twice"),
        ([f"a={','.join(map(str, range(40)))}", f"b={','.join(map(str, range(40)))}"], "1600 combinations"),
        (["dpo.beta=0.1,x"], "dpo.beta"),
        (["dpo.beta=0.1,"], "dpo.beta"),
        (["dpo.betta=0.1,0.2"], "did you mean beta"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_anything_runs(overrides, message, tmp_path):
    with pytest.raises(InputError, match=message):
        sweep(str(TINY), overrides, Store(tmp_path / "store"))
    assert not (tmp_path / "store").exists()


def test_a_model_that_is_not_evaluated_is_refused(tmp_path):
    with pytest.raises(InputError, match="--model reward: this recipe evaluates base, .*dpo"):
        sweep(str(TINY), ["dpo.beta=0.1,0.2"], Store(tmp_path / "store"), model="reward")


def point(beta: float, scores: list[float], first: list[float] | None = None) -> Point:
    found = Point((f"dpo.beta={beta}",), "run", results={"sql": mean_interval(scores)})
    if first is not None:
        found.against["sql"] = paired([a - b for a, b in zip(scores, first, strict=True)], level=0.975)
    return found


@pytest.mark.parametrize(
    ("scores", "verdict"),
    [([1.0] * 60 + [0.0] * 40, "shown to be better over dpo.beta=0.1"), ([1.0] * 42 + [0.0] * 58, "not shown")],
)
def test_the_best_by_its_mean_is_only_called_better_where_that_is_shown(scores, verdict):
    given = [1.0] * 40 + [0.0] * 60
    first, other = point(0.1, given), point(0.2, scores, given)
    found = Sweep("dpo", "greedy", 0.975, [other, first], first, "align run")
    assert verdict in found.verdict()
    names, lines = as_rows(found)
    assert names == ["dpo.beta", "greedy %", "Δ v. first", "run"]
    assert [line[0] for line in lines] == ["0.2", "0.1"] and lines[1][2] == "first"
