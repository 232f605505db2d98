"""What is wrong with the base model of a recipe, as far as its files tell without reading weights."""

import importlib.util
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from align.models.base import BaseConfig
from align.models.encoder import is_encoder
from align.models.kinds import refusals
from align.text import quote, short

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
_GENERATION = re.compile(r"\{%[-+]?\s*(end)?generation\s*[-+]?%\}")


def problems(base: BaseConfig) -> Iterator[str]:
    """Mistakes as `key: sentence`."""
    try:
        if base.path is not None:
            yield from _directory(base.path, base.chat_template is None)
            yield from _kind("path", base.path / "config.json", base.quantization)
        elif base.hub is not None:
            yield from _hub(base.hub, base.revision)
            if known := _cached(base.hub, str(base.revision)):
                yield from _kind("hub", known, base.quantization)
        if base.chat_template is not None:
            if base.chat_template.is_file():
                yield from _template("chat_template", base.chat_template.read_text(encoding="utf-8"))
            else:
                yield f"chat_template: {short(base.chat_template)} does not exist."
    except UnicodeDecodeError:
        yield f"chat_template: {short(base.chat_template)} is not UTF-8 text."
    except OSError as error:
        yield f"path: {short(error.filename or '')}: cannot be read ({error.strerror})."
    if base.attention == "flash_attention_2" and not any(map(importlib.util.find_spec, ("flash_attn", "kernels"))):
        yield "attention: flash_attention_2 needs the package flash-attn; choose auto, or install it."


def _directory(folder: Path, own_template: bool) -> Iterator[str]:
    if not (folder / "config.json").is_file():
        yield f"path: {short(folder)} is not a model directory (it has no config.json)."
        return
    facts = _json(folder / "config.json")
    if not isinstance(facts, dict):
        yield f"path: {short(folder / 'config.json')} is not a JSON object."
    if not any(folder.glob("*.safetensors")):
        yield f"path: {short(folder)} holds no weights (*.safetensors)."
    index = _json(folder / "model.safetensors.index.json")
    named = set(index["weight_map"].values()) if isinstance(index, dict) and "weight_map" in index else set()
    if missing := sorted(name for name in named if not (folder / str(name)).is_file()):
        yield f"path: {short(folder)} lacks {short(missing[0])}, which its index names."
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        yield f"path: {short(folder)} holds no tokenizer ({', '.join(_TOKENIZERS)})."
    elif own_template and not is_encoder(facts):
        file, settings = folder / "chat_template.jinja", _json(folder / "tokenizer_config.json")
        text = settings.get("chat_template") if isinstance(settings, dict) else None
        text = file.read_text(encoding="utf-8") if file.is_file() else text
        if not text:
            yield f"chat_template: {short(folder)} has none of its own; set base.chat_template to a Jinja file."
        elif isinstance(text, str):
            yield from _template("chat_template", text)


def _kind(key: str, file: Path, quantization: str) -> Iterator[str]:
    facts = _json(file)
    if isinstance(facts, dict):
        yield from (f"{key}: {why}" for why in refusals(facts, quantization))


def _cached(name: str, revision: str) -> Path | None:
    """config.json of a Hub model, if it was fetched before. Without the Hub's library, which takes its time."""
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    folder = cache / f"models--{name.replace('/', '--')}"
    try:
        commit = (folder / "refs" / revision).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        commit = revision
    file = folder / "snapshots" / commit / "config.json"
    return file if file.is_file() else None


def encoder(folder: Path) -> bool:
    """Whether the model in a directory is an encoder, by its config.json. What cannot be read is none."""
    try:
        facts = _json(folder / "config.json")
    except OSError:  # which `problems` tells
        return False
    return isinstance(facts, dict) and is_encoder(facts)


def _json(file: Path) -> Any:
    """What a JSON file holds; None where there is none, or it is not JSON."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return None


def _template(key: str, text: str) -> Iterator[str]:
    from jinja2 import TemplateSyntaxError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    plain = _GENERATION.sub(lambda tag: "{% endif %}" if tag[1] else "{% if true %}", text)
    try:
        ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]).parse(plain)
    except TemplateSyntaxError as error:
        yield f"{key}: the template is no Jinja, line {error.lineno}: {short(error.message)}."
    except RecursionError:
        yield f"{key}: the template is nested too deeply."


def _hub(name: str, revision: str | None) -> Iterator[str]:
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or ".." in name:
        yield f"hub: {quote(name)} is no id of the Hub, such as Qwen/Qwen2.5-1.5B."
    elif os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        from huggingface_hub import try_to_load_from_cache

        if not isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str):
            yield f"hub: {name} at {quote(revision)} is not in the cache, and HF_HUB_OFFLINE forbids to fetch it."
