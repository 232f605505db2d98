"""Intervals: against closed forms, scipy, and their own coverage."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from align.stats import bootstrap_mean, item_means, mean_interval, preference_kappa, wilson


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (3, 10), (45, 300), (1, 1), (0, 300)])
def test_wilson_is_scipys(successes: int, n: int) -> None:
    ours = wilson(successes, n)
    theirs = scipy_stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert ours.value == successes / n and ours.n == n
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_what_is_no_proportion(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="no proportion"):
        wilson(successes, n)


def test_bootstrap_is_near_the_normal_interval_and_seeded() -> None:
    x = np.random.default_rng(1).normal(3, 2, 400)
    found = bootstrap_mean(x)
    half = 1.96 * x.std() / 20
    assert found.value == pytest.approx(x.mean())
    assert (found.low, found.high) == pytest.approx((x.mean() - half, x.mean() + half), abs=0.02)
    assert found == bootstrap_mean(x) != bootstrap_mean(x, seed=1)
    assert bootstrap_mean(x, level=0.5).high < found.high


def test_bootstrap_is_near_scipys() -> None:
    x = np.random.default_rng(2).exponential(size=100)
    theirs = scipy_stats.bootstrap((x,), np.mean, method="percentile", rng=0).confidence_interval
    ours = bootstrap_mean(x)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)


@pytest.mark.parametrize("n", [100, 2000])
def test_repeating_values_are_counted_to_the_same_interval(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    x = np.random.default_rng(4).choice([-1, -0.5, 0, 0.25, 1], n, p=[0.1, 0.1, 0.5, 0.1, 0.2])
    counted, back = bootstrap_mean(x), bootstrap_mean(-x)
    assert (counted.low, counted.high) == (-back.high, -back.low)  # to the last bit: a swapped comparison mirrors
    monkeypatch.setattr("align.stats._REPEATING", 0)
    drawn = bootstrap_mean(x)
    assert counted != drawn and counted.value == drawn.value
    spread = drawn.high - drawn.low
    assert (counted.low, counted.high) == pytest.approx((drawn.low, drawn.high), abs=0.03 * spread)


@pytest.mark.parametrize("repeating", [False, True])
def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch, repeating: bool) -> None:
    x = np.random.default_rng(3).random(50)
    x = np.repeat(x[:2], 25) if repeating else x
    whole = bootstrap_mean(x, resamples=500)
    monkeypatch.setattr("align.stats._BLOCK", 777)
    assert bootstrap_mean(x, resamples=500) == whole


def test_samples_are_averaged_by_item_and_ungraded_ones_left_out() -> None:
    means = item_means({"a": [1, 0, None, 1], "b": [None, None], "c": [0.0]})
    assert means == {"a": pytest.approx(2 / 3), "c": 0.0}


def test_mean_interval_chooses() -> None:
    assert mean_interval([0, 0, 0, 0]) == wilson(0, 4)
    assert mean_interval([0.5, 0, 1]) == bootstrap_mean([0.5, 0, 1])
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_mean([])


def test_kappa_by_hand() -> None:
    said = (
        [("first", "first")] * 4
        + [("second", "first")]
        + [("tie", "tie"), ("tie", "second")]
        + [("second", "second")] * 3
    )
    chance = 0.2 * 0.1 + 0.8 * 0.9 / 2
    assert preference_kappa(said) == pytest.approx((0.8 - chance) / (1 - chance))
    assert preference_kappa([]) is None and preference_kappa([("tie", "tie")]) is None
    other = {"first": "second", "second": "first", "tie": "tie"}
    assert preference_kappa([(other[a], other[b]) for a, b in said]) == preference_kappa(said)
