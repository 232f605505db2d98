"""An artifact: what its manifest says of its files, and its name, which follows from their contents."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from align import whole
from storage import files


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


def files_digest(entries: dict[str, dict[str, Any]]) -> str:
    """Digest over the names and contents of an artifact's files."""
    return sha256("".join(f"{name}\0{entries[name]['sha256']}\n" for name in sorted(entries)).encode()).hexdigest()


def entries_of(draft: Path) -> dict[str, dict[str, Any]]:
    """What a manifest says of the files below a directory, by their relative names."""
    return {
        path.relative_to(draft).as_posix(): {
            "sha256": whole.sha256(path),
            "bytes": path.stat().st_size,
            "rows": _parquet_rows(path),
        }
        for path in files.tree(draft)
    }


def name_of(stage: str, entries: dict[str, dict[str, Any]]) -> str:
    """The id of the artifact of a stage that holds those files."""
    return f"{stage}-{files_digest(entries)[:16]}"


def kind_of(names: list[str]) -> str:
    """What an artifact holds: adapter, model, report or dataset."""
    for kind in ("adapter", "model"):
        if any(name.startswith(f"{kind}/") for name in names):
            return kind
    return "report" if any(name.endswith(".html") for name in names) else "dataset"


def _parquet_rows(path: Path) -> int | None:
    if path.suffix != ".parquet":
        return None
    import pyarrow.parquet as pq

    return pq.read_metadata(path).num_rows
