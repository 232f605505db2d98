"""The login of a Prefect server, `user:password`, and the directories that hold it: for their owner alone."""

import os
import secrets
import stat
from pathlib import Path


def new() -> str:
    """A login that nobody can guess (256 bits)."""
    return f"admin:{secrets.token_urlsafe(32)}"


def kept(path: Path) -> str:
    """The login in `path`. A new one is written where there is none, or one that others could read.

    One process at a time.
    """
    private(path.parent)
    if known := read(path):
        return known
    path.unlink(missing_ok=True)
    login = new()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(login + "\n")
    return login


def read(path: Path) -> str | None:
    """The login in `path`, if there is one that was written by this user for this user alone, and in full."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW)) as file:
            about = os.fstat(file.fileno())
            text = file.read(200)
    except (OSError, UnicodeDecodeError):
        return None
    own = about.st_uid == os.geteuid() and not stat.S_IMODE(about.st_mode) & 0o077
    return text.strip() if own and text.startswith("admin:") and text.endswith("\n") and len(text) > 40 else None


def private(folder: Path) -> Path:
    """The directory, made where it is missing, closed to all but its owner."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    about = folder.stat()
    if about.st_uid == os.geteuid() and stat.S_IMODE(about.st_mode) & 0o077:
        folder.chmod(0o700)
    return folder
