"""Paired differences: what shows, what does not, and what too few items carry; against scipy, and by their error rates."""

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats as scipy_stats

from align.paired import FEW, exact_p, needed, paired, paired_difference
from align.stats import mean_interval


def outcome(better: int, worse: int, n: int = 400) -> list[float]:
    """Differences of two models of which one is right where the other is wrong on so many of n items."""
    return [1.0] * better + [-1.0] * worse + [0.0] * (n - better - worse)


def test_four_of_400_are_too_few_to_tell() -> None:
    found = paired(outcome(4, 0))
    assert found.low < 0.01 < found.high
    assert (found.verdict, found.differ, found.p, found.n) == ("too few to tell", 4, 0.125, 400)


@pytest.mark.parametrize(
    ("better", "worse", "verdict"),
    [
        (0, 0, "too few to tell"), (1, 1, "too few to tell"), (5, 0, "too few to tell"), (0, 5, "too few to tell"),
        (6, 0, "better"), (0, 6, "worse"), (7, 1, "too few to tell"), (8, 1, "better"), (3, 4, "not shown"),
        (16, 7, "not shown"), (18, 5, "better"), (5, 18, "worse"), (60, 20, "better"), (200, 190, "not shown"),
    ],
)  # fmt: skip
def test_verdicts(better: int, worse: int, verdict: str) -> None:
    found, back = paired(outcome(better, worse)), paired([-d for d in outcome(better, worse)])
    assert found.verdict == verdict and (found.p is None) == (better + worse >= FEW)
    mirrored = {"better": "worse", "worse": "better"}
    assert back.verdict == mirrored.get(verdict, verdict) and back.p == found.p
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))


@pytest.mark.parametrize("k", [*range(1, FEW)])
def test_exact_p_is_the_exact_mcnemar_test(k: int) -> None:
    for better in range(k + 1):
        ours = exact_p(np.repeat([1.0, -1.0], [better, k - better]))
        assert ours == pytest.approx(scipy_stats.binomtest(better, k).pvalue), (better, k)


def test_exact_p_of_mean_scores_is_scipys_permutation_test() -> None:
    rng = np.random.default_rng(0)
    for k in range(2, 11):
        for x in (rng.choice([-0.75, -0.5, -0.25, 0.25, 0.5, 0.75], k), rng.normal(0.5, 1, k)):
            theirs = scipy_stats.permutation_test(
                (x,), np.sum, permutation_type="samples", n_resamples=np.inf, vectorized=True, axis=0
            )
            assert exact_p(x) == pytest.approx(theirs.pvalue), x


def test_needed_is_the_least_that_can_reject() -> None:
    assert needed() == 6 and needed(0.99) == 8
    for level in (0.9, 0.95, 0.99):
        at = needed(level)
        assert exact_p([1.0] * at) <= 1 - level < exact_p([1.0] * (at - 1))


def test_size_is_kept_for_every_number_of_items_that_differ() -> None:
    """Of equal models each item that differs is a coin: no count of them makes more than 5 % of the verdicts wrong.

    Nothing is drawn: every outcome is weighed by its chance.
    """
    for k in range(1, FEW):
        wrong = 0.0
        for better in range(k // 2 + 1, k + 1):
            found = paired(outcome(better, k - better, 200))
            wrong += 2 * math.comb(k, better) / 2**k * (found.verdict == "better")
        assert wrong <= 0.05, k


def test_the_interval_is_that_of_agresti_and_min() -> None:
    """Their difference of proportions after 0.5 is added to each of the four cells, with Student's quantile."""
    for better, worse, n in ((9, 2, 60), (0, 0, 40), (30, 10, 100)):
        d, total = (better - worse) / (n + 2), n + 2
        error = math.sqrt(((better + 0.5) + (worse + 0.5) - total * d * d) / total) / math.sqrt(total)
        half = scipy_stats.t.ppf(0.975, n - 1) * error
        found = paired(outcome(better, worse, n))
        assert (found.low, found.high) == pytest.approx((d - half, d + half)), (better, worse)


def test_the_interval_does_not_depend_on_the_scale() -> None:
    x = np.random.default_rng(2).normal(0.2, 1, 50)
    one, ten = paired(x), paired(10 * x)
    assert (ten.low, ten.high) == pytest.approx((10 * one.low, 10 * one.high)) and one.verdict == ten.verdict
    assert paired([0.3] * 40).low > 0.2 and paired([0.0, 0.0]).high > 0.5


def test_size_and_power_with_mean_scores() -> None:
    """Means of 4 samples on 100 items, of which about one in ten differs: at most 5 % false verdicts, many true ones."""
    rng = np.random.default_rng(1)
    verdicts: dict[str, list[str]] = {"equal": [], "better": []}
    for _, (kind, gain) in product(range(300), [("equal", 0.0), ("better", 0.6)]):
        unsure = np.where(rng.random(100) < 0.1, 0.4, 0.0)
        a = rng.binomial(4, unsure + gain * (unsure > 0)) / 4
        b = rng.binomial(4, unsure) / 4
        verdicts[kind].append(paired(a - b).verdict)
    shown = {kind: sum(v in ("better", "worse") for v in found) / 300 for kind, found in verdicts.items()}
    assert shown["equal"] <= 0.06 and shown["better"] >= 0.85 and "worse" not in verdicts["better"]


def test_coverage_of_the_paired_interval() -> None:
    """About 95 % of the intervals hold the true difference of two models that share the items' difficulty."""
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(200):
        hard = rng.random(150) * 0.8
        a = {str(i): v for i, v in enumerate(rng.binomial(4, hard + 0.1) / 4)}
        b = {str(i): v for i, v in enumerate(rng.binomial(4, hard) / 4)}
        found = paired_difference(a, b)
        hits += found.low <= 0.1 <= found.high
    assert 180 <= hits <= 199


def test_pairing_is_narrower_where_items_matter() -> None:
    rng = np.random.default_rng(5)
    hard = (rng.random(200) < 0.5).astype(float)
    a = {str(i): v for i, v in enumerate(hard)}
    b = {str(i): float(v and rng.random() < 0.9) for i, v in enumerate(hard)}
    paired = paired_difference(a, b)
    alone = mean_interval(list(a.values()))
    assert paired.high - paired.low < (alone.high - alone.low) / 1.5


def test_difference_counts_shared_items_and_mirrors() -> None:
    a, b = {"x": 1.0, "y": 0.0, "z": 1.0, "a": 1.0}, {"y": 0.0, "x": 0.0, "z": 1.0, "b": 1.0}
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert there.n == 3 and there.value == pytest.approx(1 / 3)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    with pytest.raises(ValueError, match="shared"):
        paired_difference({"x": 1.0}, {"y": 1.0})
