"""Rejection sampling: of n fresh responses per prompt keep the one the reward model likes best.

Beside it stands a control arm, a random response for each of the same prompts: best of n is worth something only where
it beats that.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from align import tables
from align.config import Config, Metrics, Seed
from align.errors import StageError
from align.grading import best_of
from align.grading.grade import item_of
from align.grading.graders import AnyGrader, NoGrader, grade_all
from align.models.base import BaseConfig
from align.models.memory_inference import Batch
from align.models.reward_model import load_reader, load_reward, score
from align.text import digest


class SelectConfig(Config):
    """Settings of select."""

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


def select(config: SelectConfig, out: Path, *, base: BaseConfig, rows: Path, samples: Path, reward: Path) -> Metrics:
    """Score `samples` (SAMPLES) with the reward artifact and keep the best response of each prompt of `rows` (ROWS).

    `base` is what the reward model was trained on. A sample longer than that can read is ungraded and never kept.

    Writes scores.parquet (the rewards as they are), kept.parquet (best of n), control.parquet (random of n),
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
    chat = load_reader(base)
    chat.check()
    lost = {p: why for p in {s["row_id"] for s in table} if (why := chat.lost(prompts[p]["messages"], ""))}
    read = [s for s in table if s["row_id"] not in lost]
    examples = chat.examples([prompts[s["row_id"]]["messages"] for s in read], [s["text"] for s in read])
    model, kind = load_reward(base, reward)
    fits = [i for i, e in enumerate(examples) if len(e.ids) <= chat.room]
    found = score(model, kind, chat, [examples[i] for i in fits], batch_size=config.batch_size, label="scoring samples")
    scores = {read[i]["sample_id"]: value for i, value in zip(fits, found, strict=True)}
    too_long = f"longer than the {chat.room} tokens that can be read"
    tables.write(
        out / "scores.parquet",
        (
            {
                "sample_id": s["sample_id"],
                "scored_by": "reward_model",
                "score": scores.get(s["sample_id"]),
                "status": "scored" if s["sample_id"] in scores else "ungraded",
                "detail": None if s["sample_id"] in scores else lost.get(s["row_id"], too_long),
            }
            for s in table
        ),
        tables.SCORES,
    )

    groups: dict[str, list[tuple[float, dict[str, Any]]]] = defaultdict(list)
    for s in table:
        cut = config.skip_truncated and s["finish_reason"] == "truncated"
        if s["text"].strip() and not cut and s["sample_id"] in scores:
            groups[s["row_id"]].append((scores[s["sample_id"]] - config.length_penalty * s["n_tokens"], s))
    best = {p: max(g, key=lambda item: (item[0], -item[1]["sample_index"])) for p, g in groups.items()}
    rank = {p: best[p][0] - (_mean(v for v, _ in groups[p]) if config.by == "margin" else 0.0) for p in best}
    passed = [p for p in best if config.min_score is None or best[p][0] >= config.min_score]
    passed.sort(key=lambda p: (-rank[p], p))
    kept = set(passed[: max(1, round(config.top * len(passed)))])
    if not kept:
        raise StageError(f"None of {len(table)} responses was kept; lower min_score or raise sample.max_new_tokens.")
    arms = {
        "best": {p: best[p] for p in groups if p in kept},
        "random": {p: _random(config.seed, p, groups[p]) for p in groups if p in kept},
    }
    for arm, name in (("best", "kept.parquet"), ("random", "control.parquet")):
        tables.write(
            out / name,
            (prompts[p] | {"response": s["text"], "calls": False} for p, (_, s) in arms[arm].items()),
            tables.KEPT,
        )
    tables.write(
        out / "selections.parquet",
        (
            {"row_id": p, "sample_id": s["sample_id"], "arm": arm}
            for arm, chosen in arms.items()
            for p, (_, s) in chosen.items()
        ),
        tables.SELECTIONS,
    )
    eligible = sum(len(g) for g in groups.values())
    graded = _curve(config, out, prompts, list(groups.values())) if config.grader.kind != "none" else {}
    return {
        **graded,
        "samples": len(table),
        "samples.eligible": eligible,
        "samples.too_long": len(read) - len(fits),
        "samples.truncated": sum(s["finish_reason"] == "truncated" for s in table),
        "prompts": len({s["row_id"] for s in table}),
        "prompts.kept": len(kept),
        "score.mean": _mean(found),
        "score.best": _mean(v for v, _ in arms["best"].values()),
        "score.random": _mean(v for v, _ in arms["random"].values()),
        "share.same": _mean(arms["best"][p][1] is arms["random"][p][1] for p in kept),
    }


def _curve(
    config: SelectConfig, out: Path, prompts: dict[str, Any], groups: list[list[tuple[float, dict[str, Any]]]]
) -> dict[str, float]:
    """Write best_of.parquet; what it says at its ends, and from which n the reward is gamed, if any."""
    listed = [(v, s) for group in groups for v, s in group]
    grades = iter(grade_all(config.grader, [item_of(prompts[s["row_id"]], s["text"]) for _, s in listed]))
    known = [[(v, g.score) for v, _ in group if (g := next(grades)).score is not None] for group in groups]
    found = list(best_of.curve(known, config.seed))
    tables.write(out / "best_of.parquet", found, tables.BEST_OF)
    if not found:
        return {}
    last = found[-1]
    over = best_of.gamed(known, config.seed)
    metrics = {"best_of.n": last["n"], "grade.random": found[0]["grade"], "grade.best": last["grade"]}
    return metrics | {"grade.oracle": last["oracle"], "best_of.gamed_from": over[0] if over else 0}


def _random(seed: int, row_id: str, group: list[tuple[float, dict[str, Any]]]) -> tuple[float, dict[str, Any]]:
    """One of the group, by a hash of seed and prompt."""
    return group[int(digest(str(seed), row_id), 16) % len(group)]


def _mean(values: Any) -> float:
    listed = list(values)
    return float(sum(listed) / len(listed))
