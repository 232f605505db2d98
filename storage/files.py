"""Durable files: what is renamed or linked into place is complete and survives a power cut."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from align.whole import draft_of, fsync, replace
from align.whole import locked as locked


def write_once(path: Path, text: str) -> bool:
    """Write `text` to `path` if nothing is there; readers see all of it or nothing. Returns whether it was written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_of(path)
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    fsync(path.parent)
    return True


def remember(path: Path, value: Any) -> None:
    """`replace` for a cache: on a full or read-only disk nothing is remembered, and nothing else is lost."""
    with suppress(OSError):
        replace(path, value)


def read_json(path: Path) -> Any:
    """The JSON value in `path`, or None where the file is missing or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def is_locked(path: Path) -> bool:
    """Whether a living process holds `path`."""
    import fcntl

    try:
        with path.open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except (FileNotFoundError, NotADirectoryError):
        return False
    except BlockingIOError:
        return True


def tree(path: Path) -> list[Path]:
    """All files below a directory, sorted by their relative names."""
    return sorted((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.relative_to(path).as_posix())


def names(path: Path, after: str = "") -> list[str]:
    """Names of the entries of a directory that follow `after`, sorted, without drafts; none where it is not there."""
    try:
        found = [entry.name for entry in os.scandir(path)]
        return sorted(name for name in found if name > after and not name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def walk(path: Path) -> Iterator[Path]:
    """All files below a directory, or the file itself, in no order; what vanishes meanwhile is passed over."""
    if path.is_file() or path.is_symlink():
        yield path
    for folder, _, found in os.walk(path):
        yield from (Path(folder, name) for name in found)


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a directory."""
    total = 0
    for found in walk(path):
        with suppress(OSError):
            total += found.lstat().st_size
    return total
