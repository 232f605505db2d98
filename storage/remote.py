"""Parquet files of a bucket as Arrow reads them: the parts that a query needs, not whole files.

A file that is on this machine already, or is small, is read here, with its digest verified. Of others the footer and
the pages of the columns that are asked for are read from the bucket; what tells of damage there is their size, and
Parquet's own structure.
"""

import io
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.fs

from align.errors import AlignError
from storage.artifact import Artifact
from storage.bucket import Bucket

if TYPE_CHECKING:
    from storage.shared import SharedStore

SMALL = 1 << 20  # bytes up to which a file is cheaper to fetch than to read in parts


class Ranges(io.RawIOBase):
    """An object as a file that is read in parts."""

    def __init__(self, bucket: Bucket, name: str, size: int):
        self._bucket, self._name, self._size, self._at = bucket, name, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def size(self) -> int:
        """Its bytes, as Arrow asks."""
        return self._size

    def read(self, size: int = -1) -> bytes:
        length = min(size if size >= 0 else self._size, self._size - self._at)
        if length <= 0:
            return b""
        try:
            found = self._bucket.part(self._name, self._at, length)
        except AlignError as error:
            raise OSError(str(error)) from None
        self._at += len(found)
        return found


class Files(pyarrow.fs.FileSystemHandler):
    """A file system with the files of artifacts, by their names in storage/layout.py. It can only be read."""

    def __init__(self, store: "SharedStore"):
        self.store = store

    def get_type_name(self) -> str:
        return "shared"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: list[str]) -> list[Any]:
        found = [(path, self._entry(path)[2]) for path in paths]
        return [pyarrow.fs.FileInfo(path, pyarrow.fs.FileType.File, size=size) for path, size in found]

    def open_input_file(self, path: str) -> Any:
        try:
            artifact, file, size = self._entry(path)
            if size <= SMALL or self.store.is_here(artifact, file):
                return pa.OSFile(str(self.store.fetch(artifact.id, file)))
            return pa.PythonFile(cast(BinaryIO, Ranges(self.store.bucket, path, size)), mode="r")
        except AlignError as error:
            raise OSError(str(error)) from None

    open_input_stream = open_input_file

    def _entry(self, path: str) -> tuple[Artifact, str, int]:
        _, name, file = path.split("/", 2)
        artifact = self.store.artifact(name)
        if artifact is None or file not in artifact.files:
            raise FileNotFoundError(path)
        return artifact, file, artifact.files[file]["bytes"]

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise PermissionError("artifacts are never changed")

    get_file_info_selector = create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = _refuse
    delete_file = move = copy_file = open_output_stream = open_append_stream = _refuse


def filesystem(store: "SharedStore") -> Any:
    """The artifacts of a shared store for Arrow."""
    return pyarrow.fs.PyFileSystem(Files(store))
