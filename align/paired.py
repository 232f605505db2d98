"""Whether a paired difference is shown: a bootstrap interval, and an exact test beside it where few items differ.

With few items that differ the bootstrap cannot know the differences it has not seen: of 4 better and 0 worse of 400 its
interval excludes 0, though heads four times in four tosses (p = .125) is nothing to go by.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from align.stats import RESAMPLES, bootstrap_mean

Verdict = Literal["better", "worse", "not shown", "too few to tell"]
FEW = 25
"""Items that differ, from which on the interval stands alone: the usual bound for the exact form of McNemar's test."""


class Paired(NamedTuple):
    """The mean of paired differences, its interval, and what they show."""

    value: float
    low: float
    high: float
    n: int
    """Items."""
    differ: int
    """Items whose difference is not 0."""
    p: float | None
    """Two-sided p of the exact test; None where FEW items or more differ."""
    verdict: Verdict


def paired(values: ArrayLike, *, seed: int = 0, level: float = 0.95, resamples: int = RESAMPLES) -> Paired:
    """What the differences `values` [n] show. Negated values give the mirrored interval and the opposite verdict.

    better or worse: the bootstrap interval excludes 0 and, where fewer than FEW items differ, the exact test rejects at
    1 - level too. too few to tell: fewer items differ than could ever reject, or the interval excludes 0 and the exact
    test does not reject. not shown: the rest. Raises ValueError if there is no value.
    """
    x = np.asarray(values, dtype=np.float64)
    value, low, high, n = bootstrap_mean(x, seed=seed, level=level, resamples=resamples)
    differences = x[x != 0]
    p = exact_p(differences) if differences.size < FEW else None
    excludes = low > 0 or high < 0
    verdict: Verdict = "not shown"
    if differences.size < needed(level) or (excludes and p is not None and p > 1 - level):
        verdict = "too few to tell"
    elif excludes:
        verdict = "better" if low > 0 else "worse"
    return Paired(value, low, high, n, int(differences.size), p, verdict)


def paired_difference(
    a: Mapping[str, float], b: Mapping[str, float], *, seed: int = 0, level: float = 0.95, resamples: int = RESAMPLES
) -> Paired:
    """What a - b shows over the items that both have, by the paired bootstrap (Koehn, 2004) and the exact test.

    `a` and `b` map items to mean scores. Resampling items keeps each pair together, so that what makes an item hard for
    both cancels. Swapping a and b mirrors the interval exactly. Raises ValueError if no item is shared.
    """
    items = sorted(a.keys() & b.keys())
    if not items:
        raise ValueError("no item is shared")
    return paired([a[i] - b[i] for i in items], seed=seed, level=level, resamples=resamples)


def needed(level: float = 0.95) -> int:
    """The items that must differ before the exact test can reject: all k alike have p = 2 / 2^k. 6 at 95 %."""
    return math.ceil(1 - math.log2(1 - level))


def exact_p(differences: Sequence[float] | NDArray[np.float64]) -> float:
    """Two-sided p of the sign-flip permutation test of `differences` [k], none of them 0 (Fisher, 1935; Pitman, 1937).

    Under the hypothesis that an item's two scores could as well be exchanged, all 2^k signs are equally likely: p is
    the share of them whose sum is at least as far from 0. Where all differences have one size (right and wrong),
    this is McNemar's test (1947) in its exact form, the two-sided binomial (sign) test of the discordant items that
    Edwards (1948) corrects towards. Exact for any sizes; memory grows as 2^(k/2), which FEW bounds.
    """
    x = np.abs(np.asarray(differences, dtype=np.float64))
    left, right = (_sums(half) for half in (x[: x.size // 2], x[x.size // 2 :]))
    reach = abs(math.fsum(differences)) - 1e-9 * max(1.0, float(x.sum()))  # equal sums may differ by rounding
    if reach <= 0:
        return 1.0
    right.sort()
    beyond = int((right.size - np.searchsorted(right, reach - left)).sum())
    return float(min(1.0, 2 * beyond / 2.0**x.size))


def _sums(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sums of `x` [k] under all signs [2^k]."""
    sums = np.zeros(1)
    for size in x:
        sums = np.concatenate([sums + size, sums - size])
    return sums
