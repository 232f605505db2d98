"""A model as its config.json describes it, without storage: what its weights, its adapter and their optimiser take.

The architecture is built on torch's meta device by the code that trains it, so that every model that transformers and
PEFT know has its exact shapes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

from align.models.arguments import LoraSettings, Training
from align.models.base import BaseConfig
from align.models.encoder import is_encoder

Head = Literal["lm", "reward"]

BLOCK, NESTED = 64, 256  # weights that share an 8-bit scale, and scales that share a 32-bit one (QLoRA)
TABLES = 4 * (16 + 256 + 1)  # bytes of a layer's tables: 16 NF4 values, 256 values of a scale, and the scales' mean
SMALL_8BIT = 4096  # bitsandbytes keeps the state of a smaller tensor in fp32
PER_NUMBER = {"adam": 8.0, "lion": 4.0, "sgd": 0.0}  # bytes of fp32 state by what an optimiser's name holds


def nf4_bytes(n: int) -> int:
    """Bytes of a matrix of n weights in NF4 with double quantisation, its constants among them."""
    scales = -(-n // BLOCK)
    return -(-n // 2) + scales + 4 * -(-scales // NESTED) + TABLES


def state_bytes(optim: str, sizes: Iterable[int]) -> int:
    """Bytes of the optimiser's state for trained tensors of so many numbers; `auto` is AdamW in 8 bit, as on a GPU."""
    full = next((size for name, size in PER_NUMBER.items() if name in optim), 8.0)
    if optim == "auto" or "8bit" in optim:  # two moments in 8 bit, each with a 32-bit scale per 256 numbers
        moments = (8.0 if optim == "auto" else full) / 4
        return round(sum(moments * (n + 4 * -(-n // 256) if n >= SMALL_8BIT else 4 * n) for n in sizes))
    return round(sum(full * n for n in sizes))


@dataclass(frozen=True, eq=False)  # each is itself only, so that what is found out about it can be kept
class Architecture:
    """A base model by its config.json (`facts`), and how it is loaded. `dtype` is the torch dtype's name."""

    facts: dict[str, Any]
    nf4: bool = True
    dtype: str = "bfloat16"
    attention: str = "auto"
    full: bool = False
    """Whether all weights are trained, instead of an adapter beside them."""

    @cache  # noqa: B019 (as few as there are base models)
    def cut(self, layers: int) -> "Architecture":
        """The same with its first so many layers."""
        return Architecture(_cut(self.facts, layers), self.nf4, self.dtype, self.attention, self.full)

    def empty(self, head: Head = "lm") -> Any:
        """The transformers model on the meta device, as load_model loads it."""
        from align.models.libraries import prepare_libraries

        prepare_libraries()
        import torch
        from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

        known = {
            k: v for k, v in self.facts.items() if k not in ("model_type", "architectures", "dtype", "torch_dtype")
        }
        kind: Any = AutoModel if is_encoder(self.facts) else AutoModelForCausalLM
        options: dict[str, Any] = {}
        if head == "reward":
            kind, options = AutoModelForSequenceClassification, {"num_labels": 1}
        config = AutoConfig.for_model(self.facts["model_type"], **known, **options)
        attention = {"auto": {}, "flash_attention_2": {"attn_implementation": "sdpa"}}  # the two save the same
        chosen: Any = attention.get(self.attention, {"attn_implementation": self.attention})
        with torch.device("meta"):
            model = kind.from_config(config, dtype=getattr(torch, self.dtype), **chosen)
        model.config.use_cache, model.config.get_text_config().pad_token_id = False, 0
        return model

    @cached_property
    def plain(self) -> Any:
        """The language model, not quantised, for whoever looks and changes nothing."""
        return self.empty()

    def adapted(self, lora: LoraSettings, head: Head = "lm") -> Any:
        """The model as training has it: quantised, as far as shapes go, with a new adapter; or all of it trained."""
        from align.models.encoder import heads_of
        from align.models.trainable import adapt

        model = self.empty(head)
        if self.nf4:
            _quantise(model, self.dtype)
        heads = heads_of(model) if head == "reward" else ()
        how: Any = {"adapter": "none", "quantization": "none"} if self.full else {}
        config = Training(lora=None if self.full else lora)
        return adapt(model, config, BaseConfig(path=Path(), **how), None, heads=heads)

    @cache  # noqa: B019
    def held(self, lora: LoraSettings, head: Head = "lm") -> tuple[int, tuple[int, ...]]:
        """Bytes of what is not trained, and how many numbers each trained tensor has."""
        model = self.adapted(lora, head)
        return weight_bytes(model), tuple(p.numel() for p in model.parameters() if p.requires_grad)


def _cut(facts: dict[str, Any], layers: int) -> dict[str, Any]:
    depth = facts.get("num_hidden_layers")
    found: dict[str, Any] = {}
    for key, value in facts.items():
        if isinstance(value, dict) and key == "text_config":
            found[key] = _cut(value, layers)
        else:
            found[key] = value[:layers] if isinstance(value, list) and len(value) == depth else value
    return found | ({"num_hidden_layers": layers} if depth is not None else {})


def _quantise(model: Any, dtype: str) -> None:
    """Make the linear layers that load_model quantises 4-bit ones to PEFT; they compute like plain ones of any type."""
    import bitsandbytes
    import torch

    class Empty(bitsandbytes.nn.Linear4bit):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.linear(x, self.weight.to(x.dtype), self.bias)

    for name, module in model.named_modules():
        if type(module) is torch.nn.Linear and name.rpartition(".")[2] not in ("lm_head", "score"):
            weight: Any = module.weight
            module.__class__ = Empty
            module.compute_dtype = getattr(torch, dtype)
            weight.compress_statistics, weight.quant_type, weight.requires_grad = True, "nf4", False
    model.is_loaded_in_4bit = True


def weight_bytes(model: Any) -> int:
    """Bytes of everything in a model that is not trained: weights in their types, NF4 with constants, and buffers."""
    import bitsandbytes

    packed = {id(m.weight) for m in model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)}
    frozen = [p for p in model.parameters() if not p.requires_grad]
    weights = sum(nf4_bytes(p.numel()) if id(p) in packed else p.numel() * p.element_size() for p in frozen)
    return weights + sum(b.numel() * b.element_size() for b in model.buffers())
