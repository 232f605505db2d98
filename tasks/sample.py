"""Drawing n responses per prompt from the current policy, for preference pairs or for rejection sampling."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from align import tables
from align.config import Metrics
from align.data.prompts import prompts_of
from align.errors import StageError
from align.models.base import BaseConfig, load_chat
from align.models.control import broken
from align.models.engine import Policy, Prompt, Sampling
from align.models.lone import about_lone
from align.text import taken

Split = Literal["sft", "preference", "rejection", "evaluation"]


class SampleConfig(Sampling):
    """Settings of sample and resample."""

    split: Split | tuple[Split, ...] = "preference"
    """The prompts to answer: those of this split, or of several."""
    use: tuple[str, ...] = ("instructions", "prompts")
    """The kinds of rows whose prompts are answered; add preferences to answer the prompts of imported pairs."""
    limit: int | None = Field(default=None, ge=1)
    """Answer only so many prompts, chosen by hash: a larger limit keeps those of a smaller one."""

    def contradictions(self) -> Iterator[str]:
        yield from super().contradictions()
        if self.temperature == 0 and self.seed and self.limit is None:
            yield "seed: has no effect at temperature 0, where nothing is random; leave it out."


def sample(
    config: SampleConfig,
    out: Path,
    *,
    base: BaseConfig,
    rows: Path,
    adapter: Path | None = None,
    cache: Path | None = None,
) -> Metrics:
    """Draw samples for the distinct prompts of a split of `rows` (ROWS); writes samples.parquet, dropped.parquet,
    and altered.parquet where prompts hold control tokens.

    Draws are kept per row in the directory `cache`, where one is given. Raises StageError if the split has no prompt,
    or none fits the model's context.
    """
    config.check()
    splits = config.split if isinstance(config.split, str) else ", ".join(config.split)
    distinct = prompts_of(rows, config.split, config.use)
    chosen = taken([r["row_id"] for r in distinct], config.limit, config.seed)
    prompts = [Prompt(distinct[at]["row_id"], distinct[at]["messages"]) for at in chosen]
    if not prompts:
        raise StageError(f"There are 0 prompts in the split {splits}.")
    chat = load_chat(base)
    lost = [(p.row_id, why) for p in prompts if (why := chat.lost(p.messages))]
    if lost:
        prompts = [p for p in prompts if p.row_id not in dict(lost)]
    too_long: list[str] = []
    with Policy(base, adapter, cache) as policy:
        samples = policy.draw(prompts, config.sampling, label=f"sampling ({splits})", too_long=too_long)
    if not samples:
        why = f"of row {lost[0][0]}, {lost[0][1]}" if lost else "none fits the model's context"
        raise StageError(f"None of the {len(prompts) + len(lost)} prompts can be answered: {why}.")
    tables.write(out / "samples.parquet", (vars(s) for s in samples), tables.SAMPLES)
    dropped = [*lost, *((i, "prompt too long") for i in too_long)]
    tables.write(out / "dropped.parquet", ({"row_id": i, "reason": why} for i, why in dropped), tables.DROPPED)
    tokens = sum(s.n_tokens for s in samples)
    return {
        "prompts": len(prompts),
        "prompts_too_long": len(too_long),
        **({"prompts_faulty": len(lost)} if lost else {}),
        "samples": len(samples),
        "tokens": tokens,
        "tokens.mean": tokens / len(samples),
        "share.truncated": sum(s.finish_reason == "truncated" for s in samples) / len(samples),
        "samples.reasoning": sum(s.reasoning is not None for s in samples),
        **broken(chat.control, [p.row_id for p in prompts], [p.messages for p in prompts], out=out),
        **about_lone(chat.lone_system, [p.messages for p in prompts]),
        "share.distinct": len({(s.row_id, s.text) for s in samples}) / len(samples),
    }
