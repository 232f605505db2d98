"""Containers: JSON, JSONL, CSV, TSV and Parquet, plain or in gzip or zstd, read row by row.

What a file *is* decides how it is read, not its name: a JSON array in a `.jsonl` file and one object per line in
a `.json` file are both read. A name that promises another container than the bytes hold is an InputError.
Memory does not grow with the file, except for one row at a time.
"""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from align.errors import InputError

BLOCK = 1 << 20  # bytes or characters read at a time
MAX_ELEMENT = 1 << 28  # characters of one JSON value, past which the text is not plausibly a row
MAGIC = {b"PAR1": "Parquet", b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip"}
BY_NAME = {".json": "JSON", ".jsonl": "JSON", ".ndjson": "JSON", ".csv": "CSV", ".tsv": "TSV", ".parquet": "Parquet"}

csv.field_size_limit(1 << 30)


class Line(NamedTuple):
    """One row as read: its line (row number in Parquet), its columns, or why it could not be read and its text."""

    number: int
    row: dict[str, Any] | None
    problem: str | None = None
    text: str = ""


def expand(path: Path) -> list[Path]:
    """The files that `path`, perhaps a glob, names, in order of their names. InputError where there are none."""
    if any(c in str(path) for c in "*?["):
        if path.exists():
            return [path]
        root = Path(*[p for p in path.parts[: _first_glob(path)]])
        found = sorted(p for p in root.glob(str(Path(*path.parts[_first_glob(path) :]))) if p.is_file())
        if not found:
            raise InputError(f"no file matches {path}")
        return found
    if path.is_dir():
        raise InputError(f"{path} is a directory: name a file in it, or all of them as {path}/*.jsonl")
    if not path.exists():
        raise InputError(f"there is no file {path}")
    return [path]


def _first_glob(path: Path) -> int:
    return next(i for i, part in enumerate(path.parts) if re.search(r"[*?\[]", part))


def read_file(path: Path, encoding: str = "utf-8") -> Iterator[Line]:
    """The rows of one file. InputError if it is empty, damaged, or not what its name says."""
    packed = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix.lower())
    named = BY_NAME.get(Path(path.stem if packed else path.name).suffix.lower())
    with path.open("rb") as raw:
        head = raw.read(4)
        if not head:
            raise InputError(f"{path} is empty")
        found = next((name for magic, name in MAGIC.items() if head.startswith(magic)), None)
        if packed and found != packed:
            raise InputError(f"{path} is not {packed}, though its name says so")
        raw.seek(0)
        if found == "Parquet":
            if named not in (None, "Parquet"):
                raise InputError(f"{path} holds Parquet, though its name says {named}")
            yield from _parquet(path)
            return
        if named == "Parquet":
            raise InputError(f"{path} is not a Parquet file, though its name says so")
        stream: Any = raw
        if found == "gzip":
            stream = gzip.GzipFile(fileobj=raw)
        elif found == "zstd":
            stream = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
        elif found:
            raise InputError(f"{path} is a {found} file, which is not read: unpack it first")
        try:
            yield from _text(path, stream, named, "utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding)
        except UnicodeDecodeError as e:
            raise InputError(
                f"{path} is not {e.encoding} text ({e.reason}): set `encoding`, for example to cp949, "
                "or unpack the file if it is not text"
            ) from e
        except (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as e:
            raise InputError(f"{path} is damaged: its {found} data ends or breaks before the end ({e})") from e


def _text(path: Path, stream: Any, named: str | None, encoding: str) -> Iterator[Line]:
    text = io.TextIOWrapper(io.BufferedReader(stream, BLOCK), encoding=encoding, newline="")
    start = text.read(BLOCK)
    first = start.lstrip()[:1]
    if not first:
        raise InputError(f"{path} is empty")
    if "\0" in start:
        raise InputError(f"{path} is not text: it holds NUL bytes")
    looks_json = first in "[{"
    if named is None:
        named = "JSON" if looks_json else None
    if named is None:
        raise InputError(f"cannot tell what {path} is: name it .json, .jsonl, .csv, .tsv or .parquet")
    if named == "JSON":
        if not looks_json:
            raise InputError(f"{path} is not JSON: it begins with {start.lstrip()[:20]!r}")
        yield from _values(path, start, text, array=True) if first == "[" else _objects(path, start, text)
    else:
        if looks_json and _parses(start.lstrip().split("\n")[0]):
            raise InputError(f"{path} holds JSON, though its name says {named}")
        yield from _csv(path, start, text, "\t" if named == "TSV" else ",")


def _parses(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict | list)
    except json.JSONDecodeError:
        return False


def _row(number: int, value: Any, text: str) -> Line:
    if isinstance(value, dict):
        return Line(number, value)
    return Line(number, None, f"is a JSON {type(value).__name__}, not an object", text)


def _objects(path: Path, start: str, text: io.TextIOWrapper) -> Iterator[Line]:
    """One object per line; or, where the first lines are no whole objects, objects over several lines."""
    head = [line for line in start.split("\n")[:20] if line.strip()]
    if not any(_parses(line) for line in head[:5]):
        yield from _values(path, start, text, array=False)
        return
    for number, line in enumerate(_physical(start, text), 1):
        if not line.strip():
            continue
        try:
            yield _row(number, json.loads(line), line)
        except (json.JSONDecodeError, RecursionError) as e:
            yield Line(number, None, f"is not valid JSON ({getattr(e, 'msg', 'nested too deeply')})", line)


def _physical(start: str, text: io.TextIOWrapper) -> Iterator[str]:
    """Lines that end in \\n (a \\r before it is white space to JSON)."""
    rest = start
    while True:
        *whole, rest = rest.split("\n")
        yield from whole
        more = text.read(BLOCK)
        if not more:
            yield rest
            return
        rest += more


_SPACE = re.compile(r"[ \t\r\n]*")


def _values(path: Path, start: str, text: io.TextIOWrapper, array: bool) -> Iterator[Line]:
    """The elements of one JSON array, or of a run of JSON values, decoded one at a time."""
    decoder = json.JSONDecoder()
    buffer, at, number, n, ended = start, 0, 1, 0, False

    def skip(i: int, *, of: str = "") -> int:
        i = _SPACE.match(buffer, i).end()  # type: ignore[union-attr]
        return i + 1 if of and buffer[i : i + 1] == of else i

    if array:
        at = skip(0) + 1
        number += buffer.count("\n", 0, at)
    while True:
        if len(buffer) - at < BLOCK // 4 and not ended:
            more = text.read(BLOCK)
            ended = not more
            buffer, at = buffer[at:] + more, 0
            if not ended and len(buffer) < BLOCK // 4:
                continue
        after = skip(at)
        number += buffer.count("\n", at, after)
        at = after
        if array and buffer[at : at + 1] == "]":
            if buffer[at + 1 :].strip():
                raise InputError(f"{path}:{number}: text follows the end of the JSON array")
            break
        if at >= len(buffer):
            if array:
                raise InputError(f"{path} ends inside its JSON array, at line {number}: the file is cut off")
            break
        while True:
            try:
                value, end = decoder.raw_decode(buffer, at)
                if end >= len(buffer) and not ended:
                    raise json.JSONDecodeError("Unterminated", buffer, end)
                break
            except json.JSONDecodeError as e:
                cut = e.msg.startswith("Unterminated") or e.pos >= len(buffer) - 16
                if not cut or ended or len(buffer) - at > MAX_ELEMENT:
                    line = number + buffer.count("\n", at, min(e.pos, len(buffer)))
                    raise InputError(f"{path}:{line}: not valid JSON ({e.msg})") from e
            except RecursionError as e:
                raise InputError(f"{path}:{number}: JSON nested too deeply") from e
            more = text.read(max(BLOCK, len(buffer) - at))
            ended = not more
            buffer, at = buffer[at:] + more, 0
        yield _row(number, value, buffer[at : min(end, at + 2000)])
        n += 1
        number += buffer.count("\n", at, end)
        at = end
        if array:
            after = skip(at, of=",")
            if buffer[after - 1 : after] != "," and buffer[after : after + 1] not in ("]", ""):
                raise InputError(f"{path}:{number}: not valid JSON (a comma or ] is missing after an element)")
            number += buffer.count("\n", at, after)
            at = after


def _csv(path: Path, start: str, text: io.TextIOWrapper, delimiter: str) -> Iterator[Line]:
    reader = csv.reader((line + "\n" for line in _physical(start, text)), delimiter=delimiter, strict=True)
    names = [name.strip() for name in next(reader)]
    if len(set(names)) < len(names):
        raise InputError(f"{path}: two columns have the same name in the header {names}")
    if len(names) < 2:
        raise InputError(
            f"{path} has one column ({names[0][:40]!r}): is its separator something else than {delimiter!r}?"
        )
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as e:
            raise InputError(f"{path}:{number}: not valid CSV ({e}), where {delimiter!r} separates") from e
        if not any(cells):
            continue
        if len(cells) != len(names):
            yield Line(
                number, None, f"has {len(cells)} fields where the header has {len(names)}", delimiter.join(cells)
            )
        else:
            yield Line(number, dict(zip(names, cells, strict=True)))


def _parquet(path: Path) -> Iterator[Line]:
    try:
        file = pq.ParquetFile(path)
        number = 0
        for batch in file.iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                yield Line(number, row)
    except (pa.ArrowException, OSError) as e:
        raise InputError(f"{path} is a damaged Parquet file ({e})") from e
