"""What the reward model says of the evaluation's answers, to see where it is being gamed. It grades nothing."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from pydantic import Field

from align import tables
from align.config import Config, Metrics
from align.errors import StageError
from align.models.base import BaseConfig
from align.models.files import read_json
from align.models.memory_inference import Batch
from align.models.reward_model import Scorer


class DiagnoseConfig(Config):
    """Settings of diagnose."""

    samples: int = Field(default=1, ge=1)
    """How many of the answers to an item, in the primary mode, are scored."""
    batch_size: Batch = "auto"
    """Sequences scored together; auto is 64, on a GPU what fits of them."""


def diagnose(config: DiagnoseConfig, out: Path, *, base: BaseConfig, rows: Path, reward: Path, graded: Path) -> Metrics:
    """Score the answers in `graded` (the artifact of evaluate) with the reward model `reward`, trained on `base`.

    `rows` (ROWS) are what was asked. Writes rewards.parquet (REWARDS); the report compares them with the grades. Raises
    StageError without an answer.
    """
    asked = {row["row_id"]: row["messages"] for row in tables.read(rows, ["row_id", "messages"], split="evaluation")}
    names = ["suite", "row_id", "model", "mode", "sample_index", "response"]
    primary = _primary(graded)
    answers = [
        a for a in tables.read(graded / "evaluations.parquet", names, mode=primary)
        if a["response"] is not None and a["sample_index"] < config.samples
    ]  # fmt: skip
    if not answers:
        raise StageError("There is no answer for the reward model to score.")
    scorer = Scorer(base, reward, config.batch_size)
    scores = scorer([asked[a["row_id"]] for a in answers], [a["response"] for a in answers], label="scoring answers")
    scored = [{k: a[k] for k in names[:-1]} | {"score": s} for a, s in zip(answers, scores, strict=True)]
    tables.write(out / "rewards.parquet", scored, tables.REWARDS)
    known: dict[str, list[float]] = defaultdict(list)
    for a in scored:
        if a["score"] is not None:
            known[f"reward.{a['suite']}.{a['model']}"].append(a["score"])
    means: Metrics = {name: sum(values) / len(values) for name, values in known.items()}
    return {"answers": len(scored), "answers.unread": sum(a["score"] is None for a in scored), "mode": primary, **means}


def _primary(graded: Path) -> str:
    told: dict[str, Any] = read_json(graded / "metrics.json", StageError)
    return str(told["primary"])
