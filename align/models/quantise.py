"""NF4 layers: that they are there and of the right shapes, and the plain layers of the same values."""

import math
from typing import Any

from align.errors import InputError, StageError

SHARE = 0.9  # of a dense model's weights between embedding and head, all but a router or a convolution are in NF4


def nf4(dtype: Any, whole: list[str]) -> Any:
    """How transformers quantises to NF4 with double quantisation, computing in `dtype`; layers `whole` stay plain."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=whole,
    )


def quantised(model: Any) -> dict[str, Any]:
    """The 4-bit linear layers of a model, by name."""
    import bitsandbytes

    return {name: m for name, m in model.named_modules() if isinstance(m, bitsandbytes.nn.Linear4bit)}


def check_quantised(model: Any, name: str) -> None:
    """StageError unless the model has 4-bit layers with NF4 codes in them (asked for, but not active).

    Raises InputError for a matrix of another shape than its layer: transformers quantises it and says nothing; and
    where less than SHARE of the weights between embedding and head are in them.
    """
    layers = quantised(model)
    states = [m.weight.quant_state for m in layers.values()]
    if not layers or any(state is None or state.quant_type != "nf4" for state in states):
        raise StageError("base.quantization is nf4, but the loaded model has no NF4 layers; set it to none.")
    for layer, module in layers.items():
        found, wanted = list(module.weight.quant_state.shape), [module.out_features, module.in_features]
        if found != wanted:
            raise InputError(
                f"The weight {layer}.weight of {name} has the shape {found} where config.json asks for {wanted}; "
                "config.json and the weight files belong to different models."
            )
    plain = _plain(model)
    share = (packed := sum(math.prod(state.shape) for state in states)) / (packed + sum(plain.values()))
    if share < SHARE:
        raise InputError(
            f"base.quantization is nf4, but only {share:.0%} of the weights of {name} are quantised "
            f"({max(plain, key=lambda n: plain[n])} is not); choose a dense base, or set quantization to none."
        )


def _plain(model: Any) -> dict[str, int]:
    """The sizes of matrices that stay as they are, by name, but for those of embeddings and heads."""
    import torch

    apart: list[Any] = [m for m in model.modules() if isinstance(m, torch.nn.Embedding)]
    apart += [model.get_output_embeddings(), getattr(model, "score", None)]
    known = {id(p) for m in (*apart, *quantised(model).values()) if m is not None for p in m.parameters()}
    return {n: p.numel() for n, p in model.named_parameters() if p.ndim > 1 and id(p) not in known}


def dequantise(model: Any, dtype: Any) -> Any:
    """Replace every 4-bit layer by a plain linear layer of the same values. Returns the model."""
    import bitsandbytes
    import torch

    for name, module in list(model.named_modules()):
        if not isinstance(module, bitsandbytes.nn.Linear4bit):
            continue
        packed: Any = module.weight
        weight = bitsandbytes.functional.dequantize_4bit(packed.data, packed.quant_state)
        plain = torch.nn.Linear(module.in_features, module.out_features, module.bias is not None, device="meta")
        plain.weight = torch.nn.Parameter(weight.to(dtype), requires_grad=False)
        if module.bias is not None:
            plain.bias = torch.nn.Parameter(module.bias.data.to(dtype), requires_grad=False)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, plain)
    for flag in ("is_loaded_in_4bit", "is_quantized", "hf_quantizer", "quantization_method"):
        if flag in model.__dict__:
            delattr(model, flag)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model
