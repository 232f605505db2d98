"""Win rates with what length adds to them taken out (Dubois et al., 2024, Length-Controlled AlpacaEval).

The verdicts on one model against the baseline are fitted with a logistic regression,

    P(win) = logistic(theta + phi * tanh(d / s)),

where d is how many characters the model's answer is longer than the baseline's, and s the standard deviation of d over
the items. The length-controlled win rate is logistic(theta): what the model would win if all its answers were as long
as the baseline's. Ties count as half a win. Of the paper's model the term of the item's difficulty is left out: it is
estimated over many models of a leaderboard, and a recipe has a few. phi has the penalty PENALTY * phi^2 / 2, which
keeps it finite where length and verdict go together in every item.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from align.stats import Interval

RESAMPLES = 1_000
PENALTY = 0.05  # with 1, an effect of length over answers that are all longer would be taken for the model's own
_STEPS = 50
_FURTHEST = 10.0  # of theta: a model that wins everywhere wins 99.995 %
_BLOCK = 1 << 22


class Controlled(NamedTuple):
    """A length-controlled win rate with its interval."""

    win_rate: Interval
    effect: float
    """phi: the log-odds that a much longer answer adds."""


def length_controlled(
    scores: ArrayLike, longer: ArrayLike, items: Sequence[str], *, seed: int = 0, level: float = 0.95
) -> Controlled:
    """The win rate at equal length of verdicts 1, 0.5 and 0 on answers that are so many characters `longer`.

    Answers to one item of `items` weigh one together, and are resampled together: a percentile bootstrap in which every
    resample is fitted anew. Raises ValueError if there is no verdict.
    """
    y, d = np.asarray(scores, dtype=np.float64), np.asarray(longer, dtype=np.float64)
    if not y.size:
        raise ValueError("no verdict")
    names, of = np.unique(np.asarray(items), return_inverse=True)
    each = 1.0 / np.bincount(of)[of]
    spread = float(np.sqrt(np.average((d - np.average(d, weights=each)) ** 2, weights=each)))
    x = np.tanh(d / spread) if spread > 0 else np.zeros_like(d)
    theta, phi = _fit(y, x, each[None, :], 0.0, 0.0)
    rng = np.random.default_rng(seed)
    resampled: list[NDArray[np.float64]] = []
    step = max(1, _BLOCK // y.size)
    for start in range(0, RESAMPLES, step):
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), min(step, RESAMPLES - start))
        resampled.append(_fit(y, x, drawn[:, of] * each, theta[0], phi[0])[0])
    low, high = np.quantile(_logistic(np.concatenate(resampled)), [(1 - level) / 2, (1 + level) / 2])
    value = float(_logistic(theta)[0])
    return Controlled(Interval(value, float(low), float(high), len(names)), float(phi[0]))


def _fit(
    y: NDArray[np.float64], x: NDArray[np.float64], weights: NDArray[np.float64], theta0: float, phi0: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """theta and phi [R] of weighted fits [R, N], by Newton's method from theta0 and phi0."""
    theta, phi = np.full(len(weights), theta0), np.full(len(weights), phi0)
    for _ in range(_STEPS):
        p = _logistic(theta[:, None] + phi[:, None] * x)
        missed, curve = weights * (y - p), weights * p * (1 - p)
        g0, g1 = missed.sum(1), missed @ x - PENALTY * phi
        a, b, c = curve.sum(1) + 1e-9, curve @ x, curve @ (x * x) + PENALTY
        det = a * c - b * b
        move0, move1 = np.clip((c * g0 - b * g1) / det, -2, 2), np.clip((a * g1 - b * g0) / det, -2, 2)
        theta, phi = np.clip(theta + move0, -_FURTHEST, _FURTHEST), np.clip(phi + move1, -_FURTHEST, _FURTHEST)
        if max(np.abs(move0).max(), np.abs(move1).max()) < 1e-7:
            break
    return theta, phi


def _logistic(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.5 * (1 + np.tanh(z / 2))


def difference(answer: str, baseline: str) -> float:
    """How many characters longer an answer is."""
    return math.fsum((len(answer), -len(baseline)))
