"""Digests of files, remembered for as long as a file does not change: a base of 15 GB is read once, not at each use.

What is remembered is told apart by size, both times and inode: a modification time can be set back, the time of the
last change (ctime) cannot. It is kept in this process, and in a directory that processes share where one is named.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from align import whole

SETTLED = 2.0
"""Seconds that a file must have been left alone: a change that follows within a file system's tick shows in no time."""

_shared: ContextVar[Path | None] = ContextVar("digests", default=None)
_known: dict[str, dict[str, Any]] = {}


@contextmanager
def kept_in(folder: Path | None) -> Iterator[None]:
    """Keep digests in `folder` too, and find those that other processes kept there."""
    before = _shared.set(folder)
    try:
        yield
    finally:
        _shared.reset(before)


def shared() -> Path | None:
    """The directory that is named to keep digests in."""
    return _shared.get()


def stamp(path: Path) -> list[int]:
    """What changes when a file does: its size in bytes, its times in ns (mtime, ctime) and its inode."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes in hex; they are read again only if the file is not what it was."""
    name, now, folder = os.fspath(path.absolute()), stamp(path), shared()
    file = folder / f"{_sha256(name)[:32]}.json" if folder else None
    memo = _known.get(name)
    if memo is None or memo["stamp"] != now:
        memo = _read(file, name) if file else None
        if memo is None or memo["stamp"] != now:
            begun = time.time()
            value = whole.sha256(path)
            if stamp(path) != now or now[2] / 1e9 > begun - SETTLED:
                return value
            memo = {"path": name, "stamp": now, "sha256": value}
            if file:
                _write(file, memo)
        _known[name] = memo
    return str(memo["sha256"])


def _read(file: Path, name: str) -> dict[str, Any] | None:
    """What is remembered in `file`; None where there is nothing, or it is not whole, or of another path."""
    try:
        memo = json.loads(file.read_text(encoding="utf-8"))
        return memo if memo.pop("check") == _check(memo) and memo["path"] == name else None
    except (OSError, ValueError, RecursionError, AttributeError, TypeError, KeyError):
        return None


def _write(file: Path, memo: dict[str, Any]) -> None:
    """Other processes see all of it or nothing. Where nothing can be written, nothing is remembered."""
    with suppress(OSError):
        whole.replace(file, memo | {"check": _check(memo)})


def _check(memo: dict[str, Any]) -> str:
    return _sha256(json.dumps(memo, sort_keys=True))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
