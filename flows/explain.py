"""What is wrong with a recipe, in words: one sentence per mistake, with file and line, key, and what was meant."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from align.text import quote, short

MOST = 20  # mistakes that are told


def listed(sentences: Sequence[str]) -> str:
    """Mistakes as the lines of one message."""
    told = list(dict.fromkeys(sentences))
    more = [f"... and {len(told) - MOST} more mistakes."] if len(told) > MOST else []
    return "\n".join([*told[:MOST], *more])


def explain(
    error: ValidationError, model: type[BaseModel], path: Path, data: Any, given: Mapping[tuple[str, ...], str]
) -> str:
    """Every mistake that pydantic found; `data` is the file with its lines, `given` the overrides by what they set."""
    told: dict[tuple[Any, ...], str] = {}
    for entry in error.errors(include_url=False):
        where = [part for part in entry["loc"] if not (isinstance(part, str) and part.endswith("]"))]
        real, line = _locate(data, where, given, entry["type"] in ("missing", "extra_forbidden"))
        # of the members of a union the first speaks for all
        told.setdefault((*real, entry["type"] == "extra_forbidden"), _sentence(entry, model, real, path, line, given))
    return listed(list(told.values()))


def _sentence(
    entry: Mapping[str, Any],
    model: type[BaseModel],
    real: list[Any],
    path: Path,
    line: int,
    given: Mapping[tuple[str, ...], str],
) -> str:
    parts, dotted = tuple(map(str, real)), short(".".join(map(str, real)))
    source = next((f"--set {short(text)}" for keys, text in given.items() if parts[: len(keys)] == keys), None)
    source = source or f"{short(path)}:{line}"
    if entry["type"] == "extra_forbidden":
        known = sorted(set(_keys(model, real[:-1])))
        near = [k for k in known if _initials(k) == parts[-1]] or get_close_matches(parts[-1][:100], known, 1, 0.5)
        hint = f"did you mean {near[0]}?" if near else f"the keys here are {', '.join(known)}."
        return f"{source}: unknown key {dotted}; {hint}"
    if entry["type"] == "missing":
        return f"{source}: {dotted} is missing."
    message = entry["msg"].removeprefix("Value error, ")
    got = "" if isinstance(entry["input"], dict | list | tuple | BaseModel) else f" (got {quote(entry['input'])})"
    return f"{source}: {dotted}: {message[0].lower()}{message[1:]}{got}."


def _initials(key: str) -> str:
    return "".join(word[:1] for word in key.split("_"))


def _locate(
    data: Any, where: Sequence[Any], given: Mapping[tuple[str, ...], str], names_key: bool
) -> tuple[list[Any], int]:
    """The part of a pydantic location that names keys of the file (union tags do not), and the line it stands on.

    `names_key`: the last part is a key though the file does not hold it, or only an override does.
    """
    real: list[Any] = []
    line = 1
    lines: Any
    for i, part in enumerate(where):
        set_here = any(keys[: len(real) + 1] == (*map(str, real), str(part)) for keys in given)
        if isinstance(data, list) and isinstance(part, int) and part < len(data):
            lines = data
            line = lines.lc.item(part)[0] + 1
        elif isinstance(data, dict) and part in data:
            lines = data
            line = lines.lc.key(part)[0] + 1 if part in lines.lc.data else line
        elif not set_here and not (names_key and i == len(where) - 1):
            continue
        real.append(part)
        data = data[part] if isinstance(data, dict | list) and _has(data, part) else None
    return real, line


def _has(data: Any, part: Any) -> bool:
    return part in data if isinstance(data, dict) else isinstance(part, int) and part < len(data)


def _keys(model: Any, where: Sequence[Any]) -> Iterator[str]:
    """Valid keys at a place in a recipe, through nested models, lists, mappings and unions."""
    for i, part in enumerate(where):
        models = [m for m in _models(model) if isinstance(part, int) or part in m.model_fields]
        if isinstance(part, str) and models:
            model = tuple(m.model_fields[part].annotation for m in models)
        elif not isinstance(part, int):
            yield from _keys(get_args(model), where[i + 1 :])
            return
    for found in _models(model):
        yield from found.model_fields


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in annotation if isinstance(annotation, tuple) else get_args(annotation):
        yield from _models(inner)
