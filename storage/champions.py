"""Champions: the promoted model of each recipe, by name, and those before it.

    champions/<recipe>/<number>.json   written once: who became champion as the number-th, and why

The highest number is the champion. A number is taken by whoever writes it first, so that a decision against the
number-th champion becomes the next one or, where another was faster, nothing. What a champion needs is kept by `align
gc`.
"""

import re
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from typing import Any

from storage import layout, runs
from storage.store import Store, now


@dataclass(frozen=True)
class Champion:
    """A promoted model."""

    recipe: str
    number: int
    run_id: str
    model: str
    artifact: str
    decision: str | None
    """The artifact of promote that says yes; None where people promoted it without one."""
    base: dict[str, Any]
    """Its base, as its recipe has it."""
    verdict: str
    """Why, in words."""
    promoted_at: str


def history(store: Store, recipe: str) -> list[Champion]:
    """All champions of the recipe of that name, oldest first; damaged records are left out."""
    return _read(store, _folder(recipe))


def current(store: Store, recipe: str) -> Champion | None:
    """The champion of the recipe of that name."""
    return next(reversed(history(store, recipe)), None)


def every(store: Store) -> list[Champion]:
    """The champion of each recipe that has one."""
    return [found[-1] for path in _folders(store) if (found := _read(store, path))]


def all_of(store: Store) -> list[Champion]:
    """All champions of all recipes."""
    return [champion for path in _folders(store) for champion in _read(store, path)]


def latest(store: Store) -> Champion | None:
    """The champion of the recipe that ran last, of those that have one."""
    by = {champion.recipe: champion for champion in every(store)}
    return next((by[run["recipe"]] for run in reversed(runs.history(store)) if run["recipe"] in by), None)


def last_number(store: Store, recipe: str) -> int:
    """The number of the champion, also where its record is damaged; 0 where there is none."""
    return max((int(name[:-5]) for name in _numbered(store, _folder(recipe))), default=0)


def crown(
    store: Store, recipe: str, after: int, *, run_id: str, model: str, artifact: str, base: dict[str, Any],
    verdict: str, decision: str | None,
) -> Champion | None:  # fmt: skip
    """Make a model the champion that follows number `after`. None where another has followed it already."""
    champion = Champion(recipe, after + 1, run_id, model, artifact, decision, base, verdict, now())
    name = f"{_folder(recipe)}/{champion.number:06d}.json"
    if last_number(store, recipe) != after:
        return None
    return champion if store.write(name, asdict(champion)) else None


def _folder(recipe: str) -> str:
    readable = re.sub(r"[^A-Za-z0-9.+-]", "_", recipe)[:60].lstrip(".")
    return f"{layout.CHAMPIONS}/{readable}-{sha256(recipe.encode()).hexdigest()[:8]}"


def _folders(store: Store) -> list[str]:
    return [f"{layout.CHAMPIONS}/{name}" for name in store.names(layout.CHAMPIONS)]


def _numbered(store: Store, folder: str) -> list[str]:
    return [name for name in store.names(folder) if re.fullmatch(r"\d+\.json", name)]


def _read(store: Store, folder: str) -> list[Champion]:
    found = (store.read(f"{folder}/{name}", "champion") for name in _numbered(store, folder))
    return [Champion(**{f.name: record[f.name] for f in fields(Champion)}) for record in found if record]
