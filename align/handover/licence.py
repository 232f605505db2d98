"""The licence of a base, as the front matter of its own model card names it."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from align.models.base import BaseConfig


def licence_of(base: BaseConfig) -> str | None:
    """The licence's id, such as apache-2.0; None where the base has no card, or its card names none."""
    file = base.path / "README.md" if base.path else _card(base)
    text = ""
    with suppress(OSError, ValueError, AttributeError):
        text = Path(file).read_text(encoding="utf-8")  # type: ignore[arg-type]
    front = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    value: Any = _yaml(front[1]).get("license") if front else None
    return value if isinstance(value, str) and re.fullmatch(r"[\w.+-]{1,60}", value) else None


def _yaml(text: str) -> dict[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        found = YAML(typ="safe").load(text)
    except (YAMLError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _card(base: BaseConfig) -> str | None:
    """The card of a base on the Hub, in the cache; None where it cannot be had."""
    from huggingface_hub import hf_hub_download

    try:
        return hf_hub_download(str(base.hub), "README.md", revision=base.revision)
    except Exception:  # of the network, or there is none: a licence is nothing that an export depends on
        return None
