"""Rows of JSON: one object per line, objects over several lines, or the elements of one array."""

import json
import re
from collections.abc import Iterator
from typing import Any

from align.data import streams
from align.data.streams import MAX_LINE, Line, Text, line_end, physical, twofold
from align.errors import InputError

MAX_DEPTH = 100  # brackets within brackets: far from where Python's own recursion ends, and from any real row
MAX_DIGITS = 4300  # of an integer: past them Python does not write it any more
_SPACE = re.compile(r"[ \t\r\n]*")
_LINE_END = re.compile(r"[\r\n]")
_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\Z)|[\[\]{}]', re.DOTALL)


class _Decoder:
    """Decodes JSON values. What JSON allows and no row should hold is a flaw of the value: a key that comes twice, an
    integer too long to be written again. NaN and Infinity, which are not JSON, are null, as other tools write them;
    control characters may stand in strings as they are, and their row says whether it takes them."""

    def __init__(self) -> None:
        self.flaw: str | None = None
        self._json = json.JSONDecoder(
            object_pairs_hook=self._object, parse_int=self._int, parse_constant=lambda _: None, strict=False
        )

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = twofold(name for name, _ in pairs)
            self.flaw = f"has the key {(twice or '')[:40]!r} twice"
        return found

    def _int(self, digits: str) -> int | None:
        if len(digits) <= MAX_DIGITS:
            return int(digits)
        self.flaw = f"holds an integer of more than {MAX_DIGITS:,} digits"
        return None

    def value(self, text: str, at: int = 0) -> tuple[Any, int]:
        """The value that begins at `at`, and where it ends. Raises JSONDecodeError or RecursionError."""
        self.flaw = None
        return self._json.raw_decode(text, at)

    def row(self, number: int, value: Any, text: str) -> Line:
        """The line of a value that was just decoded from `text`."""
        if self.flaw is None and text.count("[") + text.count("{") > MAX_DEPTH and too_deep(value):
            self.flaw = f"is nested more than {MAX_DEPTH} deep"
        if self.flaw is None and not isinstance(value, dict):
            self.flaw = f"is a JSON {type(value).__name__}, not an object"
        return Line(number, None, self.flaw, text[:2000]) if self.flaw else Line(number, value)


def too_deep(value: Any) -> bool:
    """Whether lists and objects lie more than MAX_DEPTH deep in each other."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [v for c in level for v in (c.values() if isinstance(c, dict) else c) if isinstance(v, dict | list)]
        if not level:
            return False
    return True


def rows(start: str, text: Text) -> Iterator[Line]:
    """The rows of a text that begins with `start`, whichever of the three forms it has."""
    if start.lstrip()[:1] == "[":
        yield from _values(start, text, line_end(start), array=True)
        return
    first = _SPACE.match(start).end()  # type: ignore[union-attr]
    while not (_LINE_END.search(start, first) or text.ended or len(start) > MAX_LINE or _ends(start, first)):
        start += text.read(len(start))  # the first row may be longer than a block
    end = line_end(start)
    if _by_lines(start, first, end):
        yield from _lines(start, text, end)
    else:
        yield from _values(start, text, end, array=False)


def _ends(start: str, first: int) -> bool:
    """Whether the value that begins at `first` ends before the text does."""
    try:
        return _Decoder().value(start, first)[1] < len(start)
    except (json.JSONDecodeError, RecursionError):
        return False


def _by_lines(start: str, first: int, end: str) -> bool:
    """Whether a text, of which the first value begins at `first`, holds one object per line.

    Its first line tells, unless it is damaged; then a later one must be an object by itself. Within an object over
    several lines none is, unless lines are not indented.
    """
    line = start[first:].split(end, 1)[0]
    try:
        rest = _Decoder().value(start, first)[1] - first
        if rest > len(line) or not line[rest:].strip():
            return rest <= len(line)
    except (json.JSONDecodeError, RecursionError):
        pass
    return is_json(line) or any(len(s) > 4 and s.startswith("{") and is_json(s) for s in start.split(end))


def is_json(line: str) -> bool:
    """Whether a line is one JSON array or object."""
    try:
        return isinstance(json.loads(line), dict | list)
    except RecursionError:
        return True
    except ValueError as e:
        return not isinstance(e, json.JSONDecodeError)  # right but for a number that Python does not take


def _lines(start: str, text: Text, end_of_line: str) -> Iterator[Line]:
    decoder = _Decoder()
    for number, line in enumerate(physical(start, text, end_of_line), 1):
        line = line.strip(" \t\r\ufeff")
        if not line:
            continue
        try:
            value, end = decoder.value(line)
            if end < len(line):
                raise json.JSONDecodeError("Extra data", line, end)
        except RecursionError:
            yield Line(number, None, f"is nested more than {MAX_DEPTH} deep", line[:2000])
        except json.JSONDecodeError as e:
            yield Line(number, None, f"is not valid JSON ({e.msg})", line[:2000])
        else:
            yield decoder.row(number, value, line)


def _values(start: str, text: Text, end_of_line: str, array: bool) -> Iterator[Line]:
    """The elements of one JSON array, or of a run of JSON values, decoded one at a time."""
    decoder, path = _Decoder(), text.path
    buffer, at, number, first = start, 0, 1, True

    def ahead() -> str:
        """The next character that is no white space, which moves `at` there; empty at the end."""
        nonlocal buffer, at, number
        while True:
            after = _SPACE.match(buffer, at).end()  # type: ignore[union-attr]
            number += buffer.count(end_of_line, at, after)
            at = after
            if at < len(buffer) or text.ended:
                return buffer[at : at + 1]
            buffer, at = text.read(streams.BLOCK), 0

    if array:
        ahead()
        at += 1
    while True:
        if len(buffer) - at < streams.BLOCK // 4 and not text.ended:
            buffer, at = buffer[at:] + text.read(streams.BLOCK), 0
        sign = ahead()
        if array and sign == "]":
            at += 1
            if ahead():
                raise InputError(f"{path}:{number}: text follows the end of the JSON array")
            return
        if array and not first and sign == ",":
            at += 1
            sign = ahead()
        elif array and not first and sign:
            raise InputError(f"{path}:{number}: not valid JSON (a comma or ] is missing after an element)")
        if not sign:
            if array:
                raise InputError(f"{path} ends inside its JSON array, at line {number}: the file is cut off")
            return
        while True:
            try:
                value, end = decoder.value(buffer, at)
                if end < len(buffer) or text.ended:
                    break
            except json.JSONDecodeError as e:
                cut = e.msg.startswith("Unterminated") or e.pos >= len(buffer) - 16
                if not cut or text.ended or len(buffer) - at > MAX_LINE:
                    line = number + buffer.count(end_of_line, at, min(e.pos, len(buffer)))
                    raise InputError(f"{path}:{line}: not valid JSON ({e.msg})") from e
            except RecursionError as e:
                value, end = None, _end(buffer, at)
                decoder.flaw = f"is nested more than {MAX_DEPTH} deep"
                if end:
                    break
                if text.ended or len(buffer) - at > MAX_LINE:
                    raise InputError(f"{path}:{number}: not valid JSON (brackets that are never closed)") from e
            buffer, at = buffer[at:] + text.read(max(streams.BLOCK, len(buffer) - at)), 0
        yield decoder.row(number, value, buffer[at:end])
        number += buffer.count(end_of_line, at, end)
        at, first = end, False


def _end(text: str, at: int) -> int:
    """Where the array or object that begins at `at` ends; 0 if it does not."""
    depth = 0
    for found in _BRACKET.finditer(text, at):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found[0], 0)
        if depth == 0:
            return found.end()
    return 0
