"""Length-controlled win rates: the regression against scipy's optimiser, and that what is planted is found again."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

from align.grading.length_control import PENALTY, length_controlled
from align.stats import mean_interval


def logistic(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-z))


def contests(n: int, theta: float, phi: float, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
    """Verdicts on n items by the regression's own model, ties among them; answers are 300 characters longer, +-200."""
    rng = np.random.default_rng(seed)
    longer = rng.normal(300, 200, n)
    p = logistic(theta + phi * np.tanh(longer / longer.std()))
    return (rng.random(n) < p) * 0.5 + (rng.random(n) < p) * 0.5, longer, [f"i{k}" for k in range(n)]


def test_the_fit_is_the_optimum_of_its_likelihood() -> None:
    scores, longer, items = contests(60, -0.4, 1.2, 1)
    items[:20] = [f"shared{k // 4}" for k in range(20)]  # four answers to each of five items weigh one together
    each = np.array([1 / items.count(i) for i in items])
    mean = np.average(longer, weights=each)
    x = np.tanh(longer / np.sqrt(np.average((longer - mean) ** 2, weights=each)))

    def loss(b: NDArray[np.float64]) -> float:
        p = logistic(b[0] + b[1] * x)
        return float(-(each * (scores * np.log(p) + (1 - scores) * np.log(1 - p))).sum() + PENALTY * b[1] ** 2 / 2)

    best = minimize(loss, np.zeros(2), tol=1e-10).x
    found = length_controlled(scores, longer, items)
    assert found.win_rate.value == pytest.approx(float(logistic(best)[0]), abs=1e-5)
    assert found.effect == pytest.approx(best[1], abs=1e-4) and found.win_rate.n == 45


def test_a_planted_effect_of_length_is_taken_out() -> None:
    scores, longer, items = contests(3000, -0.5, 1.5, 2)
    raw, found = mean_interval(list(scores)), length_controlled(scores, longer, items)
    fair = float(logistic(np.array(-0.5)))
    assert raw.low > 0.5 > found.win_rate.high, "it wins by length alone"
    assert found.win_rate.low < fair < found.win_rate.high and found.effect == pytest.approx(1.5, abs=0.3)
    longer[:] = -longer
    turned = length_controlled(1 - scores, longer, items)
    assert turned.win_rate.value == pytest.approx(1 - found.win_rate.value, abs=1e-6)


def test_without_a_difference_in_length_it_is_the_win_rate() -> None:
    scores = [1.0] * 30 + [0.5] * 10 + [0.0] * 20
    for longer in ([0.0] * 60, [50.0] * 60):
        found = length_controlled(scores, longer, [str(i) for i in range(60)])
        assert found.win_rate.value == pytest.approx(35 / 60, abs=1e-6) and found.effect == pytest.approx(0)
        raw = mean_interval(scores)
        assert (found.win_rate.low, found.win_rate.high) == pytest.approx((raw.low, raw.high), abs=0.03)


def test_the_interval_covers() -> None:
    fair, inside = float(logistic(np.array(0.3))), 0
    for seed in range(60):
        found = length_controlled(*contests(80, 0.3, 1.0, seed), seed=seed).win_rate
        inside += found.low <= fair <= found.high
    assert inside >= 52, "of 60, at 95 %"


def test_copies_of_an_answer_change_nothing() -> None:
    scores, longer, items = contests(25, 0.2, 0.8, 4)
    once = length_controlled(scores, longer, items)
    copied = length_controlled([*[scores[0]] * 40, *scores], [*[longer[0]] * 40, *longer], ["i0"] * 40 + items)
    assert copied.win_rate == pytest.approx(once.win_rate, abs=1e-6)


def test_it_stays_finite() -> None:
    for scores in ([1.0] * 9, [0.0] * 9, [0.5] * 9, [1.0]):
        found = length_controlled(scores, list(range(len(scores))), [str(i) for i in range(len(scores))])
        low, high = found.win_rate.low, found.win_rate.high
        assert 0 <= low <= found.win_rate.value <= high <= 1 and np.isfinite(found.effect)
    split = length_controlled([1.0] * 5 + [0.0] * 5, [100.0] * 5 + [-100.0] * 5, [str(i) for i in range(10)])
    assert 3 < split.effect <= 10 and split.win_rate.value == pytest.approx(0.5, abs=1e-6), "all of it is length"
    with pytest.raises(ValueError, match="no verdict"):
        length_controlled([], [], [])
