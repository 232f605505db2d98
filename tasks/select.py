"""Rejection sampling: of n fresh responses per prompt keep the one the reward model likes best.

Beside it stands a control arm, a random response for each of the same prompts: best of n is worth something only where
it beats that.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import pstdev
from typing import Any, Literal

import numpy as np
from pydantic import Field

from align import tables
from align.config import Config, Metrics, Seed
from align.errors import StageError
from align.grading import best_of
from align.grading.grade import item_of
from align.grading.graders import AnyGrader, NoGrader, grade_all
from align.models.base import BaseConfig
from align.models.memory_inference import Batch
from align.models.reward_model import UNREAD, Scorer
from align.text import digest


class SelectConfig(Config):
    """Settings of select."""

    keep: int = Field(default=1, ge=1)
    """Responses of a prompt that are kept, the best first: 1 is best of n, more is top k."""
    combine: Literal["mean", "min", "mean_minus_sd"] = "mean"
    """What several reward models say of a response together: the mean of their rewards, the least, or the mean less
    their standard deviation (Coste et al., 2024), which trusts less where they disagree; of chain.rewards."""
    top: float = Field(default=1.0, gt=0, le=1)
    """Share of the prompts that is kept: those that stand highest by `by`."""
    by: str = Field(default="margin", pattern="^(margin|score)$")
    """What prompts are ranked by: the best score minus the prompt's mean score (margin), or the best score."""
    min_score: float | None = None
    """Keep only responses with at least this reward."""
    skip_truncated: bool = True
    """Never keep a response that was cut off at the token limit."""
    length_penalty: float = Field(default=0.0, ge=0)
    """Taken off a reward for every token of the response, before anything is ranked."""
    grader: AnyGrader = NoGrader()
    """What says how much the best of n is worth as n grows, and what an oracle would choose. It chooses nothing."""
    batch_size: Batch = "auto"
    """Sequences scored together; auto is 64, on a GPU what fits of them."""
    seed: Seed = 0
    """Seed of the control arm."""

    def contradictions(self) -> Iterator[str]:
        if self.top == 1 and self.changed("by"):
            yield "by: ranks the prompts of which top keeps a share, and top is 1; lower top, or leave it out."


def select(
    config: SelectConfig, out: Path, *, base: BaseConfig, rows: Path, samples: Path, reward: Path, **others: Path
) -> Metrics:
    """Score `samples` (SAMPLES) with the reward artifacts and keep the best responses to each prompt of `rows` (ROWS).

    `base` is what the reward models were trained on. A sample longer than that can read is ungraded and never kept.

    Writes scores.parquet (the rewards as they are: of `others` by their names, and together as reward_model),
    kept.parquet (best of n), control.parquet (random of n),
    selections.parquet and, with a grader, best_of.parquet (BEST_OF). Raises StageError if nothing is left, and for
    whatever the grader raises.
    """
    config.check()
    table = tables.read(samples)
    if not table:
        raise StageError("There are 0 samples to select from.")
    prompts = {r["row_id"]: r for r in tables.read(rows)}
    missing = sorted({s["row_id"] for s in table} - prompts.keys())
    if missing:
        raise StageError(f"{len(missing)} prompts of the samples are not among the rows, such as {missing[0]}.")
    asked = [prompts[s["row_id"]]["messages"] for s in table], [s["text"] for s in table]
    each = {
        name: Scorer(base, artifact, config.batch_size)(*asked, label="scoring samples")
        for name, artifact in {"reward_model": reward, **others}.items()
    }
    together = [combined(config.combine, values) for values in zip(*each.values(), strict=True)]
    scores = {s["sample_id"]: value for s, value in zip(table, together, strict=True) if value is not None}
    told = {"reward_model": together} | ({f"{name}_alone": each[name] for name in each} if others else {})
    tables.write(
        out / "scores.parquet",
        (
            {
                "sample_id": s["sample_id"],
                "scored_by": name,
                "score": value,
                "status": "ungraded" if value is None else "scored",
                "detail": UNREAD if value is None else None,
            }
            for name, values in told.items()
            for s, value in zip(table, values, strict=True)
        ),
        tables.SCORES,
    )

    groups: dict[str, list[tuple[float, dict[str, Any]]]] = defaultdict(list)
    for s in table:
        cut = config.skip_truncated and s["finish_reason"] == "truncated"
        if s["text"].strip() and not cut and s["sample_id"] in scores:
            groups[s["row_id"]].append((scores[s["sample_id"]] - config.length_penalty * s["n_tokens"], s))
    ranked = {p: sorted(g, key=lambda item: (-item[0], item[1]["sample_index"])) for p, g in groups.items()}
    best = {p: g[0] for p, g in ranked.items()}
    rank = {p: best[p][0] - (_mean(v for v, _ in groups[p]) if config.by == "margin" else 0.0) for p in best}
    good = {p: [r for r in g[: config.keep] if config.min_score is None or r[0] >= config.min_score]
            for p, g in ranked.items()}  # fmt: skip
    passed = [p for p in best if good[p]]
    passed.sort(key=lambda p: (-rank[p], p))
    kept = set(passed[: max(1, round(config.top * len(passed)))])
    if not kept:
        raise StageError(f"None of {len(table)} responses was kept; lower min_score or raise sample.max_new_tokens.")
    arms = {
        "best": {p: good[p] for p in groups if p in kept},
        "random": {p: _random(config.seed, p, groups[p], len(good[p])) for p in groups if p in kept},
    }
    for arm, name in (("best", "kept.parquet"), ("random", "control.parquet")):
        chosen = ((prompts[p], s["text"]) for p, of in arms[arm].items() for _, s in of)
        tables.write(out / name, (row | {"response": text, "calls": False} for row, text in chosen), tables.KEPT)
    tables.write(
        out / "selections.parquet",
        (
            {"row_id": p, "sample_id": s["sample_id"], "arm": arm}
            for arm, of in arms.items() for p, chosen in of.items() for _, s in chosen
        ),
        tables.SELECTIONS,
    )  # fmt: skip
    eligible = sum(len(g) for g in groups.values())
    graded = _curve(config, out, prompts, list(groups.values())) if config.grader.kind != "none" else {}
    return {
        **graded,
        "samples": len(table),
        "samples.eligible": eligible,
        "samples.unread": len(table) - len(scores),
        "samples.truncated": sum(s["finish_reason"] == "truncated" for s in table),
        "prompts": len({s["row_id"] for s in table}),
        "prompts.kept": len(kept),
        "score.mean": _mean(scores.values()),
        "score.best": _mean(v for of in arms["best"].values() for v, _ in of),
        "score.random": _mean(v for of in arms["random"].values() for v, _ in of),
        "share.same": _mean(r in arms["random"][p] for p in kept for r in arms["best"][p]),
        **({"rewards.apart": _mean(map(_apart, zip(*each.values(), strict=True)))} if others else {}),
    }


def _curve(
    config: SelectConfig, out: Path, prompts: dict[str, Any], groups: list[list[tuple[float, dict[str, Any]]]]
) -> dict[str, float]:
    """Write best_of.parquet; what it says at its ends, and from which n the reward is gamed, if any."""
    listed = [(v, s) for group in groups for v, s in group]
    grades = iter(grade_all(config.grader, [item_of(prompts[s["row_id"]], s["text"]) for _, s in listed]))
    known = [[(v, g.score) for v, _ in group if (g := next(grades)).score is not None] for group in groups]
    found = list(best_of.curve(known))
    tables.write(out / "best_of.parquet", found, tables.BEST_OF)
    if not found:
        return {}
    last = found[-1]
    over = best_of.gamed(known)
    metrics = {"best_of.n": last["n"], "grade.random": found[0]["grade"], "grade.best": last["grade"]}
    return metrics | {"grade.oracle": last["oracle"], "best_of.gamed_from": over[0] if over else 0}


def combined(how: str, values: Sequence[float | None]) -> float | None:
    """What several rewards of one response are together; None where one is missing."""
    known = [v for v in values if v is not None]
    if len(known) < len(values):
        return None
    if how == "min":
        return min(known)
    return _mean(known) - (_apart(known) if how == "mean_minus_sd" else 0.0)


def _apart(values: Sequence[float | None]) -> float:
    """The standard deviation of several rewards of one response; 0 where one is missing."""
    known = [v for v in values if v is not None]
    return pstdev(known) if len(known) == len(values) else 0.0


def _random(seed: int, row_id: str, group: list[tuple[float, Any]], n: int) -> list[tuple[float, Any]]:
    """n of the group, by a hash of seed and prompt."""
    start = int(digest(str(seed), row_id), 16)
    if n == 1:
        return [group[start % len(group)]]
    return [group[i] for i in np.random.default_rng(start).permutation(len(group))[:n]]


def _mean(values: Any) -> float:
    listed = list(values)
    return float(sum(listed) / len(listed))
