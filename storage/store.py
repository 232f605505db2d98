"""The store: immutable artifacts, the attempts that made them, and the runs that used them (storage/layout.py).

Artifacts, attempts and runs are written once and never changed, so any number of processes may share a store.
"""

import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from align import digests, whole
from storage import files, layout, records
from storage.artifact import Artifact, entries_of, kind_of, name_of

One = TypeVar("One")
Other = TypeVar("Other")


def now(after: str = "") -> str:
    """The time in UTC, ISO 8601 with microseconds: sorts as text. It follows `after`, another such time, also where the
    clock was set back: what was made later is what counts."""
    time = datetime.now(UTC)
    time = max(time, datetime.fromisoformat(after) + timedelta(microseconds=1)) if after else time
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class Attempt:
    """One finished execution of a stage."""

    stage: str
    key: str
    artifact: str
    config: dict[str, Any]
    inputs: dict[str, dict[str, Any]]  # role -> artifact, file, digest
    code: dict[str, str]  # module path -> digest of its syntax tree
    versions: dict[str, str]
    metrics: dict[str, Any]
    seconds: float
    created_at: str = field(default_factory=now)
    run: str = ""  # in which it was made; "" where that is not on record

    @classmethod
    def of(cls, record: dict[str, Any]) -> "Attempt":
        """The attempt that a record tells of; fields of later versions are left out."""
        return cls(**{f.name: record[f.name] for f in fields(cls) if f.name in record})


class Store:
    """A directory of artifacts, attempts and runs. Opening it creates nothing."""

    def __init__(self, root: Path):
        self.root = Path(root).absolute()

    journal: Any = None
    """What was recorded, in order (storage/journal.py): where a directory's listings would be slow."""

    @property
    def where(self) -> str:
        """What `--store` has to be for this store."""
        return str(self.root)

    def exists(self) -> bool:
        """Whether anything is there."""
        return self.root.exists()

    # Records: small JSON files by their names in storage/layout.py

    def names(self, folder: str) -> list[str]:
        """Names of the entries of a folder, sorted; none where it is not there."""
        return files.names(self.root / folder)

    def names_after(self, folder: str, name: str) -> list[str]:
        """Those names that follow another, sorted."""
        return files.names(self.root / folder, name)

    def read(self, name: str, kind: str) -> dict[str, Any] | None:
        """The fields of a record, or None where it is missing or malformed."""
        return records.read(self.root / name, kind)

    def problem(self, name: str, kind: str) -> str | None:
        """What is wrong with a record, in words, or None."""
        return records.problem(self.root / name, kind)

    def write(self, name: str, value: dict[str, Any]) -> bool:
        """Write a record if none is there. Returns whether it was written."""
        return records.write(self.root / name, value)

    def tell(self, written: dict[str, dict[str, Any]]) -> None:
        """Let those know of records, name to value, who look for what is new. A directory shows them by itself."""

    def each(self, function: Callable[[One], Other], items: Iterable[One]) -> list[Other]:
        """`function` of every item, in order; several at once where each has to be waited for."""
        return [function(item) for item in items]

    def load(self, name: str) -> Any:
        """A JSON value that may be replaced; None where it is missing or is not JSON."""
        return files.read_json(self.root / name)

    def replace(self, name: str, value: Any) -> None:
        """Put a JSON value in the place of what is there."""
        whole.replace(self.root / name, value, durable=True)

    def remove(self, name: str) -> bool:
        """Remove what was put there by `replace`; whether there was something."""
        found = (self.root / name).exists()
        (self.root / name).unlink(missing_ok=True)
        return found

    # Artifacts

    @contextmanager
    def draft(self, stage: str) -> Iterator[Path]:
        """An empty directory to work in; removed afterwards unless it was published."""
        work = self.root / "tmp" / f"{stage}-{uuid.uuid4().hex[:12]}"
        with files.locked(work.with_suffix(".lock")):
            work.mkdir(parents=True)
            try:
                yield work
            finally:
                shutil.rmtree(work, ignore_errors=True)
                work.with_suffix(".lock").unlink(missing_ok=True)

    def publish(self, stage: str, draft: Path) -> Artifact:
        """Make a draft an artifact. Publishing contents that are already there returns the artifact that is there."""
        entries = entries_of(draft)
        for path in files.tree(draft):
            whole.fsync(path)
        for folder in [draft, *(p for p in draft.rglob("*") if p.is_dir())]:
            whole.fsync(folder)
        name = name_of(stage, entries)
        path = self.root / layout.artifact(name)
        with files.locked(self.root / "locks" / f"publish-{name}"):
            existing = self.artifact(name)
            if existing and not self.damage(existing, thorough=True):
                return existing
            if path.exists():
                path.rename(self.root / "tmp" / f"damaged-{uuid.uuid4().hex}")
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.rename(path)
            whole.fsync(path.parent)
            kind = kind_of(list(entries))
            manifest = {"artifact": name, "stage": stage, "kind": kind, "created_at": now(), "files": entries}
            records.write(path / layout.MANIFEST, manifest)
        return Artifact(name, stage, kind, path, entries)

    def artifact(self, name: str) -> Artifact | None:
        """The artifact of that name, if it is complete."""
        manifest = self.manifest(name)
        if manifest is None:
            return None
        return Artifact(name, manifest["stage"], manifest["kind"], self.root / layout.artifact(name), manifest["files"])

    def manifest(self, name: str) -> dict[str, Any] | None:
        """What is on record about the artifact of that name; None for a name that could lead out of the store."""
        return self.read(layout.manifest(name), "manifest") if layout.is_plain(name) else None

    def fetch(self, artifact: str, file: str | None = None) -> Path:
        """The directory of an artifact, or a file of it, to be read."""
        return self.root / layout.artifact(artifact, file)

    def path_of(self, artifact: str) -> str:
        """Where an artifact lies, for people."""
        return str(self.root / layout.artifact(artifact))

    def content(self, artifact: str, file: str) -> Any:
        """The JSON value in a file of an artifact; None where it is not there, or is not JSON."""
        found = self.artifact(artifact)
        return files.read_json(self.fetch(artifact, file)) if found and file in found.files else None

    def disk(self) -> Any:
        """The file system, for Arrow, in which artifacts' files lie."""
        import pyarrow.fs

        return pyarrow.fs.LocalFileSystem()

    def path_on_disk(self, artifact: Artifact, file: str) -> str:
        """The path of an artifact's file there."""
        return str(artifact.path / file)

    def held(self, artifact: str) -> list[str] | None:
        """The files that lie in an artifact's directory, sorted; None where that is a file."""
        path = self.root / layout.artifact(artifact)
        return [p.relative_to(path).as_posix() for p in files.tree(path)] if path.is_dir() else None

    def damage(self, artifact: Artifact, only: str | None = None, *, thorough: bool = False) -> str | None:
        """What is wrong with an artifact's files (or one of them), in words, or None.

        Files are hashed again only if their size, times or inode are not those of the last check, unless `thorough`.
        """
        known = files.read_json(self._verified(artifact.id))
        seen: dict[str, list[int]] = known if isinstance(known, dict) else {}
        stamps: dict[str, list[int]] = {}
        for name in [only] if only else artifact.files:
            try:
                stamps[name] = digests.stamp(artifact.path / name)
                if stamps[name] == seen.get(name) and not thorough:
                    continue
                if whole.sha256(artifact.path / name) != artifact.files[name]["sha256"]:
                    return f"{artifact.id}/{name} is not what was written"
            except FileNotFoundError:
                return f"{artifact.id}/{name} is missing"
            except OSError as error:
                return f"{artifact.id}/{name} cannot be read ({error.strerror})"
        if any(seen.get(name) != stamp for name, stamp in stamps.items()):
            files.remember(self._verified(artifact.id), seen | stamps)
        return None

    def _verified(self, artifact: str) -> Path:
        """Where is remembered what an artifact's files were like when they were hashed."""
        return self.root / "cache" / "verified" / f"{artifact}.json"

    def artifacts(self) -> Iterator[Artifact]:
        """Every complete artifact."""
        for name in self.names(layout.ARTIFACTS):
            if artifact := self.artifact(name):
                yield artifact

    # Attempts

    def record(self, attempt: Attempt) -> None:
        """Keep an attempt for ever. The newest attempt of a key is the one that hits."""
        self.write(layout.attempt(attempt.key, attempt.created_at), asdict(attempt))

    def attempts(self, key: str | None = None) -> list[Attempt]:
        """Attempts of a key, or all of them (which reads every record), oldest first."""
        keys = [key] if key is not None else self.names(layout.ATTEMPTS)
        found = [Attempt.of(record) for one in keys for record in self.attempt_records(one)]
        return sorted(found, key=lambda a: a.created_at)

    def attempt_records(self, key: str) -> list[dict[str, Any]]:
        """Attempts of a key as they were recorded, oldest first."""
        if not layout.is_plain(key):
            return []
        folder = layout.attempts(key)
        found = self.each(lambda name: self.read(f"{folder}/{name}", "attempt"), self.names(folder))
        return sorted((a for a in found if a), key=lambda a: a["created_at"])

    def lookup(self, key: str) -> tuple[Attempt | None, str | None]:
        """The newest attempt of a key whose artifact is whole; else None and, if there was one, what is wrong."""
        wrong = None
        for attempt in reversed(self.attempts(key)):
            artifact = self.artifact(attempt.artifact)
            wrong = self.damage(artifact) if artifact else "artifact missing"
            if not wrong:
                return attempt, None
        return None, wrong

    @contextmanager
    def computing(self, key: str) -> Iterator[None]:
        """Hold this while computing a key, so that no two processes compute it at once."""
        with files.locked(self.root / "locks" / f"key-{key}"):
            yield

    @contextmanager
    def in_use(self, run_id: str | None = None, *, alone: bool = False) -> Iterator[None]:
        """Hold this while working with the store, so that nothing is removed beneath: who removes holds it `alone`,
        and gets a BlockingIOError where that cannot be. While a run holds it under its id, it is_alive."""
        with ExitStack() as locks:
            locks.enter_context(files.locked(self.root / "locks" / "in-use", shared=not alone, wait=not alone))
            if run_id:
                locks.enter_context(files.locked(self._run_lock(run_id)))
            yield

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Hold the store alone, if nobody is at work with it; whether that is so."""
        with ExitStack() as held:
            try:
                held.enter_context(self.in_use(alone=True))
                free = True
            except BlockingIOError:
                free = False
            yield free

    def still_used(self, run_id: str) -> None:
        """Raise LeaseLost where something may have been removed since a run began to use the store."""

    def is_alive(self, run_id: str) -> bool:
        """Whether a living process is at work on that run."""
        return files.is_locked(self._run_lock(run_id))

    def _run_lock(self, run_id: str) -> Path:
        return self.root / layout.run(run_id) / "lock"

    # Files from outside

    def file_digest(self, path: Path) -> str:
        """sha256 of a file outside the store, remembered for this process and for all that work on the store."""
        with digests.kept_in(self.digests):
            return digests.file_digest(path)

    @property
    def digests(self) -> Path:
        """Where the digests of files outside the store are remembered."""
        return self.root / "cache" / "digests"
