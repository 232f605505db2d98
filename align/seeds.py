"""Policies that were trained several times with different seeds: what their means show, seeds and items taken together.

A model of one seed is one draw from what its recipe makes. Where several were trained, the interval speaks of the
recipe: variance = item part + seed part, of which the item part is that of the items' means over the seeds, and the
seed part the variance of the seeds' means over their number (a normal approximation of the hierarchical bootstrap;
Bouthillier et al., 2021, "Accounting for Variance in Machine Learning Benchmarks"; Agarwal et al., 2021, "Deep
Reinforcement Learning at the Edge of the Statistical Precipice"). Student's quantile has Satterthwaite's (1946) degrees
of freedom, so that two or three seeds are believed only so far. What samples differ by within an item is in both parts:
the interval is wider than it must be where the seeds agree, and never narrower.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from align.paired import Paired, centre_and_error, paired, verdict
from align.stats import Interval, mean_interval, t_quantile

Seeds = Sequence[Mapping[str, float]]
"""The items' mean scores of each seed of a policy."""


def spread(scores: Seeds) -> float | None:
    """The standard deviation of the seeds' means over the items that all have; None of one seed, or without an item."""
    items = _shared(scores)
    return math.sqrt(float(_table(scores, items).mean(1).var(ddof=1))) if len(scores) > 1 and items else None


def mean_of_seeds(scores: Seeds, *, level: float = 0.95) -> Interval:
    """The mean of a policy over its seeds, with an interval that they widen. ValueError where no item is shared."""
    table = _table(scores, _shared(scores))
    alone = mean_interval(table.mean(0) if len(scores) > 1 else table[0], level=level)
    if len(scores) == 1:
        return alone
    at = (1 + level) / 2
    error = (alone.high - alone.low) / 2 / t_quantile(at, max(1, alone.n - 1))
    wider = _half(error, alone.n, [table.mean(1)], level) / ((alone.high - alone.low) / 2)
    low, high = (alone.value + (end - alone.value) * wider for end in (alone.low, alone.high))
    return Interval(alone.value, max(0.0, low), min(1.0, high), alone.n)


def seeded_difference(a: Seeds, b: Seeds, *, level: float = 0.95) -> Paired:
    """What a - b shows over the items that all seeds of both have; that of one seed each is `paired_difference`.

    A difference that is no larger than the standard deviation of the seeds' means (`seed_sd`; of the two sides the
    larger) is not shown, whatever its interval says: another seed would undo it. Raises ValueError without an item.
    """
    items = _shared([*a, *b])
    return seeded(_table(a, items), _table(b, items), level=level)


def seeded(left: NDArray[np.float64], right: NDArray[np.float64], *, level: float = 0.95) -> Paired:
    """What left - right shows, as `seeded_difference` says: tables of scores [seeds, items] of the same items."""
    x = left.mean(0) - right.mean(0)
    if len(left) > 1 or len(right) > 1:
        x = np.round(x, 12)  # equal means of different sums are equal
    found = paired(x, level=level)
    between = [side.mean(1) for side in (left, right) if len(side) > 1]
    if not between:
        return found
    centre, error = centre_and_error(x)
    half = _half(error, x.size, between, level)
    low, high = min(found.value, centre - half), max(found.value, centre + half)
    sd = math.sqrt(max(float(means.var(ddof=1)) for means in between))
    p, said = verdict(x, low, high, level)
    if said in ("better", "worse") and abs(found.value) <= sd:
        said = "not shown"
    total = math.sqrt(error**2 + sum(float(means.var(ddof=1)) / means.size for means in between))
    return found._replace(
        low=low, high=high, p=p, verdict=said, error=total, seeds=max(len(left), len(right)), seed_sd=sd
    )  # fmt: skip


def _half(error: float, n: int, between: Sequence[NDArray[np.float64]], level: float) -> float:
    """Half of the interval from the standard error over `n` items and the means [k] of each side's seeds."""
    parts = [(error**2, max(1, n - 1)), *((float(m.var(ddof=1)) / m.size, m.size - 1) for m in between)]
    total = sum(part for part, _ in parts)
    if total == 0:
        return 0.0
    freedom = total**2 / sum(part**2 / df for part, df in parts)
    return t_quantile((1 + level) / 2, max(1.0, freedom)) * math.sqrt(total)


def _shared(scores: Seeds) -> list[str]:
    return sorted(set.intersection(*(set(s) for s in scores))) if scores else []


def _table(scores: Seeds, items: Sequence[str]) -> NDArray[np.float64]:
    """Scores [seeds, items]."""
    if not items:
        raise ValueError("no item is shared")
    return np.array([[s[i] for i in items] for s in scores], dtype=np.float64)
