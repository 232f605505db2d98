"""What a training step computes by the model's own arithmetic, and what the device could: for model-FLOP utilisation.

PaLM (Chowdhery et al., 2022), appendix B: a token costs 6 N + 12 L H Q T, of which a third is the forward pass. N are
the weights that tokens are multiplied by (an input embedding is only looked up), L H Q is layers x heads x head size,
and T how many tokens the row has; causal masking is not taken off, and work that is done twice (gradient
checkpointing, padding, dequantisation) does not count. A frozen weight needs no gradient of its own, so it costs 4
instead of 6; the reference of DPO is a forward pass more, 2 N + 4 L H Q T.
"""

from dataclasses import dataclass
from typing import Any

# Dense 16-bit tensor-core TFLOP/s without sparsity, from NVIDIA's data sheets; the first name that fits.
PEAKS = (
    ("B200", 2250),
    ("H200", 989),
    ("H100 PCIe", 756),
    ("H100 NVL", 835),
    ("H100", 989),
    ("A100", 312),
    ("L40S", 362),
    ("L40", 181),
    ("L4", 121),
    ("A10G", 70),
    ("A10", 125),
    ("A40", 150),
    ("RTX 4090", 165),
    ("RTX 3090", 71),
    ("V100", 125),
    ("T4", 65),
)


def peak(device: str, bits: int) -> float | None:
    """FLOP/s that a device of this name can do at most in that precision; None where that is not known."""
    words = f" {device} ".replace("-", " ")
    if bits != 16 or " Laptop " in words:
        return None
    return next((tera * 1e12 for name, tera in PEAKS if f" {name} " in words), None)


@dataclass(frozen=True)
class Cost:
    """FLOP of training: `token` for each token, and `square` times the squared length of each row."""

    token: float
    square: float

    def of(self, tokens: float, squares: float) -> float:
        """FLOP for rows of so many tokens, whose squared lengths add up to `squares`."""
        return self.token * tokens + self.square * squares


def cost(model: Any, reference: bool = False) -> Cost | None:
    """What training `model` costs, with a frozen `reference` (DPO) beside it or not.

    None where not every token goes through every weight (mixtures of experts), or the shape is not told.
    """
    shape = model.config.get_text_config()
    sizes = [getattr(shape, name, None) for name in ("num_hidden_layers", "num_attention_heads", "hidden_size")]
    if not all(sizes) or any(getattr(shape, n, 0) for n in ("num_experts", "num_local_experts", "n_routed_experts")):
        return None
    layers, heads, width = (int(size or 0) for size in sizes)
    attention = layers * heads * (getattr(shape, "head_dim", None) or width // heads)
    trained, frozen = _weights(model)
    forward = Cost(2 * (trained + frozen), 4 * attention)
    backward = Cost(4 * trained + 2 * frozen, 8 * attention)
    passes = 2 if reference else 1
    return Cost(passes * forward.token + backward.token, passes * forward.square + backward.square)


def _weights(model: Any) -> tuple[int, int]:
    """How many trained and frozen weights tokens are multiplied by; those of a frozen copy of an adapter not."""
    looked_up = model.get_input_embeddings().weight
    head = model.get_output_embeddings()
    tied = head is not None and head.weight is looked_up
    trained = frozen = 0
    for name, p in model.named_parameters():
        if (p is looked_up and not tied) or ".ref." in name:
            continue
        n = p.numel() if getattr(p, "quant_state", None) is None else p.quant_state.shape.numel()
        trained, frozen = (trained + n, frozen) if p.requires_grad else (trained, frozen + n)
    return trained, frozen
