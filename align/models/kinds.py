"""Base models that this pipeline cannot train or sample, told from config.json alone, before any weight is read.

Sampling forks the key/value cache of attention. A layer with a recurrent state (Mamba, gated linear attention, short
convolutions) has none. Experts of a mixture are one tensor of three dimensions, which neither NF4 nor LoRA reaches.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from align.text import quote

ATTENTION = {"full_attention", "sliding_attention", "chunked_attention", "attention"}
RECURRENT = {
    "bailing_hybrid", "bamba", "deepseek_v4", "falcon_h1", "falcon_mamba", "granitemoehybrid", "jamba", "kimi_linear",
    "lfm2", "lfm2_moe", "lfm3", "mamba", "mamba2", "minimax", "nemotron_h", "olmo_hybrid", "qwen3_5", "qwen3_5_moe",
    "qwen3_5_moe_text", "qwen3_5_text", "qwen3_next", "qwen4_exp", "qwen4_exp_text", "recurrent_gemma", "rwkv", "xlstm",
    "zamba", "zamba2", "zaya",
}  # fmt: skip
STATE = re.compile(r"mamba_|ssm_|linear_(num|key|value|conv|head|attn)_|conv_L_cache|layers_block_type")
MIXTURES = {
    "aria_text", "axk1", "axk2", "beam", "dbrx", "deepseek_v2", "deepseek_v3", "deepseek_v32", "dots1", "dots3_note",
    "flint", "gpt_oss", "jetmoe", "kolibri1", "laguna", "llama4", "llama4_text", "longcat_flash", "mellum",
    "mimo_v2_flash", "minimax_m2", "mixtral", "olmoe", "flex_olmo", "phimoe", "solar_open", "afmoe", "hy_v3", "hy_v4",
}  # fmt: skip
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


def refusals(facts: Mapping[str, Any], quantization: str) -> Iterator[str]:
    """Why a model with this config.json is refused, as sentences."""
    texts = [facts, facts["text_config"]] if isinstance(facts.get("text_config"), dict) else [facts]
    for text in texts:
        if state := _state(text):
            yield f"{state}: its layers keep a recurrent state, which sampling cannot fork; choose a base with attention only."  # noqa: E501
            return
    for text in texts:
        if quantization == "nf4" and (mixture := _mixture(text)):
            yield f"{mixture}: NF4 and the adapter do not reach the experts; choose a dense base, or set quantization to none."  # noqa: E501
            return


def _state(text: Mapping[str, Any]) -> str | None:
    """What says that a model has layers with a recurrent state."""
    kinds = text.get("layer_types")
    strange = [str(k) for k in kinds if str(k) not in ATTENTION] if isinstance(kinds, list) else []
    if strange:
        return f"layer_types names {quote(strange[0])}"
    if text.get("model_type") in RECURRENT:
        return f"model_type is {text['model_type']}"
    key = next((k for k, v in text.items() if STATE.match(k) and v), None)
    return f"config.json has {key}" if key else None


def _mixture(text: Mapping[str, Any]) -> str | None:
    """What says that a model is a mixture of experts."""
    if text.get("is_moe") is False:
        return None
    key = next((k for k in EXPERTS if isinstance(text.get(k), int) and text[k] > 1), None)
    if key:
        return f"{key} is {text[key]}"
    kind = str(text.get("model_type"))
    named = kind in MIXTURES or "moe" in kind.split("_")
    return f"model_type is {kind}" if named and not any(k in text for k in EXPERTS) else None


def stateful(model: Any) -> str | None:
    """What of a loaded model's cache cannot fork, by transformers' own word."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    if getattr(model, "_is_stateful", False):
        return type(model).__name__
    layers = DynamicCache(config=model.config).layers
    return next((type(layer).__name__ for layer in layers if not isinstance(layer, DynamicLayer)), None)
