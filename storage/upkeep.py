"""Keeping a store in order: hashing everything again, and removing what nothing refers to."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from storage import files, runs
from storage.store import Store


def verify(store: Store) -> Iterator[tuple[str, str | None]]:
    """Every artifact directory with what is wrong with it (None where nothing is), its files read in full."""
    for path in sorted((store.root / "artifacts").glob("*")):
        artifact = store.artifact(path.name)
        wrong = store.damage(artifact, thorough=True) if artifact else "no manifest: it was never finished"
        yield path.name, wrong


def garbage(store: Store) -> list[Path]:
    """What no run refers to: artifacts outside every run, directories without a manifest, abandoned drafts."""
    used = {s["artifact"] for run in runs.history(store) for s in runs.stages(store, run["run_id"])}
    busy = any(run["status"] == "running" for run in runs.history(store))
    found = [] if busy else [p for p in sorted((store.root / "artifacts").glob("*")) if p.name not in used]
    for draft in sorted((store.root / "tmp").glob("*")):
        if draft.suffix != ".lock" and not files.is_locked(draft.with_suffix(".lock")):
            found.append(draft)
    return found


def collect(store: Store, dry_run: bool = False) -> tuple[list[Path], int]:
    """Remove the garbage, or only list it; returns the paths and their bytes."""
    paths = garbage(store)
    size = sum(p.stat().st_size for path in paths for p in (files.tree(path) if path.is_dir() else [path]))
    if not dry_run:
        for path in paths:
            # The manifest goes first: what is half removed is not an artifact any more.
            (path / "manifest.json").unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)
            path.with_suffix(".lock").unlink(missing_ok=True)
    return paths, size
