"""Intervals for reported figures. The unit is the item (a question): its samples are averaged before anything else.

All are closed forms, so that equal figures have equal intervals; benchmarks/coverage.py says how often they hold.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

_ROUNDING = 1e-9


class Interval(NamedTuple):
    """An estimate, its two-sided interval, and the number of items behind it."""

    value: float
    low: float
    high: float
    n: int


def item_means(scores: Mapping[str, Sequence[float | None]]) -> dict[str, float]:
    """The mean score of every item over its graded samples; items without a graded sample are left out."""
    graded = {item: [s for s in values if s is not None] for item, values in scores.items()}
    return {item: math.fsum(values) / len(values) for item, values in graded.items() if values}


def wilson(successes: float, n: int, *, level: float = 0.95) -> Interval:
    """A proportion with its score interval (Wilson, 1927), which stays honest at 0 of n and n of n."""
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is no proportion")
    p = successes / n
    return Interval(p, *_score_interval(p, n, NormalDist().inv_cdf((1 + level) / 2)), n)


def mean_interval(values: ArrayLike, *, level: float = 0.95) -> Interval:
    """The mean of `values` [n], scores in 0..1, with Wilson's interval; where some lie between, at the effective n.

    That is the number of right and wrong answers whose mean would be as uncertain: n * mean * (1 - mean) / variance
    (Korn & Graubard, 1998, for proportions of surveys), with Student's quantile. The interval stays within 0..1 and
    leans towards its middle as the sampling distribution does. Raises ValueError without a value, or for another one.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or x.size == 0:
        raise ValueError("an interval needs a sequence of at least one value")
    if x.min() < -_ROUNDING or x.max() > 1 + _ROUNDING:
        raise ValueError(f"{x[np.abs(x - 0.5).argmax()]:g} is no score between 0 and 1")
    total, n = min(float(x.size), max(0.0, math.fsum(x))), int(x.size)
    p = total / n
    variance = float(x.var(ddof=1)) if n > 1 else 0.0
    if ((x == 0) | (x == 1)).all() or variance < _ROUNDING:
        return wilson(total, n, level=level)
    return Interval(p, *_score_interval(p, n * p * (1 - p) / variance, t_quantile((1 + level) / 2, n - 1)), n)


def t_quantile(p: float, df: float) -> float:
    """The quantile of Student's distribution at `p` in 0.5..1 with `df` >= 1 degrees of freedom, also broken ones.

    Hill (1970), Algorithm 396 of the CACM: to five digits, but some per cent too large between 1 and 2 degrees.
    """
    if not 0.5 <= p < 1 or df < 1:
        raise ValueError(f"no quantile of Student's distribution at {p:g} with {df:g} degrees of freedom")
    both = 2 * (1 - p)  # the probability of both tails
    if df < 1.0001:
        return math.tan(math.pi * (0.5 - both / 2))
    if abs(df - 2) < 1e-4:
        return math.sqrt(2 / (both * (2 - both)) - 2)
    a = 1 / (df - 0.5)
    b = 48 / a**2
    c = ((20700 * a / b - 98) * a - 16) * a + 96.36
    d = ((94.5 / (b + c) - 3) / b + 1) * math.sqrt(a * math.pi / 2) * df
    y = (d * both) ** (2 / df)
    if y > 0.05 + a:
        x = NormalDist().inv_cdf(both / 2)
        y = x * x
        c += 0.3 * (df - 4.5) * (x + 0.6) if df < 5 else 0
        c += (((0.05 * d * x - 5) * x - 7) * x - 2) * x + b
        y = (((((0.4 * y + 6.3) * y + 36) * y + 94.5) / c - y - 3) / b + 1) * x
        y = math.expm1(a * y * y)
    else:
        y = ((1 / (((df + 6) / (df * y) - 0.089 * d - 0.822) * (df + 2) * 3) + 0.5 / (df + 4)) * y - 1) * (df + 1) / (
            df + 2
        ) + 1 / y
    return math.sqrt(df * y)


def preference_kappa(said: Sequence[tuple[str, str]]) -> float | None:
    """Cohen's kappa (1960) of two who said of each pair of responses `first`, `second` or that neither is better.

    Which response stands first is known to neither of them, so each pair counts once in each place: either place is
    preferred equally often, and what else they may agree on by chance is how often each calls it even. None where
    nothing was said, or where both call everything even.
    """
    if not said:
        return None
    even = [sum(one[i] not in ("first", "second") for one in said) / len(said) for i in (0, 1)]
    chance = even[0] * even[1] + (1 - even[0]) * (1 - even[1]) / 2
    agreed = sum(a == b for a, b in said) / len(said)
    return (agreed - chance) / (1 - chance) if chance < 1 else None


def _score_interval(p: float, n: float, z: float) -> tuple[float, float]:
    """Wilson's interval of the proportion `p` of `n`, at `z` standard errors."""
    z2 = z * z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)
