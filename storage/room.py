"""Disk: what takes it (`align du`), and removing what nothing needs (`align gc`)."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePath
from typing import Any

from align import whole
from storage import champions, files, layout, runs
from storage.shared import SharedStore
from storage.store import Store
from storage.tags import names as named

UNFINISHED = timedelta(days=7)  # a training that was not resumed for so long is given up


@dataclass(frozen=True)
class Collected:
    """What was removed, or would be."""

    paths: list[tuple[PurePath, int]]  # with their bytes; in a bucket, names
    before: int  # bytes of the store
    busy: bool  # runs are going on: artifacts, attempts and runs were left alone

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self.paths)


def collect(
    store: Store, dry_run: bool = False, keep_runs: int | None = None, keep_days: float | None = None
) -> Collected:
    """Remove what nothing refers to, or only list it.

    With `keep_runs` or `keep_days`, first the runs that neither keeps: the newest `keep_runs` finished ones of each
    recipe, what is newer than the newest finished one, what is younger than `keep_days`, and what has a tag or made a
    champion. Losses and ratings per row go when they were not used for `keep_days`. Nothing that a run may use is
    removed while one is going on: the lock that runs share is held from before the first record is read until the last
    file is gone.
    """
    if isinstance(store, SharedStore):
        from storage import room_shared

        return room_shared.collect(store, dry_run, keep_runs, keep_days)
    before = files.size(store.root)
    with store.alone() as free:
        found = list(_unneeded(store, keep_runs, keep_days)) if free else []
        found += _abandoned(store)
        return Collected([*_removed(store, found, dry_run)], before, not free)


def _removed(store: Store, found: Iterable[Path], dry_run: bool) -> Iterator[tuple[PurePath, int]]:
    abandoned = store.root / "tmp"
    for path, size in [(path, files.size(path)) for path in dict.fromkeys(found)]:
        if not dry_run:
            (_remove_abandoned if path.parent == abandoned else _remove)(path)
        yield path, size


def leftovers(
    store: Store, here: set[str] | None, dry_run: bool, keep_days: float | None
) -> list[tuple[PurePath, int]]:
    """Remove from this machine's directory of a shared store what processes left that were killed, and what it keeps of
    artifacts that are not `here` (None: nobody knows, as runs are going on), or only list it."""
    found = [*_abandoned(store)]
    if here is not None:
        gone = {name for name in files.names(store.root / layout.ARTIFACTS) if name not in here}
        found += [store.root / layout.artifact(name) for name in sorted(gone)]
        found += [*_given_up(store), *_stale_caches(store, lambda name: name in here, keep_days)]
    return [*_removed(store, found, dry_run)]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        # The manifest goes first: what is half removed is not an artifact any more. So does a run's record.
        for name in ("manifest.json", "run.json"):
            (path / name).unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(FileNotFoundError):
            path.unlink()


def _remove_abandoned(path: Path) -> None:
    """Remove a draft, or the lock of one, while holding that lock: somebody may have begun there since it was looked
    at, and whoever is waiting for it finds that it is another file now."""
    lock = _lock_of(path)
    with suppress(BlockingIOError), files.locked(lock, wait=False):
        _remove(path)
        lock.unlink(missing_ok=True)


def _lock_of(path: Path) -> Path:
    return path if path.suffix == ".lock" else path.with_suffix(".lock")


def _unneeded(store: Store, keep_runs: int | None, keep_days: float | None) -> Iterator[Path]:
    history = runs.history(store)
    kept = {run["run_id"] for run in history}
    if keep_runs is not None or keep_days is not None:
        kept = kept_runs(store, history, keep_runs, keep_days)
        yield from (store.root / layout.run(run["run_id"]) for run in history if run["run_id"] not in kept)
    # A run without a readable record is not removed: its stages still say what it used.
    unread = set(store.names(layout.RUNS)) - {run["run_id"] for run in history}
    records = [stage for run_id in sorted(kept | unread) for stage in runs.stages(store, run_id)]
    used, keys = {s["artifact"] for s in records}, {s["key"] for s in records}
    used |= {champion.artifact for champion in champions.every(store)}
    gone = {path.name for path in _inside(store.root / layout.ARTIFACTS) if path.name not in used}
    yield from (store.root / layout.artifact(name) for name in sorted(gone))
    for folder in _inside(store.root / layout.ATTEMPTS):
        made = {a.artifact for a in store.attempts(folder.name)} if folder.name not in keys else set()
        if made and all(name in gone or not _is_there(store, name) for name in made):
            yield folder
    yield from _given_up(store)
    yield from _stale_caches(store, lambda name: name not in gone and _is_there(store, name), keep_days)


def _given_up(store: Store) -> Iterator[Path]:
    """Checkpoints of what is done or was not resumed, and locks that nobody holds."""
    for folder in _inside(store.root / "checkpoints"):
        stage, _, key = folder.name.rpartition("-")
        if any(a.stage == stage for a in store.attempts(key)) or _unchanged(folder) > UNFINISHED:
            yield folder
    for run in _inside(store.root / layout.RUNS):
        if runs.never_began(run) and not files.is_locked(run / "lock"):
            yield run
    yield from (lock for lock in _inside(store.root / "locks") if lock.name != "in-use" and not files.is_locked(lock))


def _unchanged(folder: Path) -> timedelta:
    newest = max((p.stat().st_mtime for p in [folder, *files.tree(folder)]), default=0.0)
    return datetime.now(UTC) - datetime.fromtimestamp(newest, UTC)


def _is_there(store: Store, artifact: str) -> bool:
    return store.manifest(artifact) is not None


def kept_runs(store: Store, history: list[dict[str, Any]], keep_runs: int | None, keep_days: float | None) -> set[str]:
    """The ids of runs that one of the two keeps, or a name."""
    kept = set(named(store).values())
    if keep_days is not None:
        oldest = (datetime.now(UTC) - timedelta(days=keep_days)).isoformat()
        kept |= {run["run_id"] for run in history if run["started_at"] >= oldest}
    finished: dict[str, int] = {}  # recipe -> finished runs seen, newest first
    for run in reversed(history):
        seen = finished.setdefault(run["recipe"], 0)
        if run["status"] == "done":
            finished[run["recipe"]] += 1
            kept |= {run["run_id"]} if seen < (keep_runs or 0) else set()
        elif keep_runs is not None and seen == 0:
            kept.add(run["run_id"])  # what failed since may be resumed
    return kept


def _stale_caches(store: Store, here: Callable[[str], bool], keep_days: float | None) -> Iterator[Path]:
    for folder in ("verified", "damaged"):
        yield from (path for path in _inside(store.root / "cache" / folder) if not here(path.stem))
    for path in _inside(store.root / "cache" / "digests"):
        known = files.read_json(path)
        if not isinstance(known, dict) or not Path(str(known.get("path"))).exists():
            yield path
    for path in _inside(store.root / "cache" / "reports"):
        if path.name != "index.html" and not (store.root / "runs" / path.stem / "run.json").exists():
            yield path
    for path in _inside(store.root / "cache" / "progress"):
        if not files.is_locked(store.root / "runs" / path.name / "lock"):
            yield path
    if keep_days is not None:
        oldest = datetime.now(UTC).timestamp() - keep_days * 86400
        rows = store.root / "cache" / "rows"
        yield from (p for p in files.tree(rows) if rows.is_dir() and p.stat().st_mtime < oldest)


def _abandoned(store: Store) -> Iterator[Path]:
    """What processes left that were killed: drafts whose lock nobody holds, damaged artifacts that were set aside."""
    folder = store.root / "tmp"
    for path in _inside(folder):
        if not files.is_locked(_lock_of(path)):
            yield path
    hour_ago = datetime.now(UTC).timestamp() - 3600  # a file that is being written is renamed within seconds
    for name in (*layout.LASTING, "cache"):
        for path in files.walk(store.root / name):
            with suppress(FileNotFoundError):
                if whole.is_draft(path) and path.stat().st_mtime < hour_ago:
                    yield path


def _inside(folder: Path) -> list[Path]:
    return [folder / name for name in files.names(folder)]


def usage(store: Store) -> list[tuple[str, str, int, int]]:
    """What takes disk: (by, name, things, bytes), by stage, recipe, age and kind of file.

    An artifact that runs of several recipes use counts for each; what no run uses is `(no run)`.
    """
    if isinstance(store, SharedStore):
        from storage import room_shared

        return room_shared.usage(store)
    sizes = {path.name: files.size(path) for path in _inside(store.root / layout.ARTIFACTS)}
    manifests = {name: store.manifest(name) for name in sizes}
    found = groups(store, sizes, manifests)
    for path in _inside(store.root):
        found.append(("folder", path.name, sum(1 for _ in files.walk(path)), files.size(path)))
    return ordered([*found, ("store", store.where, len(sizes), files.size(store.root))])


def groups(
    store: Store, sizes: Mapping[str, int], manifests: Mapping[str, Mapping[str, Any] | None]
) -> list[tuple[str, str, int, int]]:
    """Artifacts by recipe, stage and age, as in `usage`."""
    now = datetime.now(UTC)
    stage_of, age_of = {}, {}
    for name, manifest in manifests.items():
        stage_of[name] = manifest["stage"] if manifest else "(damaged)"
        age_of[name] = _age(now, manifest["created_at"]) if manifest else "(damaged)"
    recipes: dict[str, set[str]] = {}
    for run in runs.history(store):
        for stage in runs.stages(store, run["run_id"]):
            if stage["artifact"] in sizes:
                recipes.setdefault(run["recipe"], set()).add(stage["artifact"])
    recipes["(no run)"] = set(sizes) - set().union(*recipes.values())
    found = [("recipe", name, len(names), sum(sizes[n] for n in names)) for name, names in sorted(recipes.items())]
    for by, of in (("stage", stage_of), ("age", age_of)):
        for group in sorted(set(of.values())):
            names = {name for name in sizes if of[name] == group}
            found.append((by, group, len(names), sum(sizes[n] for n in names)))
    return found


def ordered(found: Iterable[tuple[str, str, int, int]]) -> list[tuple[str, str, int, int]]:
    """What takes disk without what takes none, the largest first."""
    return sorted(
        (f for f in found if f[2]), key=lambda f: (("store", "folder", "stage", "recipe", "age").index(f[0]), -f[3])
    )


def _age(now: datetime, created_at: str) -> str:
    days = (now - datetime.fromisoformat(created_at)).days
    return next(
        (name for limit, name in ((1, "< 1 day"), (7, "< 7 days"), (30, "< 30 days")) if days < limit), ">= 30 days"
    )
