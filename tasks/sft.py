"""Supervised fine-tuning with QLoRA (Dettmers et al., 2023): a new adapter, or one more round for an existing one."""

import math
from pathlib import Path
from typing import Any, ClassVar

from align import tables
from align.config import Metrics
from align.errors import InputError, StageError
from align.models import training
from align.models.arguments import Training, arguments
from align.models.base import BaseConfig, device, load_chat, load_model, save_adapter


class SftConfig(Training):
    """Settings of sft and sft_rs."""

    TRL: ClassVar[str] = "SFTConfig"

    packing: bool = False
    """Pack rows into blocks of max_length (CUDA with flash attention only)."""

    def own(self) -> dict[str, Any]:
        prepared = {"skip_prepare_dataset": not self.packing}
        return {"packing": self.packing, "dataset_kwargs": prepared} | (
            {"max_length": self.max_length} if self.packing else {}
        )


def sft(
    config: SftConfig,
    out: Path,
    *,
    base: BaseConfig,
    rows: Path,
    adapter: Path | None = None,
    checkpoints: Path | None = None,
) -> Metrics:
    """Train on the responses of `rows` (KEPT); `adapter` is the training artifact whose adapter is continued.

    Writes adapter/, training_log.parquet and dropped.parquet. The loss covers the assistant's words and the
    end-of-turn token only. Raises StageError where a check on the template, the lengths or the base fails.
    """
    if config.packing and device() != "cuda":
        raise InputError("packing needs a GPU with flash attention; set packing to false.")
    chat = load_chat(base)
    chat.check()
    table = tables.read(rows)[: config.limit]
    if not table:
        raise StageError("There are 0 rows to train on.")
    empty = [r["row_id"] for r in table if not r["response"]]
    if empty:
        raise StageError(f"{len(empty)} rows have no response to train on, such as {empty[0]}.")
    ids = [r["row_id"] for r in table]
    examples = chat.examples([r["messages"] for r in table], [r["response"] for r in table])
    training.check_ends(chat, [e.ids[-1] for e in examples], ids)
    kept = training.within_length(ids, [len(e.ids) for e in examples], config, "rows", out)

    from datasets import Dataset

    data = Dataset.from_dict(
        {
            "input_ids": [examples[i].ids for i in kept],
            "labels": [
                [t if m else -100 for t, m in zip(examples[i].ids, examples[i].mask, strict=True)] for i in kept
            ],
            "length": [len(examples[i].ids) for i in kept],
        }
    )
    rows_of_steps = len(kept)
    if config.packing:
        rows_of_steps = math.ceil(sum(len(examples[i].ids) for i in kept) / config.max_length)
    with arguments(config, base, rows_of_steps) as args:
        from trl import SFTTrainer

        model = training.adapt(load_model(base), config, base, adapter)
        start = training.trainable(model)
        trainer = SFTTrainer(model=model, args=args, train_dataset=data, processing_class=chat.tokenizer)
        training.restore(model, start)
        log = training.run(trainer, "sft", out, config, checkpoints)
    save_adapter(model, chat, base, out)
    return {
        "rows": len(kept),
        "rows.read": len(table),
        "rows.too_long": len(table) - len(kept),
        "tokens.trained": sum(sum(examples[i].mask) for i in kept),
        **training.facts(log),
    }
