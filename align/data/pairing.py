"""How graded responses of one prompt are combined into preference pairs."""

from collections.abc import Iterator, Sequence
from math import lcm
from typing import Any, Literal

import numpy as np

Strategy = Literal["best_vs_worst", "best_vs_random", "all"]


def combine(
    strategy: Strategy,
    min_margin: float,
    best: Sequence[tuple[Any, float]],
    worst: Sequence[tuple[Any, float]],
    rng: np.random.Generator,
) -> Iterator[tuple[Any, Any, float]]:
    """(chosen, rejected, margin) of responses with their scores, each combination once, used as evenly as possible."""
    best, worst = [best[i] for i in rng.permutation(len(best))], [worst[i] for i in rng.permutation(len(worst))]
    if not best or not worst:
        return
    top, bottom = max(score for _, score in best), min(score for _, score in worst)
    if strategy != "all":
        best = [r for r in best if r[1] == top]
    if strategy == "best_vs_worst":
        worst = [r for r in worst if r[1] == bottom]
    round_trip = lcm(len(best), len(worst))  # walking both lists in step, shifted by one after every round
    order = [(best[i % len(best)], worst[(i + i // round_trip) % len(worst)]) for i in range(len(best) * len(worst))]
    found = [(chosen, rejected, cs - rs) for (chosen, cs), (rejected, rs) in order if cs - rs > min_margin]
    yield from sorted(found, key=lambda p: -p[2]) if strategy == "all" else found
