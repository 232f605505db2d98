"""What the reward model says of the evaluation's answers, and how far policies have gone from their base to give them:
to see where the reward is being gamed. It grades nothing."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from pydantic import Field

from align import tables
from align.config import Config, Metrics
from align.errors import StageError
from align.hacking import per_token
from align.models.base import BaseConfig
from align.models.divergence import divergences
from align.models.files import read_json
from align.models.memory_inference import Batch
from align.models.reward_model import Scorer
from align.text import taken

Row = dict[str, Any]


class DiagnoseConfig(Config):
    """Settings of diagnose."""

    samples: int = Field(default=1, ge=1)
    """How many of the answers to an item, in the primary mode, are scored."""
    batch_size: Batch = "auto"
    """Sequences scored together; auto is 64, on a GPU what fits of them."""
    kl: int = Field(default=256, ge=0)
    """Items of each suite by whose sampled answers the KL of each policy to the base is estimated, chosen by hash; 0
    leaves it out. It needs evaluate.n of at least 1."""


def diagnose(
    config: DiagnoseConfig,
    out: Path,
    *,
    base: BaseConfig,
    rows: Path,
    scorer: BaseConfig,
    reward: Path,
    graded: Path,
    cache: Path | None = None,
    **policies: Path,
) -> Metrics:
    """Score the answers in `graded` (the artifact of evaluate) with the reward model `reward`, trained on `scorer`, and
    estimate how far the `policies` (adapters on `base`, by model) are from their base.

    `rows` (ROWS) are what was asked. Writes rewards.parquet (REWARDS) and divergences.parquet (DIVERGENCES, see
    align/models/divergence.py); the report compares them with the grades. Log-probabilities are kept per answer in the
    directory `cache`. Raises StageError without an answer.
    """
    asked = {row["row_id"]: row["messages"] for row in tables.read(rows, ["row_id", "messages"], split="evaluation")}
    names = ["suite", "row_id", "model", "mode", "sample_index", "response", "turn", "finish_reason"]
    primary = _primary(graded)
    every = [
        a for a in tables.read(graded / "evaluations.parquet", names)
        if a["response"] is not None and a["row_id"] in asked and a["turn"] in (None, 1)
    ]  # fmt: skip
    answers = [a for a in every if a["mode"] == primary and a["sample_index"] < config.samples]
    if not answers:
        raise StageError("There is no answer for the reward model to score.")
    scores = Scorer(scorer, reward, config.batch_size)(
        [asked[a["row_id"]] for a in answers], [a["response"] for a in answers], label="scoring answers"
    )
    scored = [{k: a[k] for k in names[:5]} | {"score": s} for a, s in zip(answers, scores, strict=True)]
    tables.write(out / "rewards.parquet", scored, tables.REWARDS)
    far = list(divergences(base, policies, asked, _sampled(every, config.kl), cache))
    tables.write(out / "divergences.parquet", far, tables.DIVERGENCES)
    known: dict[str, list[float]] = defaultdict(list)
    for a in scored:
        if a["score"] is not None:
            known[f"reward.{a['suite']}.{a['model']}"].append(a["score"])
    for a in far:
        known[f"kl.{a['suite']}.{a['model']}"].append(per_token(a))
    means: Metrics = {name: sum(values) / len(values) for name, values in known.items()}
    return {
        "answers": len(scored), "answers.unread": sum(a["score"] is None for a in scored), "answers.kl": len(far),
        "mode": primary, **means,
    }  # fmt: skip


def _sampled(answers: list[Row], most: int) -> list[Row]:
    """The first sample of `most` items of each suite, where it ended by itself: what was cut off never said its end,
    and what was not written has no reason to end."""
    first = [a for a in answers if a["mode"] == "sampled" and a["sample_index"] == 0]
    kept: set[tuple[str, str]] = set()
    for suite in dict.fromkeys(a["suite"] for a in first):
        ids = sorted({a["row_id"] for a in first if a["suite"] == suite and a["finish_reason"]})
        kept |= {(suite, ids[at]) for at in taken(ids, most, 0)}
    return [a for a in first if a["finish_reason"] == "stop" and (a["suite"], a["row_id"]) in kept]


def _primary(graded: Path) -> str:
    told: dict[str, Any] = read_json(graded / "metrics.json", StageError)
    return str(told["primary"])
