"""Whether a paired difference is shown: an interval, and an exact test beside it where few items differ.

With few items that differ, those that were seen do not tell of the others: 4 better and 0 worse of 400 are heads four
times in four tosses (p = .125). So the interval counts one item more that differs, half of it either way, and the exact
test must agree.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from align.stats import t_quantile

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
    error: float
    """The standard error of the mean."""
    seeds: int = 1
    """Of how many seeds a policy on either side was trained (align/seeds.py)."""
    seed_sd: float | None = None
    """The standard deviation of the seeds' means; None where there is one."""


def paired(values: ArrayLike, *, level: float = 0.95) -> Paired:
    """What the differences `values` [n] show. Negated values give the mirrored interval and the opposite verdict.

    better or worse: the interval (`interval`) excludes 0 and, where fewer than FEW items differ, the exact test rejects
    at 1 - level too. too few to tell: fewer items differ than could ever reject, or the interval excludes 0 and the
    exact test does not reject. not shown: the rest. Raises ValueError if there is no value.
    """
    x = np.asarray(values, dtype=np.float64)
    low, high = interval(x, level=level)
    p, said = verdict(x, low, high, level)
    return Paired(float(x.mean()), low, high, int(x.size), int(np.count_nonzero(x)), p, said, centre_and_error(x)[1])


def verdict(x: NDArray[np.float64], low: float, high: float, level: float) -> tuple[float | None, Verdict]:
    """The exact test's p of the differences `x`, None where FEW or more differ, and the verdict with this interval."""
    differences = x[x != 0]
    p = exact_p(differences) if differences.size < FEW else None
    excludes = low > 0 or high < 0
    if differences.size < needed(level) or (excludes and p is not None and p > 1 - level):
        return p, "too few to tell"
    return p, ("better" if low > 0 else "worse") if excludes else "not shown"


def paired_difference(a: Mapping[str, float], b: Mapping[str, float], *, level: float = 0.95) -> Paired:
    """What a - b shows over the items that both have.

    `a` and `b` map items to mean scores. Items are compared with themselves, so that what makes an item hard for both
    cancels. Swapping a and b mirrors the interval exactly. Raises ValueError if no item is shared.
    """
    items = sorted(a.keys() & b.keys())
    if not items:
        raise ValueError("no item is shared")
    return paired([a[i] - b[i] for i in items], level=level)


def interval(x: NDArray[np.float64], *, level: float = 0.95) -> tuple[float, float]:
    """The interval of the mean of paired differences `x` [n] (Agresti & Min, 2005, "Wald + 2").

    Two items are added: one that does not differ, and one that differs half in either direction, by the root mean
    square of those that do (1 where none does). Of right and wrong answers this is their interval; Student's quantile
    makes it hold for few items and for mean scores. It always holds the mean. Raises ValueError without a value.
    """
    if x.ndim != 1 or x.size == 0:
        raise ValueError("an interval needs a sequence of at least one value")
    centre, error = centre_and_error(x)
    half = t_quantile((1 + level) / 2, max(1, x.size - 1)) * error
    mean = float(x.mean())
    return min(mean, centre - half), max(mean, centre + half)


def centre_and_error(x: NDArray[np.float64]) -> tuple[float, float]:
    """The middle of the interval of the mean of differences `x` [n], and its standard error."""
    squares, differ, n = float(x @ x), int(np.count_nonzero(x)), x.size + 2
    centre = math.fsum(x) / n
    variance = (squares + (squares / differ if differ else 1.0)) / n - centre**2
    return centre, math.sqrt(max(0.0, variance) / n)


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
