"""The store: immutable artifacts, the attempts that made them, and the runs that used them.

    artifacts/<stage>-<digest>/   the files of one artifact, and manifest.json, written last: existence means complete
    attempts/<key>/<time>.json    one execution of a stage: key, config, code, inputs, metrics, the artifact it made
    runs/<run id>/                run.json, one JSON file per stage, finished.json
    champions/<recipe>/<n>.json   the models that were promoted; the last is the champion
    tags/<name>.json              the run that a tag names
    locks/ tmp/ cache/            what may be lost

Artifacts, attempts and runs are written once and never changed, so any number of processes may share a store.
"""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from align import digests, whole
from storage import files, records


def now() -> str:
    """The time in UTC, ISO 8601 with microseconds: sorts as text."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class Artifact:
    """An immutable directory of files, named by the digest of its contents."""

    id: str
    stage: str
    kind: str
    path: Path
    files: dict[str, dict[str, Any]]  # relative name -> sha256, bytes, rows (Parquet only)

    def digest(self, name: str | None = None) -> str:
        """Digest of the whole artifact, or of one of its files."""
        return self.files[name]["sha256"] if name else files_digest(self.files)


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

    @classmethod
    def of(cls, record: dict[str, Any]) -> "Attempt":
        """The attempt that a record tells of; fields of later versions are left out."""
        return cls(**{f.name: record[f.name] for f in fields(cls)})


def files_digest(entries: dict[str, dict[str, Any]]) -> str:
    """Digest over the names and contents of an artifact's files."""
    from hashlib import sha256

    return sha256("".join(f"{name}\0{entries[name]['sha256']}\n" for name in sorted(entries)).encode()).hexdigest()


def kind_of(names: list[str]) -> str:
    """What an artifact holds: adapter, model, report or dataset."""
    for kind in ("adapter", "model"):
        if any(name.startswith(f"{kind}/") for name in names):
            return kind
    return "report" if any(name.endswith(".html") for name in names) else "dataset"


class Store:
    """A directory of artifacts, attempts and runs. Opening it creates nothing."""

    def __init__(self, root: Path):
        self.root = Path(root).absolute()

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
        entries: dict[str, dict[str, Any]] = {}
        for path in files.tree(draft):
            entries[path.relative_to(draft).as_posix()] = {
                "sha256": whole.sha256(path),
                "bytes": path.stat().st_size,
                "rows": _parquet_rows(path),
            }
            whole.fsync(path)
        for folder in [draft, *(p for p in draft.rglob("*") if p.is_dir())]:
            whole.fsync(folder)
        name = f"{stage}-{files_digest(entries)[:16]}"
        path = self.root / "artifacts" / name
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
            records.write(path / "manifest.json", manifest)
        return Artifact(name, stage, kind, path, entries)

    def artifact(self, name: str) -> Artifact | None:
        """The artifact of that name, if it is complete."""
        manifest = self.manifest(name)
        if manifest is None:
            return None
        return Artifact(name, manifest["stage"], manifest["kind"], self.root / "artifacts" / name, manifest["files"])

    def manifest(self, name: str) -> dict[str, Any] | None:
        """What is on record about the artifact of that name; None for a name that could lead out of the store."""
        if "/" in name or "\0" in name or name.startswith(".") or len(name) > 200:
            return None
        return records.read(self.root / "artifacts" / name / "manifest.json", "manifest")

    def damage(self, artifact: Artifact, only: str | None = None, *, thorough: bool = False) -> str | None:
        """What is wrong with an artifact's files (or one of them), in words, or None.

        Files are hashed again only if their size, times or inode are not those of the last check, unless `thorough`.
        """
        seen_path = self.root / "cache" / "verified" / f"{artifact.id}.json"
        known = files.read_json(seen_path)
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
            files.remember(seen_path, seen | stamps)
        return None

    def artifacts(self) -> Iterator[Artifact]:
        """Every complete artifact."""
        for name in files.names(self.root / "artifacts"):
            if artifact := self.artifact(name):
                yield artifact

    # Attempts

    def record(self, attempt: Attempt) -> None:
        """Keep an attempt for ever. The newest attempt of a key is the one that hits."""
        records.write(self.root / "attempts" / attempt.key / f"{attempt.created_at}.json", asdict(attempt))

    def attempts(self, key: str | None = None) -> list[Attempt]:
        """Attempts of a key, or all of them (which reads every record), oldest first."""
        keys = [key] if key is not None else files.names(self.root / "attempts")
        found = [Attempt.of(record) for one in keys for record in self.attempt_records(one)]
        return sorted(found, key=lambda a: a.created_at)

    def attempt_records(self, key: str) -> list[dict[str, Any]]:
        """Attempts of a key as they were recorded, oldest first."""
        if "/" in key or "\0" in key or key.startswith(".") or len(key) > 200:
            return []
        folder = self.root / "attempts" / key
        found = (records.read(folder / name, "attempt") for name in files.names(folder))
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

    # Files from outside

    def file_digest(self, path: Path) -> str:
        """sha256 of a file outside the store, remembered for this process and for all that work on the store."""
        with digests.kept_in(self.digests):
            return digests.file_digest(path)

    @property
    def digests(self) -> Path:
        """Where the digests of files outside the store are remembered."""
        return self.root / "cache" / "digests"


def _parquet_rows(path: Path) -> int | None:
    if path.suffix != ".parquet":
        return None
    import pyarrow.parquet as pq

    return pq.read_metadata(path).num_rows
