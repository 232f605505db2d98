"""Rows of CSV and TSV. A malformed row is set aside alone: reading goes on where rows are well formed again."""

import csv
import re
from collections import deque
from collections.abc import Iterator
from itertools import islice

from align.data.streams import Line, Text, physical
from align.errors import InputError

AHEAD = 10  # rows in a row that must be well formed for what follows a malformed one to be believed
LOST = 200  # lines after which nothing is believed any more: such a file is refused

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

    def ahead(self) -> list[str]:
        """The next LOST lines, or all that there are."""
        self._again.extend(line + "\n" for line in islice(self._lines, max(0, LOST - len(self._again))))
        return list(islice(self._again, LOST))


def rows(start: str, text: Text, delimiter: str) -> Iterator[Line]:
    """The rows of a text that begins with `start`, by the names in its header."""
    end = "\r" if "\r" in start and "\n" not in start else "\n"
    feed = _Feed(physical(start, text, end))
    number, names = _header(feed, text, delimiter)
    sound = _well_formed(len(names), delimiter)
    strict = True  # whether rows are well formed, so far as they were looked at
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    while True:
        feed.taken.clear()
        problem, cells, torn = None, [], False
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
        if problem and (torn or strict) and not _recovered(feed, sound):
            if torn:
                raise InputError(
                    f"{text.path}:{number}: the row {problem}, where {delimiter!r} separates, "
                    "and so is what follows it: mend the file"
                )
            feed.back_to(1)
            strict = False
        if problem:
            yield Line(number, None, problem, "".join(feed.taken)[:2000].rstrip("\r\n"))
        elif any(cells):
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
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{text.path}: two columns have the same name in the header, {twice[:40]!r}")
    if len(names) < 2:
        raise InputError(
            f"{text.path} has one column ({names[0][:40]!r}): is its separator something else than {delimiter!r}?"
        )
    return number, names


def _recovered(feed: _Feed, sound: re.Pattern[str]) -> bool:
    """Leave in `feed.taken` the fewest lines after which rows are well formed; False if there are too many.

    An unclosed quote takes in the rows after it, and a stray one in a field of several lines leaves lines that look
    like rows; so neither the first line alone nor all of them can simply be left out.
    """
    feed.back_to(1)
    while not _believable(feed.ahead(), sound):
        if len(feed.taken) == LOST:
            return False
        next(feed)
    return True


def _believable(lines: list[str], sound: re.Pattern[str]) -> bool:
    text, at = "".join(lines), 0
    for n in range(AHEAD):
        found = sound.match(text, at)
        if found is None:
            return not text[at:].strip()
        if found["open"] is not None:
            return n > 0 and len(lines) == LOST
        at = found.end()
    return True


def _well_formed(columns: int, delimiter: str) -> re.Pattern[str]:
    """A row of RFC 4180: quotes around whole fields only, those inside doubled; or one that is open to the end."""
    inside = r'"[^"]*+(?:""[^"]*+)*+'
    field = rf'(?:{inside}"|[^"\r\n{delimiter}]*)'
    return re.compile(
        rf"{field}(?:{delimiter}{field}){{{columns - 1}}}\r?\n|(?P<open>(?:{field}{delimiter})*{inside}\Z)"
    )
