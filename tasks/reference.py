"""Log-probabilities of the pairs under the policy that DPO starts from: its reference, computed once for a sweep."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from align import tables
from align.config import EXECUTION, Config, Metrics, Seed
from align.errors import StageError
from align.models.base import BaseConfig, load_chat
from align.models.finite import is_finite
from align.models.logps import logps
from align.models.pairs import encode
from align.models.reference import facts_of, write
from align.models.trained import unmerged


class ReferenceConfig(Config):
    """Settings of reference: those of dpo that decide which pairs there are, and how many are scored at a time."""

    max_length: int = Field(default=1024, ge=8)
    """Longest pair in tokens; longer ones are dropped and counted."""
    max_truncated_share: float = Field(default=0.05, ge=0, le=1)
    """Share of pairs that may be dropped for their length before the stage fails."""
    limit: int | None = Field(default=None, ge=1)
    """Use only the first so many pairs."""
    seed: Seed = 0
    """Seed of which pairs a limit takes."""
    batch_size: Annotated[int, EXECUTION] = Field(default=32, ge=1)
    """Sequences scored together; no number depends on it beyond rounding, so it is no part of the key."""


def reference(config: ReferenceConfig, out: Path, *, base: BaseConfig, pairs: Path, adapter: Path) -> Metrics:
    """Score the pairs (PAIRS), held out or not, under the adapter of the artifact `adapter` on the quantised base.

    Writes reference.parquet, reference.json (what it belongs to) and dropped.parquet. Raises StageError where a
    log-probability is not finite, or the adapter is no policy of this base.
    """
    from trl.trainer.utils import add_fused_lm_head

    chat = load_chat(base)
    chat.check()
    every, counts = encode(chat, tables.read(pairs), config, out)
    model = unmerged(base, adapter)
    add_fused_lm_head(model.get_base_model() if base.adapter == "lora" else model)
    values = logps(model, every, chat.pad_id, batch_size=config.batch_size, label="reference")
    if not is_finite(values):
        raise StageError(
            f"The adapter {adapter.name} gives pairs no finite log-probabilities; train it again with a lower "
            "learning_rate."
        )
    write(out, every, values, facts_of(chat, pairs, adapter))
    return {
        "pairs": len(every),
        **counts,
        "logps.chosen": float(values[:, 0].mean()),
        "logps.rejected": float(values[:, 1].mean()),
    }
