"""The settings of a training stage, under trl's own names, and the arguments that trl's trainer gets from them."""

import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Literal, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from align.config import EXECUTION, Config, Seed
from align.errors import InputError, StageError
from align.models import tracking
from align.models.base import BaseConfig, compute_dtype
from align.models.device import device
from align.models.shards import size
from align.models.tracking import Tracker
from align.text import quote, short

LOGGED = 100  # entries that a training log aims for


class LoraSettings(Config):
    """Shape of a new adapter (LoRA, Hu et al., 2021), in PEFT's names."""

    r: int = Field(default=16, ge=1, le=65_536)
    """Rank."""
    lora_alpha: int = Field(default=16, ge=1)
    """Scale: the update is multiplied by lora_alpha / r."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """Layers to adapt: all-linear, or names such as q_proj."""
    use_rslora: bool = False
    """Scale by lora_alpha / sqrt(r) instead, so that large ranks learn too (rsLoRA, Kalajdzievski, 2023)."""
    use_dora: bool = False
    """Learn a length for each row of a weight beside its direction (DoRA, Liu et al., 2024); slower."""


class Training(Config):
    """Settings of every training stage; those that trl has too bear its names."""

    TRL: ClassVar[str]
    """trl's class of arguments."""

    learning_rate: float = Field(default=2e-4, gt=0)
    """Peak learning rate."""
    num_train_epochs: float = Field(default=1.0, gt=0, le=1e6)
    """Passes over the data."""
    per_device_train_batch_size: int = Field(default=16, ge=1, le=1_000_000)
    """Rows (or pairs) in a forward pass; processes that share a training share the rows of a step."""
    gradient_accumulation_steps: int = Field(default=1, ge=1, le=1_000_000)
    """Forward passes per optimiser step."""
    max_length: int = Field(default=1024, ge=8)
    """Longest row in tokens, prompt and response together; longer rows are dropped and counted."""
    max_truncated_share: float = Field(default=0.05, ge=0, le=1)
    """Share of rows that may be dropped for their length before the stage fails."""
    warmup_steps: float = Field(default=0.03, ge=0)
    """Steps over which the learning rate rises; below 1 a share of all steps."""
    lr_scheduler_type: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    """Course of the learning rate after the warm-up."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's weight decay."""
    optim: str = "auto"
    """An optimiser that transformers knows; auto is paged_adamw_8bit on CUDA and adamw_torch_fused on a CPU."""
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    """Recompute activations to save memory: auto is true with CUDA and false on a CPU."""
    lora: LoraSettings | None = None
    """Shape of a new adapter; where an adapter is continued its own shape stays."""
    torch_compile: bool = False
    """Compile the model (torch.compile): faster steps after minutes of compiling; needs a C compiler."""
    report_to: Annotated[tuple[Tracker, ...], EXECUTION] = ()
    """Trackers that get the losses while they come, into the folder tracking of the store."""
    limit: int | None = Field(default=None, ge=1)
    """Use only so many rows (or pairs), chosen by hash: a larger limit keeps those of a smaller one."""
    seed: Seed = 0
    """Seed of shuffling, initialisation, dropout, and of which rows a limit takes."""
    save_minutes: Annotated[float, EXECUTION] = Field(default=10.0, ge=0)
    """Minutes between checkpoints, from which a training goes on that was killed or cancelled; 0: none by time."""
    save_steps: Annotated[int | None, EXECUTION] = Field(default=None, ge=1)
    """Steps between checkpoints, beside those by time."""
    extra: dict[str, Any] = {}
    """Further arguments of trl's class for this stage (SFTConfig, RewardConfig, DPOConfig, KTOConfig) by its names."""

    @property
    def trl(self) -> str:
        """trl's class of arguments for these settings."""
        return self.TRL

    def own(self) -> dict[str, Any]:
        """The arguments that only this stage's trainer has."""
        return {}


def steps_of(config: Training, n: int) -> int:
    """Optimiser steps over n rows. Raises StageError if there are none."""
    per_epoch = math.ceil(math.ceil(n / config.per_device_train_batch_size) / config.gradient_accumulation_steps)
    steps = math.ceil(per_epoch * config.num_train_epochs)
    if n == 0 or steps == 0:
        raise StageError("Nothing to train on: 0 rows are left after the checks, so there would be 0 steps.")
    return steps


@contextmanager
def arguments(config: Training, base: BaseConfig, n: int) -> Iterator[Any]:
    """trl's arguments for n rows; what is written to their directory is gone afterwards.

    Raises InputError where `extra` names what trl does not know, or what is set here, or holds a wrong value.
    """
    import trl

    kind = getattr(trl, config.trl)
    with tempfile.TemporaryDirectory() as folder:
        given = {**_common(config, base, steps_of(config, n)), **config.own(), "output_dir": folder}
        given = {name: value for name, value in given.items() if name != "max_length" or name in get_type_hints(kind)}
        extra = _extra(kind, config, given)
        try:
            found = kind(**given, **extra)
        except (ValueError, TypeError, ImportError, RuntimeError) as error:
            if not extra:
                raise
            raise InputError(f"extra: trl's {config.trl} refuses it ({short(error, 300)})") from None
        yield found


def share(rows: int, passes: int, processes: int) -> tuple[int, int]:
    """Rows of a pass and passes of a step for each of several processes, so that a step has the same rows as in one.

    Raises InputError where they cannot be shared evenly.
    """
    common = math.gcd(passes, processes)
    if rows % (processes // common):
        raise InputError(
            f"{processes} processes cannot share the {rows * passes} rows of a step evenly; let "
            "per_device_train_batch_size * gradient_accumulation_steps be a multiple, or set compute.processes."
        )
    return rows // (processes // common), passes // common


def _common(config: Training, base: BaseConfig, steps: int) -> dict[str, Any]:
    import torch

    rows, passes = config.per_device_train_batch_size, config.gradient_accumulation_steps
    processes = size()
    rows, passes = share(rows, passes, processes)

    cuda = device() == "cuda"
    auto = {"optim": "paged_adamw_8bit" if cuda else "adamw_torch_fused", "gradient_checkpointing": cuda}
    named = {name: getattr(config, name) for name in NAMED}
    return {
        **{name: auto[name] if value == "auto" else value for name, value in named.items()},
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": passes,
        **({"ddp_find_unused_parameters": False, "ddp_backend": None if cuda else "gloo"} if processes > 1 else {}),
        "train_sampling_strategy": "sequential",  # models.order decides; trl's KTO takes no other
        "remove_unused_columns": False,  # models.order reads the column length
        "bf16": compute_dtype(base) == torch.bfloat16,
        "fp16": compute_dtype(base) == torch.float16,
        "use_cpu": not cuda,
        "dataloader_pin_memory": cuda,
        "logging_steps": max(1, steps // LOGGED),
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # it would log the average of earlier losses in place of a NaN
        "save_strategy": "no",
        **tracking.arguments(config.report_to),
        "disable_tqdm": True,
        "max_length": None,
    }


NAMED = (
    "learning_rate", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps", "warmup_steps",
    "lr_scheduler_type", "max_grad_norm", "weight_decay", "optim", "gradient_checkpointing", "seed",
    "torch_compile",
)  # fmt: skip


def _extra(kind: Any, config: Training, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of config.extra as `kind` has them. Raises InputError with a line per mistake."""
    types, wrong, found = get_type_hints(kind), [], {}
    for name, value in config.extra.items():
        if name in given:
            key = "the key of that name" if name in type(config).model_fields else "the stage itself"
            wrong.append(f"extra.{name}: is set by {key}; leave it out.")
        elif name not in types or name.startswith("_"):
            near = get_close_matches(name, [t for t in types if t not in given], 1)
            hint = f"did you mean {near[0]}?" if near else "its documentation lists what there is."
            wrong.append(f"extra.{short(name)}: trl's {kind.__name__} has no such argument; {hint}")
        else:
            try:
                adapter = TypeAdapter(types[name], config=ConfigDict(arbitrary_types_allowed=True))
                found[name] = adapter.validate_python(value)
            except ValidationError as error:
                told = error.errors(include_url=False)[0]["msg"]
                wrong.append(f"extra.{name}: {told[0].lower()}{told[1:]} (got {quote(value)}).")
    if wrong:
        raise InputError("\n".join(wrong))
    return found
