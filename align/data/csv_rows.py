"""Rows of CSV and TSV. A malformed row is set aside alone: reading goes on where rows are well formed again."""

import csv
from collections import deque
from collections.abc import Iterator
from functools import cache
from itertools import islice

from align.data.streams import Line, Text, line_end, physical, twofold
from align.errors import InputError

AHEAD = 10  # rows that are looked at to tell whether a line begins a row
LOST = 200  # lines of which one must begin a row: a file in which none does is refused
BAD = LOST // AHEAD  # lines that may be left out for the sake of one well-formed row more
END = 5  # lines that may be left out for one row fewer that looks like the end of a field
SWALLOWED = 5  # lines within a row from which on they may not all look like rows: of 14,000 answers, one had 3

csv.field_size_limit(1 << 26)


class _Feed:
    """Lines for csv.reader, with those of the present row at hand, so that they can be read again."""

    def __init__(self, lines: Iterator[str]):
        self._lines = lines
        self._again: deque[str] = deque()
        self.taken: list[str] = []

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        self.taken.append(self._again.popleft() if self._again else next(self._lines) + "\n")
        return self.taken[-1]

    def back_to(self, n: int) -> None:
        """Put back all taken lines but the first `n`."""
        self._again.extendleft(reversed(self.taken[n:]))
        del self.taken[n:]

    def ahead(self, n: int) -> list[str]:
        """The next `n` lines, or all that there are."""
        self._again.extend(line + "\n" for line in islice(self._lines, max(0, n - len(self._again))))
        return list(islice(self._again, n))


def rows(start: str, text: Text, delimiter: str) -> Iterator[Line]:
    """The rows of a text that begins with `start`, by the names in its header."""
    feed = _Feed(physical(start, text, line_end(start)))
    number, names = _header(feed, text, delimiter)
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    least = 1  # until a row of many lines is seen, one that looks like rows is more likely to be some
    while True:
        feed.taken.clear()
        problem, cells, torn, like_rows = None, [], False, 0
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as e:
            problem, torn = f"is not valid CSV ({e})", True
            reader = csv.reader(feed, delimiter=delimiter, strict=True)
        if any(cells) and len(cells) != len(names):
            problem = f"has {len(cells)} fields where the header has {len(names)}"
            torn = len(feed.taken) > 1  # a quote of the next row may have closed one of this row
        elif not problem and (like_rows := _like_rows(feed.taken, len(names), delimiter)) >= least:
            problem = f"takes in lines that look like rows, {like_rows} of them, as after a quote never closed"
        if torn:
            feed.back_to(0)
            lost = _lost(feed.ahead(2 * LOST), len(names), delimiter)
            if not lost:
                raise InputError(
                    f"{text.path}:{number}: the row {problem}, where {delimiter!r} separates, "
                    "and so is what follows it: mend the file"
                )
            for _ in range(lost):
                next(feed)
        if problem:
            most = len(feed.taken) if like_rows else _most(feed.taken, len(names), delimiter)
            yield from _set_aside(number, problem, feed.taken, most)
        elif any(cells):
            least = SWALLOWED if len(feed.taken) > 2 else least
            yield Line(number, dict(zip(names, cells, strict=True)))
        number += len(feed.taken)


def _header(feed: _Feed, text: Text, delimiter: str) -> tuple[int, list[str]]:
    """The number of the first line after the header, and the names in it."""
    number = 1
    names: list[str] = []
    while not any(names):
        feed.taken.clear()
        try:
            names = [name.strip() for name in next(csv.reader(feed, delimiter=delimiter, strict=True))]
        except csv.Error as e:
            raise InputError(f"{text.path}:{number}: the header is not valid CSV ({e})") from e
        except StopIteration as e:
            raise InputError(f"{text.path} holds no header, only blank lines") from e
        number += len(feed.taken)
    if (twice := twofold(names)) is not None:
        raise InputError(f"{text.path}: two columns have the same name in the header, {twice[:40]!r}")
    if len(names) < 2:
        raise InputError(
            f"{text.path} has one column ({names[0][:40]!r}): is its separator something else than {delimiter!r}?"
        )
    return number, names


def _set_aside(number: int, problem: str, lines: list[str], most: int) -> Iterator[Line]:
    """A Line for each of a malformed row's lines, of which the limit of bad rows counts the first `most`."""
    for at, line in enumerate(lines):
        if not at:
            yield Line(number, None, problem, line[:2000].rstrip("\r\n"))
        elif line.strip():
            why = f"lies in a malformed row, which {problem}"
            yield Line(number + at, None, why, line[:2000].rstrip("\r\n"), part=at >= most)


def _most(lines: list[str], columns: int, delimiter: str) -> int:
    """How many rows a malformed row's lines can have been: each row after the first needs its separators."""
    return 1 + sum(line.count(delimiter) for line in lines[1:]) // (columns - 1)


def _like_rows(lines: list[str], columns: int, delimiter: str) -> int:
    """How many lines within a row of many lines look like rows themselves, where nine of ten do; else 0.

    A quote that is never closed takes in rows up to the next quote, and where that one ends a field, csv.reader sees
    nothing wrong. A text with commas seldom has the same number of them in each line with no space behind.
    """
    inner, unlike = lines[1:-1], 0
    for line in inner:
        cells = line.rstrip("\r\n").split(delimiter)
        unlike += len(cells) != columns or not (cells[0] and cells[-1]) or any(c[:1].isspace() for c in cells)
        if unlike > len(inner) // 10:
            return 0
    return len(inner) - unlike


def _lost(lines: list[str], columns: int, delimiter: str) -> int:
    """How many of `lines`, which begin with a malformed row, to leave out so that the rest reads best; 0 if none does.

    An unclosed quote takes in the rows after it, and a stray one in a field of several lines leaves lines that look
    like rows; so neither the first line alone nor all of them can simply be left out. The fewest lines are left out
    after which AHEAD rows are well formed, or as many of them as can be. A row with an odd number of quotes, one of
    them at the end of a field, may be right (a pipe of 5") and may be the end of a field whose beginning was left out.
    """

    @cache
    def row(at: int) -> tuple[int, int]:
        """What speaks against a row that begins with this line, and the line after it."""
        reader = csv.reader(islice(lines, at, None), delimiter=delimiter, strict=True)
        try:
            cells = next(reader)
        except csv.Error:
            return BAD, at + 1
        if any(cells) and len(cells) != columns:
            return BAD, at + 1
        after = at + reader.line_num
        odd = sum(line.count('"') for line in lines[at:after]) % 2
        return END if odd and any(cell.endswith('"') for cell in cells) else 0, after

    best, least = 0, len(lines) + AHEAD * BAD + 1
    for n in range(1, len(lines) + 1):
        if n >= least:
            break
        against, at = n, n
        for _ in range(AHEAD):
            if at < len(lines):
                more, at = row(at)
                against += more
        if against < least:
            best, least = n, against
    sound = least < best + AHEAD * BAD
    return best if sound else 0
