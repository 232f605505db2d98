"""The best-of-n curve: what choosing by reward is worth as n grows, by an independent grader.

Where the grade falls while the reward rises, the reward is being gamed (Gao et al., 2023, overoptimization).
"""

from collections.abc import Iterator, Sequence
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align.paired import paired
from align.stats import mean_interval

Group = Sequence[tuple[float, float]]
"""Reward and grade of each response to one prompt."""


def sizes(n: int) -> list[int]:
    """1, 2, 4, ... and n itself."""
    return sorted({2**k for k in range(n.bit_length()) if 2**k <= n} | {n})


def best_of(values: Sequence[float], by: Sequence[float], n: int) -> float:
    """The expected value of the one that stands highest in `by` among n drawn without replacement of N >= n.

    The i-th of the N, from below, is highest with probability C(i - 1, n - 1) / C(N, n) (Nakano et al., 2021, WebGPT);
    those that are equal share theirs.
    """
    order = np.argsort(by, kind="stable")
    chance = np.array([comb(i, n - 1) / comb(len(by), n) for i in range(len(by))])
    ranked, kinds = np.asarray(by)[order], np.asarray(values)[order]
    for same in np.unique(ranked):
        at = ranked == same
        chance[at] = chance[at].mean()
    return float(chance @ kinds)


def curve(groups: Sequence[Group]) -> Iterator[dict[str, Any]]:
    """BEST_OF rows over prompts with as many graded responses as the commonest number has."""
    full = _full(groups)
    for n in sizes(len(full[0])) if full else ():
        rewards, grades, oracle = _expected(full, n)
        found = mean_interval(grades)
        yield {
            "n": n, "prompts": len(full), "reward": float(rewards.mean()), "grade": found.value, "low": found.low,
            "high": found.high, "oracle": float(oracle.mean()),
        }  # fmt: skip


def gamed(groups: Sequence[Group]) -> tuple[int, int] | None:
    """Two sizes, of which the larger has the higher reward and is shown to have the lower grade; None where none are.

    Each size is compared with the largest; the intervals together hold at 95 % (Bonferroni).
    """
    full = _full(groups)
    tried = sizes(len(full[0])) if full else []
    for n in tried[:-1]:
        few, many = _expected(full, n), _expected(full, tried[-1])
        verdict = paired(many[1] - few[1], level=1 - 0.05 / (len(tried) - 1)).verdict
        if verdict == "worse" and many[0].mean() > few[0].mean():
            return n, tried[-1]
    return None


def _full(groups: Sequence[Group]) -> list[Group]:
    counts = [len(g) for g in groups]
    most = max(set(counts), key=lambda c: (counts.count(c), c)) if counts else 0
    return [g[:most] for g in groups if len(g) >= most > 0]


def _expected(full: Sequence[Group], n: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Per prompt: the reward and the grade of the best of n by reward, and the grade of the best by grade."""
    split = [([r for r, _ in g], [q for _, q in g]) for g in full]
    return (
        np.array([best_of(rewards, rewards, n) for rewards, _ in split]),
        np.array([best_of(grades, rewards, n) for rewards, grades in split]),
        np.array([best_of(grades, grades, n) for _, grades in split]),
    )
