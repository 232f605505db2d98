"""How far people agree: what each said, and for every two of them the share and Cohen's kappa of shared pairs."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

from align.labelling.labels import Judged
from align.stats import preference_kappa, wilson


@dataclass(frozen=True)
class Agreement:
    """Two people on the pairs that both judged and neither skipped."""

    one: str
    other: str
    pairs: int
    agreement: float | None
    """Share of the pairs on which they say the same, ties among it; None where they share no pair."""
    low: float | None
    """Lower end of its 95 % interval."""
    high: float | None
    """Upper end."""
    kappa: float | None
    """Cohen's; None where it is not defined."""


def agreements(lines: Iterable[Judged]) -> list[Agreement]:
    """Every two of the people who judged something, by name."""
    said: dict[str, dict[str, str]] = {}
    for line in lines:
        for v in line.verdicts:
            if v.winner != "skip":
                said.setdefault(v.by, {})[line.pair_id] = v.winner
    return [_of(one, other, said[one], said[other]) for one, other in combinations(sorted(said), 2)]


def _of(one: str, other: str, first: dict[str, str], second: dict[str, str]) -> Agreement:
    both = [(first[i], second[i]) for i in sorted(first.keys() & second.keys())]
    if not both:
        return Agreement(one, other, 0, None, None, None, None)
    share = wilson(sum(a == b for a, b in both), len(both))
    return Agreement(one, other, len(both), share.value, share.low, share.high, preference_kappa(both))


def totals(lines: Iterable[Judged]) -> dict[str, dict[str, int]]:
    """By name what each person said: preferred, tie, skip."""
    counts: dict[str, Counter[str]] = {}
    for line in lines:
        for v in line.verdicts:
            what = v.winner if v.winner in ("tie", "skip") else "preferred"
            counts.setdefault(v.by, Counter())[what] += 1
    return {name: {w: counts[name][w] for w in ("preferred", "tie", "skip")} for name in sorted(counts)}
