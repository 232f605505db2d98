"""Tags: names that people give to runs. What a tag names is kept by `align gc`."""

import re
from typing import Any

from align import whole
from storage import files
from storage.store import Store

_NAME = re.compile(r"[\w][\w.-]{0,63}")


def is_name(name: str) -> bool:
    """Whether a run may be called that: letters, digits, `_`, `-` and `.`, at most 64."""
    return _NAME.fullmatch(name) is not None


def tags(store: Store) -> dict[str, str]:
    """Run ids by tag."""
    found: dict[str, Any] = {}
    for file in files.names(store.root / "tags"):
        value = files.read_json(store.root / "tags" / file)
        if file.endswith(".json") and isinstance(value, dict) and isinstance(value.get("run_id"), str):
            found[file.removesuffix(".json")] = value["run_id"]
    return found


def put(store: Store, name: str, run_id: str) -> None:
    """Let `name` mean a run, whatever it meant before."""
    whole.replace(store.root / "tags" / f"{name}.json", {"run_id": run_id}, durable=True)


def remove(store: Store, name: str) -> bool:
    """Forget a tag; whether there was one."""
    path = store.root / "tags" / f"{name}.json"
    found = path.exists()
    path.unlink(missing_ok=True)
    return found
