"""What a training begins with: the base with a new adapter or a copy of one, or all its weights; trained in fp32."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.errors import InputError
from align.models.arguments import LoraSettings, Training
from align.models.base import BaseConfig, load_model
from align.models.files import adapter_shape, attach
from align.models.shards import local
from align.models.trained import check_policy


def start(config: Training, base: BaseConfig, trained: Path | None) -> Any:
    """The language model that a training begins with: the base, or what the artifact `trained` made of it, as `adapt`
    has it, and split over the processes where the strategy says so."""
    return adapt(load_model(base, trained=trained, split=True), config, base, trained)


def adapt(model: Any, config: Training, base: BaseConfig, adapter: Path | None, *, heads: Sequence[str] = ()) -> Any:
    """`model` with a trainable fp32 LoRA adapter: a new one, or a copy of the one in `<adapter>/adapter`.

    Where base.adapter is none it is `model` itself, all of it trainable in fp32. `heads` names modules that are trained
    and saved whole. Raises StageError if the adapter has another base, or is damaged.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(config.seed)
    task = "SEQ_CLS" if heads else "CAUSAL_LM"
    if base.adapter == "none":
        if config.lora is not None:
            raise InputError("lora asks for an adapter, but base.adapter is none; leave lora out.")
        if adapter is not None:
            check_policy(base, adapter)
        return _full_precision(model.requires_grad_(True))
    if adapter is None:
        lora = config.lora or LoraSettings()
        shape: Any = LoraConfig(
            r=lora.r,
            lora_alpha=lora.lora_alpha,
            lora_dropout=lora.lora_dropout,
            target_modules=lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules),
            use_rslora=lora.use_rslora,
            use_dora=lora.use_dora,
            modules_to_save=list(heads) or None,
            task_type=task,
        )
        return _full_precision(_whole_heads(get_peft_model(model, shape)))
    check_policy(base, adapter)
    shape = adapter_shape(adapter)
    if config.lora is not None:
        _check_shape(config.lora, shape, model)
    shape.task_type, shape.inference_mode, shape.modules_to_save = task, False, list(heads) or None
    return _full_precision(_whole_heads(attach(model, adapter, shape, new_heads=heads)))


def _check_shape(asked: LoraSettings, shape: Any, model: Any) -> None:
    """InputError unless `asked` is what the adapter that is continued has: it keeps its shape."""
    names = ("r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora")
    asks = {name: getattr(asked, name) for name in names}
    keeps = {name: getattr(shape, name) for name in names}
    if _adapted(model, asked.target_modules) != _adapted(model, shape.target_modules):
        asks["target_modules"], keeps["target_modules"] = asked.target_modules, "of other layers"
    if wrong := [name for name in asks if asks[name] != keeps[name]]:
        wants, has = (", ".join(f"{name} {of[name]}" for name in wrong) for of in (asks, keeps))
        raise InputError(f"lora asks for {wants}, but the adapter that is continued has {has}; leave lora out.")


def _adapted(model: Any, targets: Any) -> set[str]:
    """The linear layers of a base that PEFT takes `targets` for: names or their ends, a pattern, or all-linear."""
    import torch

    inner, prefix = model.base_model, model.base_model_prefix  # without a head
    linear = {f"{prefix}.{name}" for name, m in inner.named_modules() if isinstance(m, torch.nn.Linear)}
    if targets == "all-linear":
        return linear
    if isinstance(targets, str):
        return {name for name in linear if re.fullmatch(targets, name)}
    return {name for name in linear if any(name == t or name.endswith(f".{t}") for t in targets)}


def _whole_heads(model: Any) -> Any:
    """The model with its trainable parameters whole in every process: PEFT copies a head as it is, split like the base,
    but only the base's own modules are put together before they compute."""
    import torch

    for module in model.modules():
        for name, p in list(module.named_parameters(recurse=False)):
            if p.requires_grad and local(p) is not p:
                module.register_parameter(name, torch.nn.Parameter(p.full_tensor()))
    return model


def _full_precision(model: Any) -> Any:
    """The model with its trainable parameters in fp32."""
    import torch

    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype != torch.float32:
            parameter.data = parameter.data.float()
    return model


def weights(model: Any) -> dict[str, Any]:
    """The trainable parameters by name; those of an adapter as copies, since trl changes only adapters' types."""
    found = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    return {name: p.clone() for name, p in found.items()} if hasattr(model, "peft_config") else found


def restore(model: Any, values: dict[str, Any]) -> None:
    """Put the parameters' values and types back: trl has rounded an adapter on a quantised base to bf16.

    In bf16 an update of less than 0.4 % of a weight is lost, and a matrix product on a CPU is many times slower.
    On CUDA the fp32 adapter computes in bf16 under autocast.
    """
    for name, parameter in model.named_parameters():
        if name in values and local(parameter) is parameter:  # trl does not touch what is split
            parameter.data = values[name]
