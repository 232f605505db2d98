"""The search of `align sweep --trials`: its space, its points, and what it makes of failures. Runs are in test_chain.py."""

import importlib.util
import math
from collections.abc import Callable
from typing import Any

import pytest
from optuna.trial import TrialState
from served import TINY

from align.errors import InputError
from align.stats import Interval
from flows import trials
from flows.cli import main
from flows.recipe import load
from flows.space import Range, Space, space
from flows.sweep import sweep
from flows.trials import Search
from storage.store import Store

RATE = "sft.learning_rate=1e-4..1e-2"
WIDE = ["dpo.beta=0.05,0.1,0.2", RATE, "sft.lora.r=1..64", "sft.num_train_epochs=1..3"]


@pytest.mark.parametrize(
    ("written", "low", "high", "log", "whole"),
    [
        ("1e-4..1e-2", 1e-4, 1e-2, True, False),
        ("0.1..1", 0.1, 1.0, True, False),
        ("0.2..1.0", 0.2, 1.0, False, False),
        ("0.2..1.0:log", 0.2, 1.0, True, False),
        ("1e-4..1e-2:linear", 1e-4, 1e-2, False, False),
        ("1..8", 1, 8, False, True),
        ("1..64", 1, 64, True, True),
        ("0..64", 0, 64, False, True),
        ("-3..3", -3, 3, False, True),
        (" .5..2.", None, None, None, None),  # 2. is no number as YAML has them
    ],
)
def test_ranges(written: str, low: Any, high: Any, log: Any, whole: Any) -> None:
    if low is None:
        with pytest.raises(InputError, match="several values"):
            space([f"a.b={written}"], trials=5)
        return
    (axis,) = space([f"a.b={written}"], trials=5).axes
    assert axis == Range("a.b", low, high, log, whole)
    assert axis.size == (high - low + 1 if whole else math.inf)
    assert [type(x) for x in (axis.low, axis.high)] == ([int, int] if whole else [float, float])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", RATE], f"--set {RATE}: a range needs --trials.*--set sft.learning_rate=1e-4,1e-2"),
        (["--set", "dpo.beta=0.1"], "needs a setting with several values.*, for instance"),
        (["--set", "dpo.beta=0.1", "--trials", "3"], "several values.*or a range"),
        (["--set", "dpo.beta=0.2..0.1", "--trials", "3"], "from a smaller number to a larger"),
        (["--set", "dpo.beta=0.1..0.1", "--trials", "3"], "from a smaller number to a larger"),
        (["--set", "dpo.beta=0.1..1e999", "--trials", "3"], "from a smaller number to a larger"),
        (["--set", "dpo.beta=0..1:log", "--trials", "3"], "a logarithmic range begins above 0"),
        (["--set", "dpo.beta=0.1..1:exp", "--trials", "3"], "after a range stands :log, :linear or nothing"),
        (["--set", "dpo.beta=0.1..0.2,0.5", "--trials", "3"], "0.1..0.2 is a range, which stands by itself"),
        (["--set", RATE, "--trials", "0"], "--trials is a number from 1 to 1000"),
        (["--set", RATE, "--trials", "3", "--seed", "-1"], "--seed is a number from 0"),
        (["--set", "dpo.betta=0.1..0.2", "--trials", "3"], "did you mean beta"),
        (["--set", "dpo.beta=-1..0.2", "--trials", "3"], "dpo.beta"),
        (["--set", RATE, "--trials", "3", "--html", "no/such/page.html"], "its folder does not exist"),
    ],
)
def test_what_cannot_be_searched_is_said_before_anything_runs(words: list[str], message: str, tmp_path, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["sweep", str(TINY), *words, "--store", str(tmp_path / "store")])
    told = capsys.readouterr().err
    assert ended.value.code == 2 and not (tmp_path / "store").exists()
    with pytest.raises(InputError, match=message):
        raise InputError(told)


def test_without_optuna_it_says_what_to_install(tmp_path, monkeypatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(trials.importlib.util, "find_spec", lambda name: None if name == "optuna" else found(name))
    with pytest.raises(InputError, match=r"optuna, which is not installed; pip install 'align-pipeline\[sweep\]'"):
        sweep(str(TINY), [RATE], Store(tmp_path / "store"), trials=2)


def found(search: Search, score: Callable[[dict[str, str]], float | None], beside: int = 1) -> list[dict[str, str]]:
    """The points of a search in their order, so many side by side; each comes to its score, where None is a failure."""
    seen = []
    for point in (point for batch in search.batches(beside) for point in batch):
        values = dict(setting.split("=") for setting in point.settings)
        seen.append(values)
        if (came := score(values)) is not None:
            point.results["sql"] = Interval(came, came, came, 1)
        else:
            point.error = "out of memory"
    return seen


def good(values: dict[str, str]) -> float:
    """Best at a rate of 0.002 and a rank of 16."""
    rate, rank = float(values["sft.learning_rate"]), int(values["sft.lora.r"])
    return 1 - abs(math.log10(rate / 0.002)) / 3 - abs(math.log2(rank / 16)) / 12


def searched(n: int, seed: int = 0, score: Callable[[dict[str, str]], float | None] = good) -> list[dict[str, str]]:
    return found(Search(space(WIDE, trials=n), n, seed, load(str(TINY))), score)


def test_points_are_of_the_space_begin_with_the_recipe_and_load() -> None:
    seen = searched(16)
    own = load(str(TINY))
    assert seen[0] == {"dpo.beta": "0.1", "sft.learning_rate": "0.002", "sft.lora.r": "8", "sft.num_train_epochs": "1"}
    assert own.sft.learning_rate == 0.002 and own.sft.lora and own.sft.lora.r == 8 and own.dpo.beta == 0.1
    assert len({tuple(p.values()) for p in seen}) == 16
    for point in seen:
        loaded = load(str(TINY), [f"{key}={value}" for key, value in point.items()])
        assert point["dpo.beta"] in ("0.05", "0.1", "0.2") and 1e-4 <= loaded.sft.learning_rate <= 1e-2
        assert float(point["sft.learning_rate"]) == loaded.sft.learning_rate
        assert loaded.sft.lora and 1 <= loaded.sft.lora.r <= 64 and str(loaded.sft.lora.r) == point["sft.lora.r"]


def test_the_same_command_has_the_same_points_more_trials_go_on_and_another_seed_has_others() -> None:
    first = searched(14)
    assert searched(14) == first and searched(20)[:14] == first
    other = searched(14, seed=1)
    assert other[0] == first[0] and all(a != b for a, b in zip(other[1:], first[1:], strict=True))


def test_side_by_side_the_search_begins_with_the_same_points_and_learns_from_batches() -> None:
    def beside(size: int) -> list[dict[str, str]]:
        return found(Search(space(WIDE, trials=30), 30, 0, load(str(TINY))), good, size)

    four = beside(4)
    assert beside(4) == four and len({tuple(p.values()) for p in four}) == 30
    assert four[: trials.DRAWN] == searched(30)[: trials.DRAWN]
    learned = [good(p) for p in four]
    assert sum(learned[-12:]) / 12 > sum(learned[1:10]) / 9 + 0.05


def test_what_came_of_points_decides_the_later_ones() -> None:
    n, drawn = 40, trials.DRAWN
    learned = [good(p) for p in searched(n)]
    assert sum(learned[-15:]) / 15 > sum(learned[1:drawn]) / (drawn - 1) + 0.1
    worst = searched(n, score=lambda p: -good(p))
    assert worst[:drawn] == searched(n)[:drawn] and worst[drawn + 1 :] != searched(n)[drawn + 1 :]


def test_failed_runs_are_told_as_failed_and_the_search_goes_on() -> None:
    search = Search(space(WIDE, trials=14), 14, 0, load(str(TINY)))
    seen = found(search, lambda p: None if int(p["sft.lora.r"]) > 20 else good(p))
    big = [int(p["sft.lora.r"]) > 20 for p in seen]
    assert 0 < sum(big) < 14
    states = [trial.state for trial in search.study.trials]
    assert states == [TrialState.FAIL if failed else TrialState.COMPLETE for failed in big]
    assert max(t.value for t in search.study.trials if t.value is not None) == search.study.best_value


def test_no_point_comes_twice_though_the_space_is_small() -> None:
    asked = space(["dpo.beta=0.1,0.2", "sft.lora.r=1..5"], trials=9)
    assert asked.size == 10 and len(list(asked.points())) == 10
    search = Search(asked, 9, 0, load(str(TINY)))
    seen = found(search, lambda p: 1.0 if p["sft.lora.r"] == "3" else 0.0)
    assert len({tuple(p.values()) for p in seen}) == len(seen) == 9
    assert [trial.state for trial in search.study.trials].count(TrialState.COMPLETE) == 9 < len(search.study.trials)


def test_what_the_recipe_has_outside_the_space_is_replaced() -> None:
    asked = space(["dpo.beta=0.3,0.5", "sft.lora.r=16..64", "sft.learning_rate=0.1..0.3", "filter.seed=0,1"], trials=1)
    (seen,) = found(Search(asked, 1, 0, load(str(TINY))), lambda p: 0.0)
    assert seen == {"dpo.beta": "0.3", "sft.lora.r": "40", "sft.learning_rate": "0.2", "filter.seed": "0"}


def test_edges_hold_every_value_and_both_ends() -> None:
    asked = Space([], space(["a=x,y", "b=1..9"], trials=2).axes)
    assert list(asked.edges()) == [("a=x", "b=1"), ("a=y", "b=1"), ("a=x", "b=1"), ("a=x", "b=9")]
