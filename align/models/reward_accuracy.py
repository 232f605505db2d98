"""How often a reward model is right on held-out pairs, by source and category: an average hides gaps."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from align.config import Metrics
from align.stats import mean_interval

Row = Mapping[str, Any]


def accuracies(held: Sequence[Row], prompts: Sequence[str]) -> Iterator[dict[str, Any]]:
    """REWARD_ACCURACY rows of HELD_OUT rows, whose prompts are `prompts`: all, then each source, then each category.

    The unit of the interval is the prompt: pairs of one prompt are averaged first.
    """
    groups: dict[tuple[str, str | None], list[int]] = defaultdict(list)
    for at, row in enumerate(held):
        groups["all", None].append(at)
        for by in ("source", "category"):
            if row[by] is not None:
                groups[by, row[by]].append(at)
    order = ("all", "source", "category")
    for (by, name), members in sorted(groups.items(), key=lambda g: (order.index(g[0][0]), g[0][1] or "")):
        right: dict[str, list[float]] = defaultdict(list)
        for at in members:
            a, b = held[at]["chosen_score"], held[at]["rejected_score"]
            right[prompts[at]].append((a > b) + 0.5 * (a == b))
        found = mean_interval([sum(some) / len(some) for some in right.values()])
        margin = sum(held[at]["chosen_score"] - held[at]["rejected_score"] for at in members) / len(members)
        yield {
            "by": by, "name": name, "pairs": len(members), "prompts": found.n, "accuracy": found.value,
            "low": found.low, "high": found.high, "margin": margin,
        }  # fmt: skip


def about(rows: Sequence[Row]) -> Metrics:
    """The accuracies of sources and categories as metrics, where there are several."""
    metrics: Metrics = {}
    for by in ("source", "category"):
        some = [r for r in rows if r["by"] == by]
        for r in some if len(some) > 1 else ():
            at = f"accuracy.held_out.{by}.{r['name']}"
            metrics |= {at: r["accuracy"], f"{at}.low": r["low"], f"{at}.high": r["high"], f"{at}.pairs": r["pairs"]}
    return metrics
