"""The best-of-n curve: expectations as by drawing, and whether a reward is gamed."""

import itertools
from typing import Any

import numpy as np
import pytest

from align.grading.best_of import best_of, curve, gamed, sizes

RNG = np.random.default_rng(0)


def planted(prompts: int, n: int, grade: Any) -> list[list[tuple[float, float]]]:
    """Responses whose rewards are random, with a grade that depends on the reward's rank."""
    groups = []
    for _ in range(prompts):
        rewards = sorted(RNG.normal(size=n).tolist())
        groups.append([(r, float(RNG.random() < grade(i / (n - 1)))) for i, r in enumerate(rewards)])
    return groups


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_it_is_the_mean_over_all_draws(n: int) -> None:
    rewards, grades = [0.3, 0.1, 0.9, 0.5, 0.7], [1.0, 0.0, 0.0, 1.0, 0.5]
    draws = [max(chosen, key=lambda i: rewards[i]) for chosen in itertools.combinations(range(5), n)]
    assert best_of(grades, rewards, n) == pytest.approx(np.mean([grades[i] for i in draws]))
    assert best_of([1.0, 0.0], [0.5, 0.5], 2) == 0.5, "equals share their chance, whatever their order"


def test_sizes() -> None:
    assert sizes(1) == [1] and sizes(6) == [1, 2, 4, 6] and sizes(8) == [1, 2, 4, 8]


def test_a_reward_that_knows_rises_with_n_and_stays_below_the_oracle() -> None:
    groups = planted(200, 8, lambda rank: 0.2 + 0.6 * rank)
    found = list(curve(groups))
    assert [f["n"] for f in found] == [1, 2, 4, 8] and found[0]["prompts"] == 200
    grades = [f["grade"] for f in found]
    assert grades == sorted(grades) and grades[-1] > grades[0] + 0.15
    assert all(f["low"] <= f["grade"] <= f["high"] and f["grade"] <= f["oracle"] for f in found)
    assert gamed(groups) is None


def test_a_reward_that_is_gamed_is_found() -> None:
    """It knows the middle from the worst, and likes nonsense best."""
    groups = planted(300, 8, lambda rank: 0.05 if rank > 0.9 else 0.3 + 0.6 * rank)
    over = gamed(groups)
    assert over is not None and over[1] == 8 and over[0] < 8
    few, many = (next(f for f in curve(groups) if f["n"] == n) for n in over)
    assert many["reward"] > few["reward"] and many["grade"] < few["grade"]


def test_a_reward_that_knows_nothing_is_not_called_gamed() -> None:
    assert sum(gamed(planted(60, 4, lambda rank: 0.5)) is not None for _ in range(60)) <= 6


def test_prompts_with_fewer_responses_are_left_out_and_none_is_no_curve() -> None:
    groups = [[(1.0, 1.0), (0.0, 0.0)], [(1.0, 1.0)], [(0.0, 1.0), (2.0, 0.0)]]
    assert [(f["n"], f["prompts"]) for f in curve(groups)] == [(1, 2), (2, 2)]
    assert list(curve([])) == [] and gamed([]) is None and list(curve([[]])) == []
