"""Names of runs: tags, which people give, and the champions, which have theirs by promotion. `align gc` keeps both."""

import re
from typing import Any

from storage import champions, layout
from storage.store import Store

_NAME = re.compile(r"[\w][\w.-]{0,63}")


def is_name(name: str) -> bool:
    """Whether a run may be called that: letters, digits, `_`, `-` and `.`, at most 64; champion is taken."""
    return _NAME.fullmatch(name) is not None and name != CHAMPION


CHAMPION = "champion"


def names(store: Store) -> dict[str, str]:
    """Run ids by name: those of tags, and `champion:RECIPE` for the run that each recipe's champion is of."""
    return tags(store) | {f"{CHAMPION}:{champion.recipe}": champion.run_id for champion in champions.every(store)}


def meant(store: Store, name: str) -> str:
    """The run id that a name stands for, else the name itself, which may be one. `champion` is the champion of the
    recipe that ran last, of those that have one."""
    if name == CHAMPION and (champion := champions.latest(store)):
        return champion.run_id
    return names(store).get(name, name)


def tags(store: Store) -> dict[str, str]:
    """Run ids by tag."""
    found: dict[str, Any] = {}
    for file in store.names(layout.TAGS):
        value = store.load(f"{layout.TAGS}/{file}")
        if file.endswith(".json") and isinstance(value, dict) and isinstance(value.get("run_id"), str):
            found[file.removesuffix(".json")] = value["run_id"]
    return found


def put(store: Store, name: str, run_id: str) -> None:
    """Let `name` mean a run, whatever it meant before."""
    store.replace(layout.tag(name), {"run_id": run_id})


def remove(store: Store, name: str) -> bool:
    """Forget a tag; whether there was one."""
    return store.remove(layout.tag(name))
