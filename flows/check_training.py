"""What is wrong with the settings of training stages, alone and beside the stage whose adapter it continues."""

import re
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from align.errors import InputError
from align.models.arguments import LoraSettings, Training, arguments, share
from align.models.base import BaseConfig
from align.models.tracking import missing
from align.text import quote
from flows.ranks import nodes
from flows.recipe import Recipe
from flows.slots import devices

MANY = 1_000_000  # rows that a training stage is imagined to have
OPTIMIZERS = {"auto", "adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit"}


def problems(config: Training) -> Iterator[str]:
    """Mistakes of one stage as `key: sentence`, beside what contradicts itself."""
    if config.extra:
        try:
            with arguments(config, BaseConfig(path=Path()), MANY):
                pass
        except InputError as error:
            yield from str(error).splitlines()
    yield from missing(config.report_to)
    if config.optim not in OPTIMIZERS:
        from transformers.training_args import OptimizerNames

        known = [str(o.value) for o in OptimizerNames]
        if config.optim not in known:
            near = get_close_matches(config.optim, known, 1)
            hint = f"did you mean {near[0]}?" if near else "adamw_torch_fused and paged_adamw_8bit are some."
            yield f"optim: transformers knows no {quote(config.optim)}; {hint}"
    if config.lora is not None and isinstance(config.lora.target_modules, str):
        try:
            re.compile(config.lora.target_modules)
        except (re.error, RecursionError, OverflowError) as error:
            what = f"{quote(config.lora.target_modules)} is neither all-linear nor a regular expression"
            yield f"lora.target_modules: {what} ({error})."


def adapters(recipe: Recipe) -> Iterator[str]:
    """Stages that continue the adapter of sft keep its shape: one that asks for another would not get it."""
    if recipe.base.adapter == "none":
        for stage in ("sft", "sft_rs", "dpo", "reward", "grpo", "sft_longer"):
            if getattr(recipe, stage).lora is not None:
                yield f"{stage}.lora: base.adapter is none, which trains all weights and no adapter; leave it out."
        return
    first = recipe.sft.lora or LoraSettings()
    continued: dict[str, Training] = {n: getattr(recipe, n) for n in ("sft_rs", "dpo", "grpo", "sft_longer")}
    if recipe.reward.init_from_sft and recipe.reward.base is None:
        continued["reward"] = recipe.reward
    for stage, config in continued.items():
        if config.lora is None:
            continue
        for name in LoraSettings.model_fields:
            asked, has = getattr(config.lora, name), getattr(first, name)
            if _plain(asked) != _plain(has):
                yield (
                    f"{stage}.lora.{name}: asks for {quote(asked)}, but the adapter of sft that is continued has "
                    f"{quote(has)}; leave {stage}.lora out."
                )


def shares(recipe: Recipe) -> Iterator[str]:
    """The processes of a training stage share the rows of a step evenly, and weights only where those can be split."""
    processes = recipe.compute.of(len(devices())) * nodes()
    bases = {"base": recipe.base, "reward.base": recipe.reward.base}
    for key, base in bases.items() if recipe.compute.strategy == "fsdp" else ():
        if base is not None and base.quantization == "nf4":
            yield (
                f"compute.strategy: fsdp splits the weights of the base, and those of {key}.quantization nf4 cannot be "
                f"split; set {key}.quantization to none, or compute.strategy to ddp."
            )
    if recipe.compute.offload and recipe.compute.strategy != "fsdp":
        yield "compute.offload: is for what fsdp splits; set compute.strategy to fsdp, or leave it out."
    for name in type(recipe).model_fields:
        config = getattr(recipe, name)
        if isinstance(config, Training):
            try:
                share(config.per_device_train_batch_size, config.gradient_accumulation_steps, processes)
            except InputError as error:
                yield f"{name}.per_device_train_batch_size: {error}"


def _plain(value: object) -> object:
    return sorted(value) if isinstance(value, tuple) else value
