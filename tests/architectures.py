"""Small random base models of many architectures, with the tokenizer and template of `tiny`."""

from pathlib import Path
from typing import Any

import tiny

from align.models.base import BaseConfig

SIZES: dict[str, Any] = {
    "vocab_size": 384, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 256, "pad_token_id": 0, "eos_token_id": 1,
    "bos_token_id": None,
}  # fmt: skip

DENSE: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": False},
    "qwen2": {"tie_word_embeddings": True},
    "mistral": {"tie_word_embeddings": False, "sliding_window": None},
    "gemma2": {"num_hidden_layers": 4, "sliding_window": 32},
}


def random_base(folder: Path, model_type: str, quantization: str = "nf4", **changes: Any) -> BaseConfig:
    """Write a random model of that type to `folder`."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    base = tiny.tiny_base(folder, quantization=quantization)
    config = AutoConfig.for_model(model_type, **SIZES | DENSE.get(model_type, {}) | changes)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return base
