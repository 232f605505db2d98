"""Containers: JSON, JSONL, CSV, TSV and Parquet, plain or in gzip or zstd, read row by row.

What a file *is* decides how it is read, not its name: a JSON array in a `.jsonl` file and one object per line in
a `.json` file are both read. A name that promises another container than the bytes hold is an InputError.
Memory does not grow with the file, except for one row at a time.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from align.data import csv_rows, json_rows, parquet_rows, streams
from align.data.streams import Line, Text
from align.errors import InputError

MAGIC = {b"PAR1": "Parquet", b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip", b"BZh": "bzip2",
         b"\xfd7zX": "xz", b"\x04\x22\x4d\x18": "lz4"}  # fmt: skip
SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")  # a zstd frame without data, with which pzstd begins
BY_NAME = {".json": "JSON", ".jsonl": "JSON", ".ndjson": "JSON", ".csv": "CSV", ".tsv": "TSV", ".parquet": "Parquet"}
PACKED = {".gz": "gzip", ".zst": "zstd"}
MAX_NUL = 0.01  # of the characters: fewer are flaws of rows, more are no text


def expand(path: Path) -> list[Path]:
    """The files that `path`, perhaps a glob, names, in order of their names. InputError where there are none.

    What a glob finds and cannot be a file of rows, such as a folder, is passed over unless its name says that it is.
    """
    try:
        at = next((i for i, part in enumerate(path.parts) if re.search(r"[*?\[]", part)), None)
        if at is None or path.exists():
            return [_file(path)]
        found = sorted(Path(*path.parts[:at]).glob(str(Path(*path.parts[at:]))))
    except (OSError, ValueError, NotImplementedError) as e:
        raise InputError(f"{str(path)[:200]} cannot be looked for: {getattr(e, 'strerror', None) or e}") from e
    files = [_file(p) for p in found if p.is_file() or p.is_symlink() or p.suffix.lower() in {*BY_NAME, *PACKED}]
    if not files:
        raise InputError(f"no file matches {path}")
    return files


def _file(path: Path) -> Path:
    if path.is_dir():
        raise InputError(f"{path} is a directory: name a file in it, or all of them as {path}/*.jsonl")
    if not path.exists():
        raise InputError(f"there is no file {path}" + (", which its link points to" if path.is_symlink() else ""))
    if not path.is_file():
        raise InputError(f"{path} is no regular file, and would read differently each time: write its data to one")
    return path


def read_file(path: Path, encoding: str = "utf-8") -> Iterator[Line]:
    """The rows of one file. InputError if it is empty, damaged, unreadable, or not what its name says."""
    try:
        yield from _rows(path, encoding)
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror or e}") from e


def _rows(path: Path, encoding: str) -> Iterator[Line]:
    packed = PACKED.get(path.suffix.lower())
    named = BY_NAME.get(Path(path.stem if packed else path.name).suffix.lower())
    with path.open("rb") as raw:
        head = raw.read(4)
        if not head:
            raise InputError(f"{path} is empty")
        found = next((name for magic, name in MAGIC.items() if head.startswith(magic)), None)
        begun = [(name, magic) for magic, name in MAGIC.items() if magic.startswith(head)]
        if SKIPPABLE.fullmatch(head):
            found = "zstd"
        if any(name in (packed, named) and len(head) < len(magic) for name, magic in begun):
            raise InputError(f"{path} is cut off at byte {len(head)}: fetch it again")
        if packed and found != packed:
            raise InputError(f"{path} is not {packed}, though its name says so")
        if found == "Parquet":
            if named not in (None, "Parquet"):
                raise InputError(f"{path} holds Parquet, though its name says {named}")
            yield from parquet_rows.rows(path)
            return
        if named == "Parquet":
            raise InputError(
                f"{path} is Parquet packed once more, which is not read: unpack it first"
                if packed
                else f"{path} is not a Parquet file, though its name says so"
            )
        if found not in (None, "gzip", "zstd"):
            raise InputError(f"{path} is a {found} file, which is not read: unpack it first")
        raw.seek(0)
        marked = "utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding
        yield from _text(Text(path, raw, found, marked), named)


def _text(text: Text, named: str | None) -> Iterator[Line]:
    path, start = text.path, text.read(streams.BLOCK).lstrip("\ufeff")
    first = start.lstrip()[:1]
    if not first:
        raise InputError(f"{path} is empty")
    if start.count("\0") > MAX_NUL * len(start):
        raise InputError(f"{path} is not text: it holds NUL bytes")
    looks_json = first in "[{"
    if named is None and not looks_json:
        raise InputError(f"cannot tell what {path} is: name it .json, .jsonl, .csv, .tsv or .parquet")
    if named in (None, "JSON"):
        if not looks_json:
            raise InputError(f"{path} is not JSON: it begins with {start.lstrip()[:20]!r}")
        yield from json_rows.rows(start, text)
    else:
        if looks_json and json_rows.is_json(start.lstrip().split("\n")[0]):
            raise InputError(f"{path} holds JSON, though its name says {named}")
        yield from csv_rows.rows(start, text, "\t" if named == "TSV" else ",")
