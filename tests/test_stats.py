"""Intervals: against closed forms and scipy. How often they hold is in test_coverage.py."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from align.stats import item_means, mean_interval, preference_kappa, t_quantile, wilson


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


@pytest.mark.parametrize("p", [0.9, 0.975, 0.995, 0.9995])
def test_quantiles_of_student_are_scipys(p: float) -> None:
    for df in (1, 2, 3, 4, 5.5, 10, 29, 99, 400):
        assert t_quantile(p, df) == pytest.approx(scipy_stats.t.ppf(p, df), rel=1e-5), df
    for df in (1.1, 1.5, 1.9, 2.5):
        theirs = scipy_stats.t.ppf(p, df)
        assert theirs * (1 - 1e-6) <= t_quantile(p, df) <= theirs * 1.1, "never too small"
    for wrong in ((0.4, 3), (1, 3), (p, 0.5)):
        with pytest.raises(ValueError, match="no quantile"):
            t_quantile(*wrong)


def test_scores_between_right_and_wrong_have_students_interval_where_the_mean_is_in_the_middle() -> None:
    x = np.clip(np.random.default_rng(1).normal(0.5, 0.1, 400), 0, 1)
    found, theirs = mean_interval(x), scipy_stats.t.interval(0.95, 399, x.mean(), scipy_stats.sem(x))
    assert found.value == pytest.approx(x.mean()) and found.n == 400
    assert (found.low, found.high) == pytest.approx(theirs, abs=1e-4)
    assert mean_interval(x, level=0.5).high < found.high
    near = mean_interval([0.0] * 28 + [0.5, 0.25])
    assert 0 <= near.low < near.value < near.high and near.high - near.value > near.value - near.low


def test_samples_are_averaged_by_item_and_ungraded_ones_left_out() -> None:
    means = item_means({"a": [1, 0, None, 1], "b": [None, None], "c": [0.0]})
    assert means == {"a": pytest.approx(2 / 3), "c": 0.0}


def test_mean_interval_is_wilsons_for_right_and_wrong_and_its_bounds_hold() -> None:
    assert mean_interval([0, 0, 0, 0]) == wilson(0, 4) and mean_interval([1, 0, 1]) == wilson(2, 3)
    assert mean_interval([0.5]) == wilson(0.5, 1) and mean_interval([0.5] * 9) == wilson(4.5, 9)
    assert mean_interval([1.0, 1.0, 1.0 + 1e-12]).value == 1.0
    with pytest.raises(ValueError, match="at least one"):
        mean_interval([])
    with pytest.raises(ValueError, match="7 is no score"):
        mean_interval([0.5, 7])


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
