"""The base model of a recipe: loading it quantised for training, or merged with an adapter for inference.

A trained policy is NF4 weights plus a LoRA adapter. For inference the NF4 weights are dequantised once and the adapter
is merged into them, which is the same function without a dequantisation in every forward pass.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from align.config import Config
from align.console import prepare_libraries
from align.errors import InputError, StageError
from align.models.chat import Chat

REWARD = "reward.json"  # beside an adapter: it is a reward model, of the kind that stands there
HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model", "vocab.txt", "merges.txt"]


class BaseConfig(Config):
    """The base model: a local directory in transformers format, or a Hub id pinned to a revision."""

    path: Path | None = None
    """Directory of a model in transformers format (config.json, *.safetensors, tokenizer files)."""
    hub: str | None = None
    """Hugging Face Hub id, such as Qwen/Qwen2.5-1.5B; needs `revision`."""
    revision: str | None = None
    """Commit hash or tag of the Hub model, so that the same recipe loads the same weights tomorrow."""
    chat_template: Path | None = None
    """Jinja chat template with {% generation %} markers; replaces the tokenizer's own."""
    pad_token: str | None = None
    """Padding token, where the tokenizer has none or its own is the end-of-turn token."""
    quantization: Literal["nf4", "none"] = "nf4"
    """Quantise the base to NF4 with double quantisation (QLoRA), or leave it as it is (LoRA)."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute type: auto is bfloat16 on CUDA and float32 on a CPU."""
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    """Attention implementation: auto lets transformers choose."""

    @model_validator(mode="after")
    def _one_source(self) -> "BaseConfig":
        if (self.path is None) == (self.hub is None):
            raise ValueError("set exactly one of base.path and base.hub")
        if self.hub is not None and not self.revision:
            raise ValueError("base.hub needs base.revision (a commit hash or tag)")
        return self

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.hub or str(self.path)


def device() -> str:
    """cuda where there is a GPU, else cpu."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def compute_dtype(base: BaseConfig) -> Any:
    """The torch dtype that `base` computes in on this machine."""
    import torch

    if base.dtype == "auto":
        return torch.bfloat16 if device() == "cuda" else torch.float32
    return getattr(torch, base.dtype)


def directory(base: BaseConfig) -> Path:
    """The local directory of the base, downloaded first if it is a Hub id. Raises InputError."""
    if base.path is not None:
        if not (base.path / "config.json").is_file():
            raise InputError(
                f"{base.path} is not a model directory (it has no config.json); set base.path or base.hub."
            )
        return base.path
    prepare_libraries()
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(base.hub), revision=base.revision, allow_patterns=HUB_FILES))
    except Exception as error:
        raise InputError(f"The model {base.hub} at revision {base.revision} cannot be fetched: {error}") from error


def identity(base: BaseConfig) -> dict[str, str]:
    """What an adapter depends on: weights (sha256 over config.json and the weight files) and quantisation."""
    folder, h = directory(base), hashlib.sha256()
    for file in [folder / "config.json", *sorted(folder.glob("*.safetensors"))]:
        with file.open("rb") as f:
            h.update(file.name.encode() + b"\0" + hashlib.file_digest(f, "sha256").digest())
    return {"weights": h.hexdigest(), "quantization": base.quantization}


def load_chat(base: BaseConfig) -> Chat:
    """The tokenizer with its chat template. Raises InputError if it has none, or no usable padding token."""
    prepare_libraries()
    from transformers import AutoTokenizer

    folder = directory(base)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:
        raise InputError(f"The tokenizer of {base.name} cannot be loaded: {error}") from error
    if base.chat_template is not None:
        if not base.chat_template.is_file():
            raise InputError(f"The chat template {base.chat_template} does not exist; set base.chat_template.")
        tokenizer.chat_template = base.chat_template.read_text(encoding="utf-8")
    if not tokenizer.chat_template:
        raise InputError(f"{base.name} has no chat template; set base.chat_template to a Jinja file.")
    return Chat(tokenizer, pad_token=base.pad_token)


def load_model(base: BaseConfig, *, head: Literal["lm", "reward"] = "lm") -> Any:
    """The base as a transformers model on this machine's device, NF4-quantised where the config asks for it.

    `head="reward"` gives a sequence classifier with one (randomly initialised, seed it before) output.
    Raises StageError if quantisation was asked for and is not active.
    """
    prepare_libraries()
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BitsAndBytesConfig

    dtype, folder, facts = compute_dtype(base), directory(base), identity(base)
    kwargs: dict[str, Any] = {"dtype": dtype, "device_map": {"": device()}, "use_safetensors": True}
    if base.attention != "auto":
        kwargs["attn_implementation"] = base.attention
    if base.quantization == "nf4":
        kwargs["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=["lm_head", "score"],
        )
    factory: Any = AutoModelForCausalLM
    if head == "reward":
        factory, kwargs["num_labels"] = AutoModelForSequenceClassification, 1
    try:
        model = factory.from_pretrained(folder, **kwargs)
    except (OSError, ValueError) as error:
        raise InputError(f"The model {base.name} cannot be loaded: {error}") from error
    if base.quantization == "nf4":
        check_quantised(model)
        for module in quantised(model):
            # On a CPU with AVX512-BF16 the first evaluation would repack the weights, and training could not go on.
            module.support_avx512bf16_for_cpu = False
    model.config.use_cache = False
    model.base_identity = facts
    return model


def quantised(model: Any) -> list[Any]:
    """The 4-bit linear layers of a model."""
    import bitsandbytes

    return [m for m in model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]


def check_quantised(model: Any) -> None:
    """StageError unless the model has 4-bit layers with NF4 codes in them (asked for, but not active)."""
    layers = quantised(model)
    if not layers or any(m.weight.quant_state is None or m.weight.quant_state.quant_type != "nf4" for m in layers):
        raise StageError("base.quantization is nf4, but the loaded model has no NF4 layers; set it to none.")


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


def policy(base: BaseConfig, adapter: Path | None) -> Any:
    """The model for inference: base plus adapter as plain matrices. `adapter` is a training stage's directory.

    Raises StageError if the adapter was trained on another base, or is a reward model.
    """
    if adapter is not None:
        check_policy(base, adapter)
    model = load_model(base)
    if base.quantization == "nf4":
        dequantise(model, compute_dtype(base))
    return merge(model, adapter)


def merge(model: Any, adapter: Path | None) -> Any:
    """Merge `<adapter>/adapter` into the plain matrices of `model`, and set it to evaluation without gradients."""
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(adapter / "adapter")).merge_and_unload()
    model.config.use_cache = True
    return model.eval().requires_grad_(False)


def save_adapter(model: Any, chat: Chat, base: BaseConfig, out: Path) -> Path:
    """Write `<out>/adapter`: the adapter named default, its tokenizer, and base.json. Equal models give equal bytes.

    Raises StageError if the base's files changed since the model was loaded.
    """
    if identity(base) != model.base_identity:
        raise StageError(f"The files of {base.name} changed while an adapter was trained on it; run again.")
    folder = out / "adapter"
    for config in model.peft_config.values():
        config.base_model_name_or_path = base.hub
        config.revision = base.revision
    model.save_pretrained(str(folder), selected_adapters=["default"], save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    (folder / "adapter_model.safetensors").chmod(0o644)  # safetensors makes it private to its user
    chat.tokenizer.save_pretrained(str(folder))
    facts = json.loads((folder / "adapter_config.json").read_text())
    # PEFT fills in the directory that the base was loaded from, and writes sets in the order of this process's hashes
    facts["base_model_name_or_path"] = base.hub
    facts["target_modules"] = sorted(facts["target_modules"])
    _write_json(folder / "adapter_config.json", facts)
    _write_json(
        folder / "base.json", {**model.base_identity, "hub": base.hub, "revision": base.revision, **chat.facts()}
    )
    return folder


def check_adapter(base: BaseConfig, adapter: Path) -> None:
    """StageError unless the adapter in `<adapter>/adapter` was trained on this base, equally quantised."""
    file = adapter / "adapter" / "base.json"
    if not file.is_file():
        raise StageError(f"{adapter} holds no adapter of this pipeline (adapter/base.json is missing).")
    trained, now = json.loads(file.read_text()), identity(base)
    for key, value in now.items():
        if trained[key] != value:
            raise StageError(
                f"The adapter {adapter.name} belongs to another base model: its {key} are {trained[key][:12]}, "
                f"those of {base.name} are {value[:12]}."
            )


def check_policy(base: BaseConfig, adapter: Path) -> None:
    """StageError unless the adapter belongs to this base and is a policy: something that responses are drawn from."""
    check_adapter(base, adapter)
    if (adapter / "adapter" / REWARD).is_file():
        raise StageError(f"The adapter {adapter.name} is a reward model, not a policy.")


def _write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
