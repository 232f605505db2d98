"""Intervals for reported figures. The unit is the item (a question): its samples are averaged before anything else."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 10_000
_BLOCK = 1 << 22  # indices or counts drawn at a time
_REPEATING = 0.05  # values to items, up to which counts are drawn: a count costs as much as up to twenty indices


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


def bootstrap_mean(values: ArrayLike, *, seed: int = 0, level: float = 0.95, resamples: int = RESAMPLES) -> Interval:
    """The mean of `values` [n] with its percentile bootstrap interval (Efron & Tibshirani, 1993, chapter 13).

    Items are resampled with replacement. Raises ValueError if there is no value.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or x.size == 0:
        raise ValueError("the bootstrap needs a sequence of at least one value")
    low, high = np.quantile(_means(x, seed, resamples), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(x.mean()), float(low), float(high), int(x.size))


def wilson(successes: float, n: int, *, level: float = 0.95) -> Interval:
    """A proportion with its score interval (Wilson, 1927), which stays honest at 0 of n and n of n."""
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is no proportion")
    from statistics import NormalDist

    z = NormalDist().inv_cdf((1 + level) / 2)
    p, z2 = successes / n, z * z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return Interval(p, max(0.0, centre - half), min(1.0, centre + half), n)


def mean_interval(values: Sequence[float], *, seed: int = 0, level: float = 0.95) -> Interval:
    """Wilson's interval where every value is 0 or 1, else the bootstrap's."""
    if all(v in (0, 1) for v in values):
        return wilson(math.fsum(values), len(values), level=level)
    return bootstrap_mean(values, seed=seed, level=level)


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


def _means(x: NDArray[np.float64], seed: int, resamples: int) -> NDArray[np.float64]:
    """Means [resamples] of resampled `x` [n].

    Where values repeat, how often each is drawn is multinomial: the same distribution without drawing items. Values are
    in the order of their first places, which negation keeps, so that negated values have exactly the negated means.
    """
    rng = np.random.default_rng(seed)
    values, first, counts = np.unique(x, return_index=True, return_counts=True)
    if values.size <= _REPEATING * x.size:
        order = np.argsort(first)
        out = np.empty(resamples)
        step = max(1, _BLOCK // values.size)
        for start in range(0, resamples, step):
            stop = min(start + step, resamples)
            drawn = rng.multinomial(x.size, counts[order] / x.size, stop - start)
            out[start:stop] = (drawn * values[order]).sum(axis=1) / x.size
        return out
    out = np.empty(resamples)
    step = max(1, _BLOCK // x.size)
    for start in range(0, resamples, step):
        stop = min(start + step, resamples)
        out[start:stop] = x[rng.integers(0, x.size, (stop - start, x.size))].mean(axis=1)
    return out
