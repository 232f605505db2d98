"""The settings in which two recipes differ, by dotted keys."""

from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Any

from align.comparison.found import Setting
from align.redact import redact
from align.tables import to_json


def settings(before: dict[str, Any], after: dict[str, Any]) -> list[Setting]:
    """What differs between two recipes (JSON values), in the order of the later one. Values hold no secret."""
    return list(_compare((), before, after))


def _compare(at: tuple[str, ...], old: Any, new: Any) -> Iterator[Setting]:
    if old == new and type(old) is type(new):
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*new, *(n for n in old if n not in new)]:
            if name in old and name in new:
                yield from _compare((*at, name), old[name], new[name])
            else:
                yield _one((*at, name), old, new, name)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from _compare((*at, str(i)), a, b)
    elif isinstance(old, list) and isinstance(new, list):
        yield from _lists(at, old, new)
    elif old != new:
        yield Setting(".".join(at), clean(old), clean(new))


def _lists(at: tuple[str, ...], old: list[Any], new: list[Any]) -> Iterator[Setting]:
    """Items that came or went, numbered as in the list that has them."""
    texts = [to_json(v) for v in old], [to_json(v) for v in new]
    for what, i, j, k, m in SequenceMatcher(None, *texts, autojunk=False).get_opcodes():
        if what != "equal":
            yield from (_one((*at, str(n)), {n: old[n]}, {}, n) for n in range(i, j))
            yield from (_one((*at, str(n)), {}, {n: new[n]}, n) for n in range(k, m))


def _one(at: tuple[str, ...], old: dict[Any, Any], new: dict[Any, Any], name: Any) -> Setting:
    """A setting that only one side has."""
    return Setting(".".join(at), clean(old.get(name)), clean(new.get(name)), "before" if name in old else "after")


def clean(value: Any) -> Any:
    """The value with no secret in any of its texts."""
    if isinstance(value, dict):
        return {clean(k): clean(v) for k, v in value.items()}
    if isinstance(value, list):
        return [clean(v) for v in value]
    return redact(value) if isinstance(value, str) else value
