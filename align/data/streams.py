"""The text of a file: unpacked, decoded, in lines, and the place known at which it breaks."""

import codecs
import gzip
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import zstandard

from align.errors import InputError

BLOCK = 1 << 20  # bytes or characters read at a time
MAX_LINE = 1 << 28  # characters of one line or JSON value, past which the text is not plausibly a row
DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError)


class Line(NamedTuple):
    """One row as read: its line (row number in Parquet), its columns, or why it could not be read and its text."""

    number: int
    row: dict[str, Any] | None
    problem: str | None = None
    text: str = ""
    part: bool = False
    """Whether it is part of the malformed row before it, and can have been no row of its own."""


class Zstd:
    """What the frames of a zstd file hold. EOFError if the file ends inside a frame.

    zstandard's own `stream_reader` takes the end of the file for the end of the data, wherever it comes.
    """

    STEP = 1 << 12  # packed bytes at a time: no more than 128 MiB can come of them

    def __init__(self, raw: BinaryIO):
        self.raw, self.rest = raw, b""
        self.frame: Any = None

    def read1(self, _: int = -1) -> bytes:
        """The next bytes, however many; none at the end."""
        while True:
            packed, self.rest = self.rest or self.raw.read(self.STEP), b""
            if not packed:
                if self.frame is not None:
                    raise EOFError("the last frame is cut off")
                return b""
            if self.frame is None:
                self.frame = zstandard.ZstdDecompressor().decompressobj()
            data = self.frame.decompress(packed)
            if self.frame.eof:
                self.rest, self.frame = self.frame.unused_data, None
            if data:
                return data


class Text:
    """The decoded text of a file. InputError with line and byte where it is damaged or not what `encoding` says."""

    def __init__(self, path: Path, raw: BinaryIO, packed: str | None, encoding: str):
        self.path, self.raw, self.packed = path, raw, packed
        self.stream: Any = gzip.GzipFile(fileobj=raw) if packed == "gzip" else Zstd(raw) if packed else raw
        self.decoder = codecs.getincrementaldecoder(encoding)()
        self.line = 1
        self.ended = False

    def read(self, least: int) -> str:
        """`least` characters or some more, not ending between CR and LF; fewer at the end only."""
        parts: list[str] = []
        while not self.ended and (sum(map(len, parts)) < least or parts[-1].endswith("\r")):
            parts.append(self._some())
            self.line += parts[-1].count("\n")
        return "".join(parts)

    def _some(self) -> str:
        try:
            data = self.stream.read1(BLOCK)
            self.ended = not data
            return self.decoder.decode(data, final=self.ended)
        except DAMAGE as e:
            if "requires too much memory" in str(e):
                raise InputError(
                    f"{self.path} is zstd with a window of more than 128 MiB, which is not read: pack it again with "
                    "--long=27 at most"
                ) from e
            raise InputError(
                f"{self.path}:{self.line}: the {self.packed} data is damaged or cut off at byte {self.raw.tell()} "
                f"({e}): fetch or pack the file again"
            ) from e
        except UnicodeDecodeError as e:
            line = self.line + e.object[: e.start].count(b"\n")
            raise InputError(
                f"{self.path}:{line}: the file is not {e.encoding} text ({e.reason}): set `encoding`, for example to "
                f"{'utf-16' if e.object[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else 'cp949'}, "
                "or unpack the file if it is not text"
            ) from e
        except UnicodeError as e:
            raise InputError(f"{self.path}:{self.line}: the text does not have the given encoding ({e})") from e


def known(encoding: str) -> bool:
    """Whether Python decodes text of this encoding bit by bit."""
    try:
        b"\0\0\0\0".decode(encoding)  # of nothing, Python would not even look the name up
        codecs.getincrementaldecoder(encoding)()
    except (LookupError, ValueError, TypeError):
        return False
    return True


def line_end(start: str) -> str:
    """What ends the lines of a text that begins with `start`: CR where there is no LF, as old Macs write."""
    return "\r" if "\r" in start and "\n" not in start else "\n"


def twofold(names: Iterable[str]) -> str | None:
    """The first name that comes a second time."""
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]


def physical(start: str, text: Text, end: str = "\n") -> Iterator[str]:
    """Lines without their `end`, the first of which begin with `start`; InputError for one that never ends."""
    parts: list[str] = []
    number, size = 1, 0
    block = start
    while block:
        *whole, rest = block.split(end)
        for line in whole:
            yield "".join((*parts, line)) if parts else line
            parts, size = [], 0
        number += len(whole)
        parts.append(rest)
        size += len(rest)
        if size > MAX_LINE:
            raise InputError(f"{text.path}:{number}: the line is longer than {MAX_LINE:,} characters, which is no row")
        block = text.read(BLOCK)
    yield "".join(parts)
