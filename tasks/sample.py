"""Drawing n responses per prompt from the current policy, for preference pairs or for rejection sampling."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from align import tables
from align.config import Config
from align.errors import StageError
from align.models.base import BaseConfig
from align.models.generate import Prompt, generate
from align.models.training import write_dropped
from align.text import normalise


class SampleConfig(Config):
    """Settings of sample and resample."""

    split: Literal["sft", "preference", "rejection", "evaluation"] = "preference"
    """The prompts to answer: those of this split."""
    use: tuple[str, ...] = ("instructions", "prompts")
    """The kinds of rows whose prompts are answered; add preferences to answer the prompts of imported pairs."""
    n: int = Field(default=8, ge=1)
    """Samples per prompt."""
    temperature: float = Field(default=0.8, ge=0)
    """Softmax temperature; 0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus: draw from the most likely tokens that hold this much of the mass."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Longest response in tokens."""
    batch_size: int = Field(default=256, ge=1)
    """Sequences that are drawn together."""
    limit: int | None = Field(default=None, ge=1)
    """Answer only the first so many prompts."""
    seed: int = 0
    """Seed; sample i of a prompt depends on it, the prompt and i alone."""


def sample(
    config: SampleConfig, out: Path, *, base: BaseConfig, rows: Path, adapter: Path | None = None
) -> dict[str, float | int | str]:
    """Draw samples for the distinct prompts of a split of `rows` (ROWS); writes samples.parquet, dropped.parquet.

    Raises StageError if the split has no prompt, or none fits the model's context.
    """
    first: dict[str, Prompt] = {}
    for row in tables.read(rows, columns=["row_id", "use", "messages"], split=config.split):
        if row["use"] in config.use:
            key = "\0".join(normalise(m["content"]) for m in row["messages"])
            first.setdefault(key, Prompt(row["row_id"], row["messages"]))
    prompts = list(first.values())[: config.limit]
    if not prompts:
        raise StageError(f"There are 0 prompts in the split {config.split}.")
    too_long: list[str] = []
    samples = generate(
        base,
        adapter,
        prompts,
        n=config.n,
        temperature=config.temperature,
        top_p=config.top_p,
        max_new_tokens=config.max_new_tokens,
        batch_size=config.batch_size,
        seed=config.seed,
        label=f"sampling ({config.split})",
        too_long=too_long,
    )
    if not samples:
        raise StageError(f"None of the {len(prompts)} prompts fits the model's context.")
    tables.write(out / "samples.parquet", (vars(s) for s in samples), tables.SAMPLES)
    write_dropped(out, [(i, "prompt too long", None) for i in too_long])
    tokens = sum(s.n_tokens for s in samples)
    return {
        "prompts": len(prompts),
        "prompts_too_long": len(too_long),
        "samples": len(samples),
        "tokens": tokens,
        "tokens.mean": tokens / len(samples),
        "share.length": sum(s.finish_reason == "length" for s in samples) / len(samples),
        "share.distinct": len({(s.prompt_id, s.text) for s in samples}) / len(samples),
    }
