"""A plain model for drawing that follows one in training: the same function, as `trained.policy` would load it."""

from typing import Any


def follow(plain: Any, model: Any) -> None:
    """Set the matrices of `plain`, a policy loaded for inference, to what `model` in training computes with.

    Those with an adapter are the base's, dequantised where they are quantised, plus what the adapter adds; nothing else
    of an adapted model is trained. Of a model without adapters all weights are copied.
    """
    import torch

    with torch.no_grad():
        if not hasattr(model, "peft_config"):
            target = dict(plain.named_parameters())
            for name, value in model.named_parameters():
                target[name].data.copy_(value.data)
            return
        for name, layer in model.get_base_model().named_modules():
            if "default" in getattr(layer, "lora_A", {}):
                weight = plain.get_submodule(name).weight.data
                weight.copy_(_base_weight(layer.get_base_layer()))
                delta = layer.get_delta_weight("default")
                scale = _dora_scale(layer, weight, delta) if layer.use_dora.get("default") else None
                weight += delta
                if scale is not None:
                    weight.mul_(scale[:, None])


def _base_weight(layer: Any) -> Any:
    import bitsandbytes

    if isinstance(layer, bitsandbytes.nn.Linear4bit):
        packed: Any = layer.weight
        return bitsandbytes.functional.dequantize_4bit(packed.data, packed.quant_state)
    return layer.weight.data


def _dora_scale(layer: Any, weight: Any, delta: Any) -> Any:
    """What each row is scaled by, [out]: the learned length over that of the sum (Liu et al., 2024, equation 5)."""
    vector = layer.lora_magnitude_vector["default"]
    return vector.weight / vector.get_weight_norm(weight, delta, scaling=1)
