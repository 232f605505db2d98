"""What the stages of a run that goes on are doing: a file each, that is there while its stage runs.

    cache/progress/<run id>/<stage>.json   label, done, total, as far as the stage tells (align/progress.py)

Nothing depends on them, and a run that was killed leaves them behind: its lock says that it is over.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from align import whole
from storage import files
from storage.store import Store


def _folder(store: Store, run_id: str) -> Path:
    return store.root / "cache" / "progress" / run_id


@contextmanager
def progress_of(store: Store, run_id: str) -> Iterator[None]:
    """Within, the stages of a run may tell how far they are."""
    try:
        yield
    finally:
        shutil.rmtree(_folder(store, run_id), ignore_errors=True)


@contextmanager
def told(store: Store, run_id: str, stage: str) -> Iterator[Path]:
    """The file in which a stage that runs within tells how far it is."""
    path = _folder(store, run_id) / f"{stage}.json"
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        whole.write(path, b"{}")
    try:
        yield path
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def running(store: Store, run_id: str) -> dict[str, dict[str, Any]]:
    """The stages that are running, with what they told: label, done, total; or nothing yet."""
    folder = _folder(store, run_id)
    found = {name.removesuffix(".json"): files.read_json(folder / name) for name in files.names(folder)}
    return {name: value if isinstance(value, dict) else {} for name, value in found.items()}
