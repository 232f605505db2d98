"""Files that readers see whole or not at all, their digests, and locks between processes."""

import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """Flush a file or a directory entry list to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def draft_of(path: Path) -> Path:
    """A name beside `path` to write to before renaming. One that a killed process left is removed by `align gc`."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}")


def is_draft(path: Path) -> bool:
    """Whether `draft_of` made that name."""
    return re.fullmatch(r"\..+\.[0-9a-f]{32}", path.name) is not None


def write(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Write `path`, in place of what is there; `durable` survives a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_of(path)
    try:
        with draft.open("wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    if durable:
        fsync(path.parent)


def replace(path: Path, value: Any, *, durable: bool = False) -> None:
    """`write` a value as JSON."""
    write(path, json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"), durable=durable)


@contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[None]:
    """Hold a lock on `path`, alone or with others that share it; the kernel releases it when the holder dies, however
    it dies. Raises BlockingIOError if it is taken and `wait` is off."""
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    kind = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    while True:
        with path.open("a") as file:
            fcntl.flock(file, kind)
            try:  # a lock on a file that was removed meanwhile excludes nobody
                if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    continue
            except FileNotFoundError:
                continue
            yield
            return
