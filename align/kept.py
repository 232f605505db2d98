"""Work kept per row between runs: losses, draws, grades. A changed stage then works on what is new only.

What is kept depends on its key alone, is part of no stage's identity, and may be lost at any time.
"""

import hashlib
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

log = logging.getLogger(__name__)
KEY = 16  # bytes


class Kept:
    """Rows by key: one Parquet file per run that added some, written once and named by the digest of its bytes.

    A file whose bytes are not those of its name is removed, and what it held is computed again. A folder that cannot be
    read or written costs a warning and the work, never the stage. Reading a file renews its modification time, so that
    those nobody uses any more can be told.
    """

    def __init__(self, folder: Path | None, columns: Mapping[str, pa.DataType]):
        self.folder = folder
        self.schema = pa.schema([("key", pa.binary()), *columns.items()])
        self._known: dict[bytes, tuple[Any, ...]] | None = None
        self._warned = False

    def read(self) -> dict[bytes, tuple[Any, ...]]:
        """All that is known: the values of the columns by key."""
        if self._known is None:
            self._known = {}
            try:
                found = sorted(self.folder.iterdir()) if self.folder else []
            except FileNotFoundError:
                found = []
            except OSError as error:
                found = self._warn(error)
            for file in found:
                if file.suffix == ".parquet":
                    self._known |= self._file(file)
        return self._known

    def add(self, new: Mapping[bytes, tuple[Any, ...]]) -> None:
        """Keep new rows for the next run."""
        self.read().update(new)
        if self.folder is None or not new:
            return
        columns = zip(*new.values(), strict=True)
        table = pa.Table.from_arrays(
            [pa.array(v, f.type) for v, f in zip([list(new), *columns], self.schema, strict=True)], schema=self.schema
        )
        buffer = pa.BufferOutputStream()
        pq.write_table(table, buffer, compression="zstd")
        data = buffer.getvalue().to_pybytes()
        draft = self.folder / f".{_digest(data)}.{os.getpid()}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(data)
            draft.replace(self.folder / f"{_digest(data)}.parquet")
        except OSError as error:
            self._warn(error)
            with suppress(OSError):
                draft.unlink()

    def _file(self, file: Path) -> dict[bytes, tuple[Any, ...]]:
        try:
            data = file.read_bytes()
            if _digest(data) == file.stem:
                table = pq.read_table(pa.BufferReader(data))
                with suppress(OSError):
                    os.utime(file)
                keys, *columns = (table[name].to_pylist() for name in self.schema.names)
                return dict(zip(keys, zip(*columns, strict=True), strict=True))
            log.warning("%s is damaged: what it held is computed again", file)
            with suppress(OSError):
                file.unlink()
        except OSError as error:
            self._warn(error)
        return {}

    def _warn(self, error: OSError) -> list[Path]:
        if not self._warned:
            log.warning("work is not kept in %s (%s): the next run does it again", self.folder, error)
        self._warned = True
        return []


def key(*parts: str | bytes) -> bytes:
    """The key of a row: a digest over the parts, which cannot run into each other."""
    h = hashlib.blake2b(digest_size=KEY)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        h.update(len(data).to_bytes(8, "big") + data)
    return h.digest()


@cache
def code_of(package: Path) -> str:
    """A digest over the modules below a directory: what is kept is made by them and is not theirs after a change."""
    found = sorted(package.rglob("*.py"))
    return _digest(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in found))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
