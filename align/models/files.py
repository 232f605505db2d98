"""What must hold of the files of a base and of an adapter before anything is computed with them.

Libraries fill in what a file lacks with random numbers, quantise a matrix of another shape, and load NaN: none of that
may go unseen. A fault of the base is an InputError, one of an adapter that a stage made a StageError.
"""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from align.errors import InputError, StageError
from align.models.finite import not_finite

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
ADAPTER = "adapter_model.safetensors"


def read_json(file: Path, error: type[InputError] | type[StageError]) -> dict[str, Any]:
    """The JSON object in `file`, or `error` with a sentence that names it."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as reason:
        raise error(f"{file} cannot be read as JSON ({one_line(reason)}); restore the file.") from reason
    if not isinstance(found, dict):
        raise error(f"{file} does not hold a JSON object; restore the file.")
    return found


def one_line(error: BaseException) -> str:
    """What a library's error says, short enough for a sentence."""
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__


def check_config(folder: Path) -> dict[str, Any]:
    """config.json of a base. Raises InputError if it does not say what kind of model it is."""
    facts = read_json(folder / "config.json", InputError)
    if not isinstance(facts.get("model_type"), str):
        raise InputError(
            f"{folder / 'config.json'} has no model_type; set base.path to a model in transformers format."
        )
    return facts


def check_weights(folder: Path) -> None:
    """InputError unless all weight files of the base are there, whole, and hold finite numbers only."""
    files = [folder / SINGLE]
    if not files[0].is_file() and (folder / INDEX).is_file():
        places = read_json(folder / INDEX, InputError).get("weight_map")
        if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
            raise InputError(f"{folder / INDEX} has no weight_map; restore the file.")
        files = [folder / name for name in sorted(set(places.values()))]
    for file in files:
        if not file.is_file():
            raise InputError(f"The weight file {file} is missing; restore the file, or set base.path or base.hub.")
        facts = file.stat()
        _check_tensors(file, facts.st_size, facts.st_mtime_ns)


@cache
def _check_tensors(file: Path, size: int, modified: int) -> None:
    """InputError unless the file is whole and finite. Read once per process, as long as size and time stay the same."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="pt") as tensors:
            wrong = not_finite((name, tensors.get_tensor(name)) for name in tensors.keys())  # noqa: SIM118 (no dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{file} is no whole safetensors file ({one_line(error)}); fetch it again.") from error
    if wrong:
        raise InputError(f"The weight {wrong} in {file} holds numbers that are not finite; use another base model.")


def check_loaded(info: dict[str, Any], name: str, heads: Sequence[str]) -> None:
    """InputError unless the files held every weight of the architecture but the `heads`, in its shape."""

    def new(key: str) -> bool:
        return any(f".{head}." in f".{key}" for head in heads)

    for key, found, wanted in sorted(info["mismatched_keys"], key=str):
        if new(key):
            continue
        raise InputError(
            f"The weight {key} of {name} has the shape {list(found)} where config.json asks for {list(wanted)}; "
            "config.json and the weight files belong to different models."
        )
    missing = sorted(k for k in info["missing_keys"] if not new(k))
    if missing:
        raise InputError(
            f"The weight files of {name} lack {len(missing)} weights that config.json asks for, such as {missing[0]}; "
            "fetch them again."
        )


def adapter_weights(adapter: Path) -> dict[str, Any]:
    """The tensors of the adapter in `<adapter>/adapter`. StageError unless the file is whole and finite."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = adapter / "adapter" / ADAPTER
    if not file.is_file():
        raise StageError(f"The adapter file {file} is missing; run the stage that made it again.")
    try:
        weights = load_file(str(file))
    except (SafetensorError, OSError, ValueError) as error:
        raise StageError(
            f"{file} is no whole safetensors file ({one_line(error)}); run the stage that made it again."
        ) from error
    if wrong := not_finite(weights.items()):
        raise StageError(
            f"The weight {wrong} in {file} holds numbers that are not finite; train the adapter again with a "
            "lower learning_rate."
        )
    return weights


def attach(model: Any, adapter: Path, shape: Any, *, new_heads: Sequence[str] = ()) -> Any:
    """`model` with the adapter in `<adapter>/adapter`, as PEFT wraps it. `shape` is its PEFT config.

    `new_heads` are trained and saved whole, and not in the file yet. Raises StageError, naming the file, if the file is
    damaged, or its tensors are not those that the adapter's config and the base ask for.
    """
    from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    file, weights = adapter / "adapter" / ADAPTER, adapter_weights(adapter)
    try:
        tuned: Any = get_peft_model(model, shape)
    except (ValueError, TypeError) as error:
        raise StageError(f"The adapter {adapter.name} does not fit the base model: {one_line(error)}.") from error
    wanted = get_peft_model_state_dict(tuned, save_embedding_layers=False)
    for name, value in wanted.items():
        if any(f".{head}." in name for head in new_heads):
            weights[name] = value.detach()
        elif name not in weights:
            raise StageError(f"{file} lacks the weight {name}; run the stage that made it again.")
        elif weights[name].shape != value.shape:
            raise StageError(
                f"The weight {name} in {file} has the shape {list(weights[name].shape)} where the base model asks for "
                f"{list(value.shape)}; the adapter belongs to another model."
            )
    if extra := sorted(weights.keys() - wanted.keys()):
        raise StageError(f"{file} has weights that the base has no place for, such as {extra[0]}.")
    set_peft_model_state_dict(tuned, weights)
    return tuned


def adapter_shape(adapter: Path) -> Any:
    """The config of the LoRA adapter in `<adapter>/adapter`. Raises StageError if it is not one."""
    from peft import LoraConfig, PeftConfig

    file = adapter / "adapter" / "adapter_config.json"
    read_json(file, StageError)
    try:
        shape: Any = PeftConfig.from_pretrained(str(file.parent))
    except (ValueError, TypeError, KeyError) as error:
        raise StageError(
            f"{file} is no LoRA configuration ({one_line(error)}); run the stage that made it again."
        ) from error
    if not isinstance(shape, LoraConfig):
        raise StageError(f"{file} is no LoRA configuration; run the stage that made it again.")
    return shape
