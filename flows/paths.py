"""The paths in settings, all at once: made absolute when a recipe is read, and portable when it goes elsewhere."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

ROOT = Path(__file__).resolve().parent.parent
Keys = tuple[str, ...]
T = TypeVar("T", bound=BaseModel)


def changed(value: Any, change: Callable[[Path, Keys], Path], where: Keys = ()) -> Any:
    """The same settings with `change(path, keys)` for every path in them; `keys` lead to it, lists by position."""
    if isinstance(value, BaseModel):
        fields = {n: changed(getattr(value, n), change, (*where, n)) for n in type(value).model_fields}
        return value.model_copy(update={n: v for n, v in fields.items() if v is not getattr(value, n)})
    if isinstance(value, dict):
        return {k: changed(v, change, (*where, str(k))) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(changed(v, change, (*where, str(i))) for i, v in enumerate(value))
    return change(value, where) if isinstance(value, Path) else value


def portable(settings: BaseModel) -> dict[str, Any]:
    """Settings as JSON values for any machine: what lies in this installation is told by where in it it lies."""

    def below(path: Path, _: Keys) -> Path:
        return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path

    told: dict[str, Any] = changed(settings, below).model_dump(mode="json")
    return told


def here(settings: T) -> T:
    """Settings that were portable, with the paths that they have in this installation."""
    found: T = changed(settings, lambda path, _: path if path.is_absolute() else (ROOT / path).resolve())
    return found
