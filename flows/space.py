"""What a sweep tries: the settings that `--set` lists with several values or as a range, and their combinations."""

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from align.errors import InputError

MOST = 1_000  # points; each is a run
DIGITS = 4  # significant digits of a number that is drawn from a range: more would change nothing and read badly
WIDE = 10  # high over low, from which on a range is searched by its logarithm
_OPEN, _CLOSE, _QUOTES = "[{(", "]})", "'\""
_NUMBER = r"[-+]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})(?::(\w+))?")
_WHOLE = re.compile(r"[-+]?\d+")


@dataclass(frozen=True)
class Listed:
    """A setting with several values, as they were written."""

    key: str
    values: tuple[str, ...]

    @property
    def size(self) -> float:
        """How many values there are."""
        return len(self.values)

    @property
    def ends(self) -> tuple[str, ...]:
        """The values that tell whether all can be used."""
        return self.values


@dataclass(frozen=True)
class Range:
    """A setting that may be any number between two, both of them included; with whole ends whole numbers only."""

    key: str
    low: float
    high: float
    log: bool
    whole: bool

    @property
    def size(self) -> float:
        """How many values there are."""
        return self.high - self.low + 1 if self.whole else math.inf

    @property
    def values(self) -> tuple[str, ...]:
        """All of them, of a range of whole numbers."""
        return tuple(str(n) for n in range(int(self.low), int(self.high) + 1))

    @property
    def ends(self) -> tuple[str, ...]:
        """The values that tell whether all can be used."""
        return self.written(self.low), self.written(self.high)

    @property
    def middle(self) -> float:
        """The number half-way, of a logarithmic range by its logarithm."""
        half = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        return round(half) if self.whole else half

    def written(self, number: float) -> str:
        """A number of the range as a value of `--set`; it stays within the range."""
        if self.whole:
            return str(int(number))
        return repr(min(max(float(f"{number:.{DIGITS}g}"), self.low), self.high))


Axis = Listed | Range


@dataclass(frozen=True)
class Space:
    """Every point is one value of each axis, beside what is fixed."""

    fixed: list[str]
    axes: list[Axis]

    @property
    def size(self) -> float:
        """How many points there are; infinite where a range is."""
        return math.prod(axis.size for axis in self.axes)

    def points(self) -> Iterator[tuple[str, ...]]:
        """All points as settings, the last axis changing fastest. The size has to be finite."""
        yield from itertools.product(*([f"{axis.key}={value}" for value in axis.values] for axis in self.axes))

    def edges(self) -> Iterator[tuple[str, ...]]:
        """Points in which every listed value and every end of a range stands once, beside the first of the others."""
        first = [f"{axis.key}={axis.ends[0]}" for axis in self.axes]
        for i, axis in enumerate(self.axes):
            for value in axis.ends:
                yield (*first[:i], f"{axis.key}={value}", *first[i + 1 :])


def space(overrides: Sequence[str], *, trials: int | None = None) -> Space:
    """The space that overrides span: `key=a,b,c` lists, and where `trials` are drawn from it `key=low..high` ranges.

    Raises InputError where none has several values, or there are more points than a sweep runs.
    """
    found = Space([], [])
    for text in overrides:
        key, equals, written = text.partition("=")
        values = list(_values(written))
        if equals and (span := _RANGE.fullmatch(written.strip())):
            if trials is None:
                raise InputError(
                    f"--set {text}: a range needs --trials, the number of points to try in it; or list values, "
                    f"for instance --set {key}={span[1]},{span[2]}."
                )
            found.axes.append(_range(text, key, span))
        elif equals and len(values) > 1:
            if part := next((v for v in values if _RANGE.fullmatch(v)), None):
                raise InputError(f"--set {text}: {part} is a range, which stands by itself and not in a list.")
            if again := next((v for i, v in enumerate(values) if v in values[:i]), None):
                raise InputError(f"--set {text}: {again} stands there twice; every value is run once.")
            found.axes.append(Listed(key, tuple(values)))
        else:
            found.fixed.append(text)
    if not found.axes:
        ranged = "" if trials is None else ", or a range, --set sft.learning_rate=1e-4..1e-2"
        raise InputError(
            f"A sweep needs a setting with several values, for instance --set dpo.beta=0.05,0.1,0.2{ranged}."
        )
    if trials is None and found.size > MOST:
        raise InputError(
            f"These settings have {found.size:.0f} combinations; {MOST} is the most that a sweep runs; "
            "--trials 20 searches 20 of them."
        )
    if trials is not None and not 1 <= trials <= MOST:
        raise InputError(f"--trials is a number from 1 to {MOST}.")
    return found


def _range(text: str, key: str, span: re.Match[str]) -> Range:
    low, high, scale = span[1], span[2], span[3]
    whole = all(_WHOLE.fullmatch(end) for end in (low, high))
    ends = [int(end) if whole else float(end) for end in (low, high)]
    if scale not in (None, "log", "linear"):
        raise InputError(f"--set {text}: after a range stands :log, :linear or nothing.")
    if not ends[0] < ends[1] or not all(map(math.isfinite, ends)):
        raise InputError(f"--set {text}: a range goes from a smaller number to a larger one.")
    if scale == "log" and ends[0] <= 0:
        raise InputError(f"--set {text}: a logarithmic range begins above 0.")
    wide = ends[0] > 0 and ends[1] / ends[0] >= WIDE * (1 - 1e-9)
    return Range(key, ends[0], ends[1], log=scale == "log" or (scale is None and wide), whole=whole)


def _values(text: str) -> Iterator[str]:
    """The parts between commas that stand in no bracket and no quotes."""
    begun, depth, quote = 0, 0, ""
    for i, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in _QUOTES and not text[begun:i].strip():
            quote = letter
        elif letter in _OPEN + _CLOSE:
            depth += 1 if letter in _OPEN else -1
        elif letter == "," and depth == 0:
            yield text[begun:i].strip()
            begun = i + 1
    yield text[begun:].strip()
