"""How small a difference is shown: against the formula, by simulation, and where it is said."""

from pathlib import Path

import numpy as np
import pytest

from align.paired import paired
from align.power import detectable, worst_error
from flows import power
from flows.plan import plan
from flows.recipe import load
from storage.store import Attempt, Store

TINY = Path(__file__).with_name("tiny.yaml")


def test_so_large_a_difference_is_shown_in_four_cases_of_five() -> None:
    assert detectable(1.0) == pytest.approx(1.959964 + 0.841621) and detectable(1.0, power=0.5) < 2
    rng, n = np.random.default_rng(0), 200
    true = detectable(worst_error(n))
    same, gained = 0.75, true / 2  # a quarter differs, as where half are right and the two correlate by a half
    chance = [0.125 + gained, same, 0.125 - gained]
    shown = sum(paired(rng.choice([1.0, 0.0, -1.0], n, p=chance)).verdict == "better" for _ in range(2000))
    assert 0.77 <= shown / 2000 <= 0.87
    with pytest.raises(ValueError, match="no item"):
        worst_error(0)


def attempt(stage: str, **metrics: float) -> Attempt:
    return Attempt(stage, "k", "a", {}, {}, {}, {}, {k.replace("_", "."): v for k, v in metrics.items()}, 0.0)


def test_the_plan_says_it_before_anything_is_evaluated(tmp_path: Path) -> None:
    recipe = load(TINY)  # which asks 16 items
    planned = {p.stage: p for p in plan(Store(tmp_path / "store"), recipe)}
    assert planned["evaluate"].note == (
        "16 items of questions show differences of 35.0 points or more (at worst, right and wrong answers that "
        "correlate by 0.5)"
    )
    assert not any(p.note for p in planned.values() if p.stage != "evaluate")
    last = {"evaluate": attempt("evaluate", items_questions=64, detectable_questions=0.1)}
    assert power.note(recipe, last).startswith("16 items of questions show differences of 20.0 points or more (by the")
    free = load(TINY, ["evaluate.suites.questions.limit=null"])
    assert power.note(free, {}) == ""
    read = {"ingest": attempt("ingest", split_evaluation=100)}
    assert power.note(free, read).startswith("100 items of questions show differences of 14.0 points or more (at worst")
    assert power.note(free, read | last).startswith("64 items of questions show differences of 10.0 points")
