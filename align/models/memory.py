"""How much GPU memory each stage needs, from the base's config.json alone: no weights are read, no GPU is touched.

Estimates of what is allocated at the peak, in bytes; torch's allocator and the CUDA context are the part `overhead`.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from align.config import Config
from align.errors import InputError
from align.models.arguments import LoraSettings, Training
from align.models.base import BaseConfig
from align.models.encoder import is_encoder
from align.models.files import check_config

Load = Literal["sft", "reward", "dpo", "sample", "score"]
"""What a stage puts on a GPU: a kind of training, drawing samples, or scoring them."""

NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)  # bytes per weight: 4 bits, an 8-bit scale per 64, a 32-bit scale per 256 of those
CONTEXT = 600 << 20  # the CUDA context and cuBLAS workspaces
FRAGMENTS = 0.05  # share of the rest that the allocator loses to fragments
PROMPT = 512  # tokens of prompt that sampling is estimated for, where the context allows
TILE = (4096, 32768)  # tokens and vocabulary entries of a tile of trl's fused LM head


def estimates(base: BaseConfig, stages: Mapping[str, tuple[Load, Config]]) -> dict[str, dict[str, int]]:
    """Stage -> part -> bytes, of stages by name with what they load and their settings."""
    found = {}
    for name, (load, config) in stages.items():
        own: BaseConfig = getattr(config, "base", None) or base  # a reward model may be trained on another
        found[name] = estimate(_config(own), load, config, nf4=own.quantization == "nf4")
    return found


def estimate(facts: dict[str, Any], kind: Load, config: Any, *, nf4: bool = True) -> dict[str, int]:
    """Bytes by part and their `total` for one stage. `facts` is config.json as a dict, `config` the stage's config."""
    model = _empty_model(facts)
    shape = model.config.get_text_config()
    linear, plain = _parameters(model)
    tokens = min(getattr(config, "max_length", PROMPT), _context(shape))
    parts: dict[str, float] = {}
    if isinstance(config, Training):
        rows = config.per_device_train_batch_size * (1 if kind == "sft" else 2)  # pairs are two sequences
        parts["weights"] = 2 * plain + (NF4 if nf4 else 2) * sum(i * o for i, o in linear)
        lora = (config.lora or LoraSettings()).r * sum(i + o for i, o in linear)
        parts["adapter"] = 4 * lora * (2 if getattr(config, "unpaired", False) else 1)  # KTO keeps its reference
        parts["gradients"] = 4 * lora
        parts["optimiser"] = lora * (2 if "8bit" in config.optim or config.optim == "auto" else 8)
        parts["activations"] = rows * tokens * _activation(shape, linear, config.gradient_checkpointing is not False)
        if nf4:
            parts["activations"] += 2 * max(i * o for i, o in linear)  # one layer's weights, dequantised
        if kind != "reward":
            tile = min(rows * tokens, TILE[0]) * min(shape.vocab_size, TILE[1])
            parts["logits"] = (
                3 * 4 * tile + 4 * shape.vocab_size * shape.hidden_size
            )  # and the head's fp32 gradient tile
    else:
        rows = getattr(config, "batch_size", 64)
        parts["weights"] = 2 * (plain + sum(i * o for i, o in linear))
        if kind == "sample":
            length = min(tokens + getattr(config, "max_new_tokens", 0), _context(shape))
            parts["kv_cache"] = rows * length * 2 * _kv(shape) * shape.num_hidden_layers
            parts["logits"] = rows * shape.vocab_size * (2 + 4 + 4)
        per_token = 2 * (4 * shape.hidden_size + 3 * (shape.intermediate_size or 4 * shape.hidden_size))
        parts["activations"] = rows * tokens * per_token / (getattr(config, "n", 1) if kind == "sample" else 1)
    parts["overhead"] = CONTEXT + FRAGMENTS * sum(parts.values())
    whole = {name: math.ceil(value) for name, value in parts.items()}
    return {**whole, "total": sum(whole.values())}


def _activation(shape: Any, linear: list[tuple[int, int]], checkpointing: bool) -> float:
    """Bytes that one token holds for the backward pass: a checkpoint per layer and one layer in full, or all layers.

    Within a layer every linear map keeps its input for its adapter and its output, in bf16; norms and the residual
    stream keep four more vectors.
    """
    layers = shape.num_hidden_layers
    layer = 2 * sum(i + o for i, o in linear) / layers + 2 * 4 * shape.hidden_size
    return layer + 2 * shape.hidden_size * layers if checkpointing else layer * layers


def _kv(shape: Any) -> int:
    """Numbers that one token adds to the cache of one layer, keys and values together."""
    heads = getattr(shape, "num_key_value_heads", None) or shape.num_attention_heads
    size = getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
    return 2 * heads * size


def _context(shape: Any) -> int:
    return int(getattr(shape, "max_position_embeddings", 0) or 1 << 20)


def _empty_model(facts: dict[str, Any]) -> Any:
    """The architecture without storage, so that every model transformers knows has its exact shapes."""
    from align.models.libraries import prepare_libraries

    prepare_libraries()
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    known = {k: v for k, v in facts.items() if k not in ("model_type", "architectures")}
    with torch.device("meta"):
        factory = AutoModel if is_encoder(facts) else AutoModelForCausalLM
        return factory.from_config(AutoConfig.for_model(facts["model_type"], **known))


def _parameters(model: Any) -> tuple[list[tuple[int, int]], int]:
    """(in, out) of each linear layer that is quantised and adapted, and how many other parameters there are."""
    import torch

    head = model.get_output_embeddings()
    linear = [
        (m.in_features, m.out_features) for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head
    ]
    return linear, sum(p.numel() for p in model.parameters()) - sum(i * o for i, o in linear)


def _config(base: BaseConfig) -> dict[str, Any]:
    """config.json of the base; of a Hub model only this file is fetched."""
    if base.path is not None:
        file = base.path / "config.json"
        if not file.is_file():
            raise InputError(f"{base.path} is not a model directory (it has no config.json).")
        return check_config(base.path)
    from huggingface_hub import hf_hub_download

    try:
        fetched = hf_hub_download(str(base.hub), "config.json", revision=base.revision)
    except Exception as error:
        raise InputError(f"config.json of {base.hub} at {base.revision} cannot be fetched: {error}") from error
    return check_config(Path(fetched).parent)
