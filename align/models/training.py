"""What sft, reward and dpo share: their settings, the arguments for trl, the adapter, the log, and the final save."""

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from align import tables
from align.config import Config, Seed
from align.errors import InputError, StageError
from align.models.base import BaseConfig, check_policy, compute_dtype, device
from align.models.chat import Chat
from align.models.files import adapter_shape, attach
from align.models.finite import check_end, watch
from align.progress import Progress

Dropped = tuple[str, str, int | None]  # row or pair id, reason, tokens

LOGGED = 100  # entries that a training log aims for


class LoraSettings(Config):
    """Shape of a new adapter (LoRA, Hu et al., 2021)."""

    r: int = Field(default=16, ge=1, le=65_536)
    """Rank."""
    alpha: int = Field(default=16, ge=1)
    """Scale: the update is multiplied by alpha / r."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""
    target: str | tuple[str, ...] = "all-linear"
    """Layers to adapt: all-linear, or names such as q_proj."""


class Training(Config):
    """Settings of every training stage."""

    lr: float = Field(default=2e-4, gt=0)
    """Peak learning rate."""
    epochs: float = Field(default=1.0, gt=0, le=1e6)
    """Passes over the data."""
    batch_size: int = Field(default=16, ge=1, le=1_000_000)
    """Rows (or pairs) in a forward pass."""
    grad_accum: int = Field(default=1, ge=1, le=1_000_000)
    """Forward passes per optimiser step."""
    max_length: int = Field(default=1024, ge=8)
    """Longest row in tokens, prompt and response together; longer rows are dropped and counted."""
    max_truncated_share: float = Field(default=0.05, ge=0, le=1)
    """Share of rows that may be dropped for their length before the stage fails."""
    warmup: float = Field(default=0.03, ge=0, lt=1)
    """Share of the steps over which the learning rate rises."""
    scheduler: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    """Course of the learning rate after the warm-up."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's weight decay."""
    optimizer: str = "auto"
    """An optimiser that transformers knows; auto is paged_adamw_8bit on CUDA and adamw_torch_fused on a CPU."""
    gradient_checkpointing: Literal["auto", "on", "off"] = "auto"
    """Recompute activations to save memory: auto is on with CUDA and off on a CPU."""
    lora: LoraSettings | None = None
    """Shape of a new adapter; where an adapter is continued its own shape stays."""
    limit: int | None = Field(default=None, ge=1)
    """Use only the first so many rows."""
    seed: Seed = 0
    """Seed of shuffling, initialisation and dropout."""


def steps_of(config: Training, n: int) -> int:
    """Optimiser steps over n rows. Raises StageError if there are none."""
    per_epoch = math.ceil(math.ceil(n / config.batch_size) / config.grad_accum)
    steps = math.ceil(per_epoch * config.epochs)
    if n == 0 or steps == 0:
        raise StageError("Nothing to train on: 0 rows are left after the checks, so there would be 0 steps.")
    return steps


@contextmanager
def arguments(config: Training, base: BaseConfig, n: int) -> Iterator[dict[str, Any]]:
    """Keyword arguments for a trl config over n rows; they write to a temporary directory that is gone afterwards."""
    import torch

    cuda, steps = device() == "cuda", steps_of(config, n)
    checkpointing = config.gradient_checkpointing
    with tempfile.TemporaryDirectory() as folder:
        yield {
            "output_dir": folder,
            "learning_rate": config.lr,
            "num_train_epochs": config.epochs,
            "per_device_train_batch_size": config.batch_size,
            "gradient_accumulation_steps": config.grad_accum,
            "warmup_steps": math.ceil(config.warmup * steps),
            "lr_scheduler_type": config.scheduler,
            "max_grad_norm": config.max_grad_norm,
            "weight_decay": config.weight_decay,
            "optim": config.optimizer
            if config.optimizer != "auto"
            else ("paged_adamw_8bit" if cuda else "adamw_torch_fused"),
            "gradient_checkpointing": cuda if checkpointing == "auto" else checkpointing == "on",
            "train_sampling_strategy": "group_by_length",
            "remove_unused_columns": False,  # the sampler reads the column length
            "bf16": compute_dtype(base) == torch.bfloat16,
            "use_cpu": not cuda,
            "dataloader_pin_memory": cuda,
            "logging_steps": max(1, steps // LOGGED),
            "logging_first_step": True,
            "logging_nan_inf_filter": False,  # it would log the average of earlier losses in place of a NaN
            "save_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
            "seed": config.seed,
            "max_length": None,
        }


def within_length(
    ids: Sequence[str],
    lengths: Sequence[int],
    config: Training,
    what: str,
    out: Path,
    faulty: Sequence[Dropped] = (),
) -> list[int]:
    """Positions of the rows that are at most `max_length` tokens long; the others go to dropped.parquet.

    So do `faulty` rows. Raises StageError if more than `max_truncated_share` of the rows are longer.
    """
    kept = [i for i, n in enumerate(lengths) if n <= config.max_length]
    long = [i for i, n in enumerate(lengths) if n > config.max_length]
    write_dropped(out, [*faulty, *((ids[i], "too long", lengths[i]) for i in long)])
    share = len(long) / max(1, len(lengths))
    if share > config.max_truncated_share:
        raise StageError(
            f"{len(long)} of {len(lengths)} {what} ({share:.0%}) are longer than max_length = {config.max_length} "
            f"tokens, more than max_truncated_share = {config.max_truncated_share:.0%} allows; raise one of them."
        )
    return kept


def write_dropped(out: Path, dropped: Sequence[Dropped]) -> int:
    """Write dropped.parquet."""
    return tables.write(
        out / "dropped.parquet",
        ({"row_id": i, "reason": reason, "n_tokens": n} for i, reason, n in dropped),
        tables.DROPPED,
    )


def adapt(model: Any, config: Training, base: BaseConfig, adapter: Path | None, *, head: str | None = None) -> Any:
    """`model` with a trainable fp32 LoRA adapter: a new one, or a copy of the one in `<adapter>/adapter`.

    `head` names a module that is trained and saved whole. Raises StageError if the adapter has another base, or is
    damaged.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(config.seed)
    task = "SEQ_CLS" if head else "CAUSAL_LM"
    if adapter is None:
        lora = config.lora or LoraSettings()
        shape: Any = LoraConfig(
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.target if isinstance(lora.target, str) else list(lora.target),
            modules_to_save=[head] if head else None,
            task_type=task,
        )
        return _full_precision(get_peft_model(model, shape))
    check_policy(base, adapter)
    shape = adapter_shape(adapter)
    if config.lora is not None and (config.lora.r, config.lora.alpha) != (shape.r, shape.lora_alpha):
        raise InputError(
            f"lora asks for r {config.lora.r}, alpha {config.lora.alpha}, but the adapter that is continued has "
            f"r {shape.r}, alpha {shape.lora_alpha}; leave lora out."
        )
    shape.task_type, shape.inference_mode, shape.modules_to_save = task, False, [head] if head else None
    return _full_precision(attach(model, adapter, shape, new_head=head))


def _full_precision(model: Any) -> Any:
    """The model with its trainable parameters in fp32."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


def trainable(model: Any) -> dict[str, Any]:
    """Copies of the trainable parameters, by name."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def restore(model: Any, values: dict[str, Any]) -> None:
    """Put the parameters' values and types back: trl has rounded an adapter on a quantised base to bf16.

    In bf16 an update of less than 0.4 % of a weight is lost, and a matrix product on a CPU is many times slower.
    On CUDA the fp32 adapter computes in bf16 under autocast.
    """
    for name, parameter in model.named_parameters():
        if name in values:
            parameter.data = values[name]


def run(trainer: Any, label: str, out: Path) -> list[dict[str, float]]:
    """Train; writes training_log.parquet and returns the log, one dict per entry.

    Raises StageError on 0 steps, and where the loss, a gradient or a weight is not finite (models.finite).
    """
    from transformers import PrinterCallback, TrainerCallback

    class Bar(TrainerCallback):
        progress: Progress

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.progress = Progress(state.max_steps, label)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.progress.advance()

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.progress.close()

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Bar)
    watch(trainer, label)
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    if trainer.state.global_step == 0 or not log:
        raise StageError("The trainer made 0 steps.")
    check_end(trainer, label)
    tables.write(
        out / "training_log.parquet",
        (
            {"step": entry["step"], "name": name, "value": float(value)}
            for entry in log
            for name, value in sorted(entry.items())
            if name not in ("step", "epoch") and isinstance(value, int | float)
        ),
        tables.TRAINING_LOG,
    )
    return log


def facts(log: list[dict[str, float]]) -> dict[str, float | int]:
    """The metrics that every training stage reports."""
    tail = [entry["loss"] for entry in log[-max(1, len(log) // 10) :]]
    return {
        "steps": int(log[-1]["step"]),
        "loss.first": float(log[0]["loss"]),
        "loss.final": sum(tail) / len(tail),
        "tokens": int(log[-1].get("num_tokens", 0)),
    }


def check_ends(chat: Chat, last: Sequence[int], ids: Sequence[str]) -> None:
    """StageError unless every row's last trained token is the end-of-turn token."""
    wrong = [i for i, token in zip(ids, last, strict=True) if token != chat.end_id]
    if wrong:
        raise StageError(f"The end-of-turn token of {len(wrong)} rows is not trained on, such as {wrong[0]}.")
