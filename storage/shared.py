"""A store that machines share: a bucket, with a directory of this machine before it.

The bucket is the truth. Records go to it first, by put if absent, and are kept here as they are read. Artifacts are
built here, uploaded file by file, the manifest last, and come down when a stage reads them, each file with its digest
verified. What is held between processes of one machine by the kernel's locks is held between machines by leases
(storage/leases.py), and what is new is found in the journal (storage/journal.py).
"""

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from align import digests, whole
from align.errors import InputError, StageError
from storage import files, layout, leases, records
from storage.artifact import Artifact, entries_of, kind_of, name_of
from storage.bucket import Bucket, Object
from storage.journal import Journal
from storage.store import Attempt, One, Other, Store, now

_FRESH = 10.0  # seconds for which an artifact that was seen counts as there


class SharedStore(Store):
    """A store in a bucket; `root` is the directory of this machine, and may be lost. `seconds` is how long a lease
    holds without a sign of its holder."""

    def __init__(self, bucket: Bucket, root: Path, seconds: float = leases.SECONDS):
        super().__init__(root)
        self.bucket, self.seconds = bucket, seconds
        self.journal = Journal(bucket, self.root / "cache" / "journal")
        self._held: dict[str, leases.Lease] = {}  # by the key that is computed
        self._mine = threading.local()  # the lease under which this thread works
        self._there: dict[str, tuple[float, dict[str, Object]]] = {}

    @property
    def where(self) -> str:
        """Its URL."""
        return self.bucket.url

    def exists(self) -> bool:
        return bool(self.bucket.names(""))

    @cached_property
    def who(self) -> str:
        """The name of this machine's directory among the holders of leases."""
        path = self.root / "machine.json"
        files.write_once(path, json.dumps(uuid.uuid4().hex))
        return str(files.read_json(path))

    # Records

    def names(self, folder: str) -> list[str]:
        return self.bucket.names(folder)

    def names_after(self, folder: str, name: str) -> list[str]:
        found = self.bucket.below(folder, f"{folder}/{name}")
        return sorted({object.name[len(folder) + 1 :].partition("/")[0] for object in found})

    def read(self, name: str, kind: str) -> dict[str, Any] | None:
        if found := records.read(self.root / name, kind):
            return found
        data = self.bucket.get(name) or b""
        if found := records.parse(data, kind)[0]:
            with suppress(OSError):
                whole.write(self.root / name, data)
        return found

    def problem(self, name: str, kind: str) -> str | None:
        data = self.bucket.get(name)
        return records.parse(data, kind)[1] if data is not None else "is not there"

    def write(self, name: str, value: dict[str, Any]) -> bool:
        data = records.encode(value).encode()
        written = self.bucket.put(name, data) is not None or self.bucket.get(name) == data
        if written:
            with suppress(OSError):
                whole.write(self.root / name, data)
        return written

    def tell(self, written: dict[str, dict[str, Any]]) -> None:
        self.journal.append(written)

    def each(self, function: Callable[[One], Other], items: Iterable[One]) -> list[Other]:
        return self.bucket.each(function, items)

    def load(self, name: str) -> Any:
        with suppress(ValueError):
            return json.loads(self.bucket.get(name) or b"null")

    def replace(self, name: str, value: Any) -> None:
        self.bucket.replace(name, json.dumps(value, ensure_ascii=False).encode())

    def remove(self, name: str) -> bool:
        found = self.bucket.stat(name) is not None
        self.bucket.remove([name])
        return found

    # Artifacts

    def publish(self, stage: str, draft: Path) -> Artifact:
        entries = entries_of(draft)
        name, kind = name_of(stage, entries), kind_of(list(entries))
        artifact = Artifact(name, stage, kind, self.root / layout.artifact(name), entries)
        with files.locked(self.root / "locks" / f"publish-{name}"):
            self._there.pop(name, None)
            existing = self.artifact(name)
            if not existing or self.damage(existing):
                self.each(lambda file: self.bucket.upload(layout.artifact(name, file), draft / file), entries)
                self._bad(name).unlink(missing_ok=True)  # of what was written anew the tag may be the same
                self._write_manifest(artifact)
            for file in entries:
                (artifact.path / file).parent.mkdir(parents=True, exist_ok=True)
                (draft / file).replace(artifact.path / file)
            self._remember(artifact, entries)
            self._there.pop(name, None)
        return artifact

    def _write_manifest(self, made: Artifact) -> None:
        if lease := getattr(self._mine, "lease", None):
            lease.check()
        name = layout.manifest(made.id)
        manifest = {"artifact": made.id, "stage": made.stage, "kind": made.kind, "created_at": now(),
                    "files": made.files}  # fmt: skip
        if not self.write(name, manifest) and self.problem(name, "manifest"):
            self.bucket.replace(name, records.encode(manifest).encode())

    def manifest(self, name: str) -> dict[str, Any] | None:
        if not layout.is_plain(name) or layout.MANIFEST not in self._files(name):
            return None
        return self.read(layout.manifest(name), "manifest")

    def path_of(self, artifact: str) -> str:
        return f"{self.where}/{layout.artifact(artifact)}"

    def disk(self) -> Any:
        from storage.remote import filesystem

        return filesystem(self)

    def path_on_disk(self, artifact: Artifact, file: str) -> str:
        return layout.artifact(artifact.id, file)

    def is_here(self, artifact: Artifact, file: str) -> bool:
        """Whether a file is on this machine, as it was written."""
        return super().damage(artifact, file) is None

    def held(self, artifact: str) -> list[str] | None:
        found = self._files(artifact)
        return sorted(found) if found or self.bucket.stat(layout.artifact(artifact)) is None else None

    def damage(self, artifact: Artifact, only: str | None = None, *, thorough: bool = False) -> str | None:
        """What is wrong with an artifact's files in the bucket: by their sizes and by what this machine has read of
        them, or, if `thorough`, by reading them all."""
        there, bad = self._files(artifact.id), self._known_bad(artifact.id)
        for name in [only] if only else artifact.files:
            found = there.get(name)
            if found is None:
                return f"{artifact.id}/{name} is missing"
            wrong = found.size != artifact.files[name]["bytes"] or bad.get(name) == found.tag
            if not wrong and thorough:
                wrong = self._digest(artifact, name, None) != artifact.files[name]["sha256"]
            if wrong:
                files.remember(self._bad(artifact.id), bad | {name: found.tag})
                return f"{artifact.id}/{name} is not what was written"
        return None

    def fetch(self, artifact: str, file: str | None = None) -> Path:
        """The directory of an artifact, or a file of it, on this machine, as it was written."""
        found = self.artifact(artifact)
        if found is None:
            raise InputError(f"{artifact} is not in {self.where} any more; `align run` makes it again.")
        wanted = [file] if file else list(found.files)
        if any(super(SharedStore, self).damage(found, name) for name in wanted):
            with files.locked(self.root / "locks" / f"fetch-{artifact}"):
                self.each(partial(self._fetch, found), wanted)
        return found.path / file if file else found.path

    def _fetch(self, artifact: Artifact, file: str) -> None:
        if super().damage(artifact, file) is None:
            return
        path = artifact.path / file
        for _ in range(2):
            if self._digest(artifact, file, path) == artifact.files[file]["sha256"]:
                return self._remember(artifact, [file])
        path.unlink(missing_ok=True)
        self._there.pop(artifact.id, None)
        self.damage(artifact, file, thorough=True)
        raise StageError(
            f"{artifact.id}/{file} in {self.where} is not what was written; `align run` makes damaged artifacts again."
        )

    def _digest(self, artifact: Artifact, file: str, to: Path | None) -> str | None:
        with suppress(FileNotFoundError):
            return self.bucket.download(layout.artifact(artifact.id, file), to)
        return None

    def _remember(self, artifact: Artifact, names: Iterable[str]) -> None:
        known = files.read_json(self._verified(artifact.id))
        stamps = {name: digests.stamp(artifact.path / name) for name in names}
        files.remember(self._verified(artifact.id), (known if isinstance(known, dict) else {}) | stamps)

    def _files(self, artifact: str) -> dict[str, Object]:
        """The objects of an artifact, by the names of its files."""
        at, found = self._there.get(artifact, (-_FRESH, {}))
        if time.monotonic() - at > _FRESH or layout.MANIFEST not in found:
            folder = layout.artifact(artifact)
            found = {o.name.removeprefix(f"{folder}/"): o for o in self.bucket.below(folder)}
            self._there[artifact] = time.monotonic(), found
        return found

    def _bad(self, artifact: str) -> Path:
        return self.root / "cache" / "damaged" / f"{artifact}.json"

    def _known_bad(self, artifact: str) -> dict[str, str]:
        known = files.read_json(self._bad(artifact))
        return known if isinstance(known, dict) else {}

    # Attempts

    def record(self, attempt: Attempt) -> None:
        """Keep an attempt for ever. Raises LeaseLost, and keeps nothing, where its key may be computed by another."""
        told = {layout.attempt(attempt.key, attempt.created_at): asdict(attempt)}
        if manifest := self.read(layout.manifest(attempt.artifact), "manifest"):
            told[layout.manifest(attempt.artifact)] = manifest
        if lease := self._held.get(attempt.key):
            lease.decide({"records": told})
        self.carry_out({"records": told})

    def carry_out(self, decision: leases.Decision) -> None:
        """Do what was decided under a lease; once more where it is done already."""
        for name, value in decision["records"].items():
            if name.startswith(f"{layout.ATTEMPTS}/"):
                self.write(name, value)
        self.tell(decision["records"])

    @contextmanager
    def computing(self, key: str) -> Iterator[None]:
        """Hold this while computing a key, so that no two machines compute it at once."""
        with super().computing(key), self._hold(f"key/{key}", carry_out=self.carry_out) as lease:
            self._held[key] = self._mine.lease = lease
            try:
                yield
            finally:
                del self._held[key], self._mine.lease

    # Who is at work

    @contextmanager
    def in_use(self, run_id: str | None = None, *, alone: bool = False) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(super().in_use(run_id, alone=alone))
            if alone:
                stack.enter_context(self._removing())
            else:
                lease = stack.enter_context(self._hold(f"use/{run_id or uuid.uuid4().hex}"))
                self._held |= {run_id: lease} if run_id else {}
                while self.lives(f"{layout.LEASES}/gc"):
                    time.sleep(min(1.0, self.seconds / 10))
                self._there.clear()
            yield

    def still_used(self, run_id: str) -> None:
        if lease := self._held.get(run_id):
            lease.check()

    def still_alone(self) -> None:
        """Raise LeaseLost where others may have begun to work since this thread began to hold the store alone."""
        self._mine.lease.check()

    @contextmanager
    def _removing(self) -> Iterator[None]:
        with self._hold("gc", wait=False) as lease:
            leases.end_all(self.bucket, f"{layout.LEASES}/use", self.who, self.seconds)
            self._mine.lease = lease
            try:
                yield
            finally:
                del self._mine.lease

    def is_alive(self, run_id: str) -> bool:
        return super().is_alive(run_id) or self.lives(f"{layout.LEASES}/use/{run_id}")

    def lives(self, lease: str) -> bool:
        """Whether a lease is held by another machine; of this one the kernel's locks say more."""
        found = leases.look(self.bucket, lease)
        if found is None or found[1]["holder"] == self.who:
            return False
        return leases.is_held(self.bucket, found[0], self.who, self.seconds)

    def _hold(self, name: str, **how: Any) -> Any:
        # The kernel's lock of the same name is held, so that no other process of this machine holds the lease.
        return leases.hold(self.bucket, f"{layout.LEASES}/{name}", self.who, mine=True, seconds=self.seconds, **how)
