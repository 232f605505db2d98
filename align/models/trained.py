"""What a training stage leaves: an adapter, or all weights where base.adapter is none. Saved, checked, loaded again.

A policy is NF4 weights plus a LoRA adapter. For inference the NF4 weights are dequantised once and the adapter is
merged into them, which is the same function without a dequantisation in every forward pass. `artifact` is always the
directory of the training stage, which holds adapter/ or model/.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import StageError
from align.models.base import WHOLE, BaseConfig, compute_dtype, identity, load_model
from align.models.files import adapter_shape, adapter_weights, attach, check_weights, read_json
from align.models.finite import not_finite
from align.models.quantise import dequantise
from align.models.reader import Reader
from align.models.shards import is_split, reshard

if TYPE_CHECKING:
    import torch

REWARD = "reward.json"  # beside the weights: they are a reward model, of the kind that stands there


def folder(artifact: Path) -> Path:
    """Where the weights of an artifact lie, with what belongs to them."""
    return found if (found := artifact / WHOLE).is_dir() else artifact / "adapter"


def files(artifact: Path, *ends: str) -> list[Path]:
    """The files that decide what the trained model says, or those whose names end so."""
    ends = ends or (".safetensors", "config.json", "base.json")
    return sorted(p for p in folder(artifact).glob("*") if p.name.endswith(ends))


def weights(artifact: Path) -> "dict[str, torch.Tensor]":
    """The tensors as they lie in the artifact, on the CPU. StageError unless its files are whole and finite."""
    from safetensors.torch import load_file

    if folder(artifact).name != WHOLE:
        return adapter_weights(artifact)
    check_weights(folder(artifact))
    return {name: value for file in files(artifact, ".safetensors") for name, value in load_file(str(file)).items()}


def policy(base: BaseConfig, artifact: Path | None) -> Any:
    """The model for inference, as plain matrices: the base, or what was made of it.

    Raises StageError if the adapter was trained on another base, or is a reward model.
    """
    if artifact is not None:
        check_policy(base, artifact)
    model = load_model(base, trained=artifact)
    if base.quantization == "nf4":
        dequantise(model, compute_dtype(base))
    return merge(model, artifact)


def unmerged(base: BaseConfig, artifact: Path) -> Any:
    """The policy as training starts from it: on the quantised base, with its adapter beside it."""
    check_policy(base, artifact)
    model = load_model(base, trained=artifact)
    return model if base.adapter == "none" else attach(model, artifact, adapter_shape(artifact))


def merge(model: Any, artifact: Path | None) -> Any:
    """Merge an adapter into the plain matrices of `model`, if there is one, and set it to evaluation without gradients.

    Raises StageError for an adapter that is damaged or does not fit, and where a merged weight is not finite.
    """
    if artifact is not None and folder(artifact).name != WHOLE:
        model = attach(model, artifact, adapter_shape(artifact)).merge_and_unload()
        if name := not_finite(model.named_parameters()):
            raise StageError(
                f"The adapter {artifact.name} merged into the base gives a weight that is not finite ({name}); train "
                "it again with a lower learning_rate."
            )
    model.config.use_cache = True
    return model.eval().requires_grad_(False)


def save_trained(model: Any, chat: Reader, base: BaseConfig, out: Path) -> Path:
    """Write `<out>/adapter` (the adapter named default) or `<out>/model`, with tokenizer and base.json.

    Equal models give equal bytes. Of a model that is split over processes rank 0 writes all. Raises StageError if the
    base's files changed since the model was loaded, or a weight is not finite.
    """
    weights = _trained(model)
    if name := not_finite(weights.items()):
        raise StageError(
            f"The trained weight {name} is not finite; nothing is saved; train again with a lower learning_rate."
        )
    if identity(base) != model.base_identity:
        raise StageError(f"The files of {base.name} changed while a model was trained on it; run again.")
    if base.adapter == "none":
        place = out / WHOLE
        dtype = compute_dtype(base)  # that of evaluation: what is saved is what is graded
        place.mkdir(parents=True, exist_ok=True)
        model.config.distributed_config = None  # the weights are whole here
        if weights:  # else rank 0 has them
            model.save_pretrained(str(place), state_dict={name: value.to(dtype) for name, value in weights.items()})
    else:
        place = out / "adapter"
        _save_adapter(model, base, place)
    for file in place.glob("*.safetensors"):
        file.chmod(0o644)  # safetensors makes it private to its user
    chat.tokenizer.save_pretrained(str(place))
    facts = {**model.base_identity, "hub": base.hub, "revision": base.revision, **chat.facts()}
    _write_json(place / "base.json", facts)
    return place


def _trained(model: Any) -> dict[str, Any]:
    from peft import PeftModel, get_peft_model_state_dict

    if isinstance(model, PeftModel):
        found: dict[str, Any] = get_peft_model_state_dict(model, save_embedding_layers=False)
        return found
    if is_split(model):
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        reshard(model)
        found = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        twice = model.all_tied_weights_keys.keys()  # they were one tensor, but are two when put together
        return {name: value for name, value in found.items() if name not in twice}
    return {name: value.detach() for name, value in model.state_dict().items()}


def _save_adapter(model: Any, base: BaseConfig, place: Path) -> None:
    for config in model.peft_config.values():
        config.base_model_name_or_path = base.hub
        config.revision = base.revision
    model.save_pretrained(str(place), selected_adapters=["default"], save_embedding_layers=False)
    (place / "README.md").unlink(missing_ok=True)
    facts = json.loads((place / "adapter_config.json").read_text())
    # PEFT fills in the directory that the base was loaded from, and writes sets in the order of this process's hashes
    facts["base_model_name_or_path"] = base.hub
    if not isinstance(facts["target_modules"], str):  # a regular expression
        facts["target_modules"] = sorted(facts["target_modules"])
    _write_json(place / "adapter_config.json", facts)


def check_trained(base: BaseConfig, artifact: Path) -> None:
    """StageError unless what lies in the artifact was trained on this base, equally quantised, and as it asks for."""
    file = artifact / (WHOLE if base.adapter == "none" else "adapter") / "base.json"
    if not file.is_file():
        what = "model" if base.adapter == "none" else "adapter"
        raise StageError(f"{artifact} holds no {what} of this pipeline ({what}/base.json is missing).")
    trained, now = read_json(file, StageError), identity(base)
    for key, value in now.items():
        if str(trained.get(key)) != value:
            raise StageError(
                f"The adapter {artifact.name} belongs to another base model: its {key} are "
                f"{str(trained.get(key))[:12]}, those of {base.name} are {value[:12]}."
            )


def is_reward_model(artifact: Path) -> bool:
    """Whether it scores texts instead of writing them."""
    return (folder(artifact) / REWARD).is_file()


def check_policy(base: BaseConfig, artifact: Path) -> None:
    """StageError unless the artifact belongs to this base and is a policy: something that responses are drawn from."""
    check_trained(base, artifact)
    if is_reward_model(artifact):
        raise StageError(f"The adapter {artifact.name} is a reward model, not a policy.")


def _write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
