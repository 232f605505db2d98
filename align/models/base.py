"""The base model of a recipe: its settings, its tokenizer, and loading it, quantised or whole, for training."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from align.config import Config
from align.digests import file_digest
from align.errors import InputError, StageError
from align.models.chat import Chat
from align.models.device import device, fastest_dtype
from align.models.encoder import heads_to_be
from align.models.files import (
    check_config,
    check_loaded,
    check_weights,
    one_line,
    read_json,
)
from align.models.kinds import refusals, stateful
from align.models.libraries import prepare_libraries
from align.models.quantise import check_quantised, nf4, quantised
from align.models.shards import splitting
from align.models.template import check_template

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

WHOLE = "model"  # the folder of an artifact with all weights of a trained model
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
    """Jinja chat template that replaces the tokenizer's own; {% generation %} markers, if it has any, say what is
    trained on."""
    pad_token: str | None = None
    """Padding token, where the tokenizer has none or its own is the end-of-turn token."""
    quantization: Literal["nf4", "none"] = "nf4"
    """Quantise the base to NF4 with double quantisation (QLoRA), or leave it as it is (LoRA)."""
    adapter: Literal["lora", "none"] = "lora"
    """Train a LoRA adapter beside the base, or all its weights (full fine-tuning), which are then not quantised."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Compute type: auto is bfloat16 on CUDA, float16 on GPUs older than Ampere, and float32 on a CPU."""
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    """Attention implementation: auto lets transformers choose."""

    @model_validator(mode="after")
    def _one_source(self) -> "BaseConfig":
        if (self.path is None) == (self.hub is None):
            raise ValueError("set exactly one of base.path and base.hub")
        if self.hub is not None and not self.revision:
            raise ValueError("base.hub needs base.revision (a commit hash or tag)")
        if self.adapter == "none" and self.quantization != "none":
            raise ValueError("base.adapter none trains all weights, so base.quantization must be none too")
        return self

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.hub or str(self.path)


def compute_dtype(base: BaseConfig) -> "torch.dtype":
    """The torch dtype that `base` computes in on this machine."""
    import torch

    if base.dtype != "auto":
        return getattr(torch, base.dtype)
    return getattr(torch, fastest_dtype(torch.cuda.get_device_capability() if device() == "cuda" else None))


def directory(base: BaseConfig) -> Path:
    """The local directory of the base, downloaded first if it is a Hub id. Raises InputError if it holds no model."""
    if base.path is not None:
        if not (base.path / "config.json").is_file():
            raise InputError(
                f"{base.path} is not a model directory (it has no config.json); set base.path or base.hub."
            )
        check_config(base.path)
        return base.path
    prepare_libraries()
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(str(base.hub), revision=base.revision, allow_patterns=HUB_FILES))
    except Exception as error:
        raise InputError(f"The model {base.hub} at revision {base.revision} cannot be fetched: {error}") from error
    check_config(folder)
    return folder


def identity(base: BaseConfig) -> dict[str, str]:
    """What an adapter depends on: weights (sha256 over config.json and the weight files) and quantisation."""
    folder, h = directory(base), hashlib.sha256()
    for file in [folder / "config.json", *sorted(p for p in folder.glob("*.safetensors") if p.is_file())]:
        h.update(file.name.encode() + b"\0" + bytes.fromhex(file_digest(file)))
    return {"weights": h.hexdigest(), "quantization": base.quantization}


def load_chat(base: BaseConfig) -> Chat:
    """The tokenizer with its chat template. Raises InputError if it has none that ends, or no padding token."""
    tokenizer, name = load_tokenizer(base)
    if not tokenizer.chat_template:
        raise InputError(f"{base.name} has no chat template; set base.chat_template to a Jinja file.")
    return Chat(tokenizer, pad_token=base.pad_token, name=name)


def load_tokenizer(base: BaseConfig) -> tuple[Any, str]:
    """The tokenizer, with `base.chat_template` where that is set, and what messages call its template, if it has one.

    Raises InputError if it cannot be loaded, or its template does not end.
    """
    prepare_libraries()
    from transformers import AutoTokenizer

    folder = directory(base)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:
        for file in sorted(folder.glob("*.json")):
            read_json(file, InputError)  # the likely culprit, named
        raise InputError(f"The tokenizer of {base.name} cannot be loaded: {one_line(error)}.") from error
    name = f"The chat template of {base.name}"
    if base.chat_template is not None:
        name = f"The chat template {base.chat_template}"
        if not base.chat_template.is_file():
            raise InputError(f"{name} does not exist; set base.chat_template.")
        try:
            tokenizer.chat_template = base.chat_template.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise InputError(f"{name} cannot be read ({one_line(error)}); set base.chat_template.") from error
    if tokenizer.chat_template and not isinstance(tokenizer.chat_template, str):
        raise InputError(f"{base.name} has several chat templates; set base.chat_template to a file that holds one.")
    if tokenizer.chat_template:
        check_template(tokenizer.chat_template, tuple(sorted(_special_tokens(tokenizer).items())), name)
    return tokenizer, name


def _special_tokens(tokenizer: Any) -> dict[str, str]:
    return {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}


def load_model(
    base: BaseConfig, *, head: Literal["lm", "reward"] = "lm", trained: Path | None = None, split: bool = False
) -> "PreTrainedModel":
    """The base as a transformers model on this machine's device, NF4-quantised where the config asks for it.

    `head="reward"` gives a sequence classifier with one (randomly initialised, seed it before) output. `trained` is the
    artifact of a training of all weights (base.adapter none): they take the place of the base's. With `split` each of
    several processes holds its part of every weight, where the strategy is fsdp (models.shards).
    Raises InputError for weight files that are missing, damaged, not finite or of another architecture, for an encoder
    where a language model is asked for, and for architectures that cannot be trained or sampled (models.kinds);
    StageError if quantisation was asked for and is not active.
    """
    prepare_libraries()
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    dtype, folder, facts = compute_dtype(base), directory(base), identity(base)
    if trained is not None and base.adapter == "none":
        folder = trained / WHOLE
        if not (folder / "config.json").is_file():
            raise StageError(f"{trained} holds no model of this pipeline ({WHOLE}/config.json is missing).")
    for why in refusals(read_json(folder / "config.json", InputError), base.quantization):
        raise InputError(f"The model {base.name} cannot be trained here: {why}")
    heads = heads_to_be(folder, base.name, scores=head == "reward")
    check_weights(folder)
    kwargs: dict[str, Any] = {"dtype": dtype, "device_map": {"": device()}, "use_safetensors": True}
    kwargs |= {"output_loading_info": True, "ignore_mismatched_sizes": True}  # check_loaded ignores nothing
    if split and (parts := splitting()):
        del kwargs["device_map"]
        kwargs |= parts
        if base.adapter == "none":
            kwargs["dtype"] = torch.float32  # split weights keep the type that they are loaded in
    if base.attention != "auto":
        kwargs["attn_implementation"] = base.attention
    if base.quantization == "nf4":
        kwargs["quantization_config"] = nf4(dtype, ["lm_head", *heads])
    factory: Any = AutoModelForCausalLM
    if head == "reward":
        factory, kwargs["num_labels"] = AutoModelForSequenceClassification, 1
    try:
        model, info = factory.from_pretrained(folder, **kwargs)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise InputError(f"The model {base.name} cannot be loaded: {one_line(error)}.") from error
    check_loaded(info, base.name, heads)
    if what := stateful(model):
        raise InputError(
            f"The model {base.name} cannot be sampled here: the cache of {what} cannot be forked; choose a base with "
            "attention only."
        )
    if base.quantization == "nf4":
        check_quantised(model, base.name)
        for module in quantised(model).values():
            # On a CPU with AVX512-BF16 the first evaluation would repack the weights, and training could not go on.
            module.support_avx512bf16_for_cpu = False
    model.config.use_cache = False
    model.base_identity = facts
    return model
