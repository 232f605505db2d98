"""Files that readers see whole or not at all, and their digests."""

import hashlib
import json
import os
import re
import uuid
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
