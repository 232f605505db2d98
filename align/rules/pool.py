"""The rows that a filter works on: columns as Arrow arrays, and which rows are still in."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from align.config import Metrics
from align.models.base import BaseConfig
from align.rules.languages import languages
from align.rules.shingles import Units, all_units, bounds, each
from align.text import digest

Evidence = dict[str, Any]
Drop = tuple[int, Evidence]  # a row's position in the pool, and why it goes: JSON for people and for SQL


class Rule(Protocol):
    """What the recipe lists: a config whose `rule` is the reason that dropped rows carry."""

    @property
    def rule(self) -> str: ...

    def drops(self, pool: "Pool") -> Iterator[Drop]:
        """The live rows that go."""
        ...


@dataclass
class Pool:
    """The rows being filtered, and what rules leave for others to see."""

    table: pa.Table
    """Columns of ROWS."""
    items: pa.Table
    """What is evaluated on: row_id, source, use, prompt, reference."""
    base: BaseConfig
    seed: int = 0
    cache: Path | None = None
    """Directory for work that is kept per row between runs."""
    alive: np.ndarray = field(init=False)
    """Which rows are still in. [rows]"""
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    """Columns that rules add to the table; nan where a row was dropped before. [rows] each"""
    remarks: dict[int, Evidence] = field(default_factory=dict)
    """Evidence on rows that stay."""
    notes: Metrics = field(default_factory=dict)
    """Metrics that rules add."""
    _quality: np.ndarray | None = None
    _units: dict[str, Units] = field(default_factory=dict)
    _languages: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.alive = np.ones(self.table.num_rows, bool)

    @property
    def live(self) -> np.ndarray:
        """Positions of the rows that are still in."""
        return np.flatnonzero(self.alive)

    def column(self, name: str, at: np.ndarray | None = None) -> pa.ChunkedArray:
        """A column of the live rows, or of those at some positions."""
        if at is None:
            return self.table[name].filter(pa.array(self.alive))
        return self.table[name].take(pa.array(at))

    def text(self, name: str, at: int) -> str:
        """One text; "" for null."""
        return self.table[name][int(at)].as_py() or ""

    def row_id(self, at: int) -> str:
        return str(self.table["row_id"][int(at)].as_py())

    def matching(self, name: str, pattern: str, at: np.ndarray | None = None) -> np.ndarray:
        """Positions of the live rows, or of those at some positions, whose text matches a regular expression (RE2:
        linear in the text's length)."""
        column = self.table[name] if at is None else self.column(name, at)  # looking at a row costs less than copying
        parts = each(lambda c: pc.match_substring_regex(c, pattern), column.chunks)
        hit = pc.fill_null(pa.chunked_array(parts, pa.bool_()), False).to_numpy()
        return np.flatnonzero(hit & self.alive) if at is None else at[hit]

    def languages(self, name: str) -> np.ndarray:
        """The likely language of a column's texts, of all rows: positions in languages.NAMES. [rows] int8"""
        if name not in self._languages:
            self._languages[name] = languages(self.table[name], self.units(name))
        return self._languages[name]

    def units(self, name: str) -> Units:
        """The words of a column, of all rows."""
        if name not in self._units:
            self._units[name] = all_units(self.table[name])
        return self._units[name]

    def chunks(self, name: str) -> Iterator[tuple[np.ndarray, Units]]:
        """The words of a column of the live rows in chunks, the same for every column, with the rows' positions."""
        live, units = self.live, self.units(name)
        for start, stop in bounds(self.units("prompt").counts[live] + self.units("response").counts[live]):
            yield live[start:stop], units.take(live[start:stop])

    @property
    def quality(self) -> np.ndarray:
        """What decides between rows, higher is better: set by the last rule that rates them. [rows]"""
        return np.zeros(self.table.num_rows) if self._quality is None else self._quality

    def rate(self, quality: np.ndarray) -> None:
        """Let `quality` decide between rows from now on; nan is the worst."""
        self._quality = np.nan_to_num(quality, nan=-np.inf, posinf=np.inf, neginf=-np.inf)

    def order(self, at: np.ndarray) -> np.ndarray:
        """Positions from best to worst; equals by the hash of their ids, which no order of files changes."""
        ids = self.column("row_id", at).to_pylist()
        tie = np.array([int(digest(str(self.seed), i, length=15), 16) for i in ids], np.int64)
        return at[np.lexsort((at, tie, -self.quality[at]))]

    def turns(self, at: int) -> list[str]:
        """The texts of a row's turns before the response, the tool calls of a turn as a text of its own behind it."""
        return [m[name] for m in self.table["messages"][int(at)].as_py() for name in _texts(m)]

    def replace(self, name: str, changed: dict[int, str]) -> None:
        """Put other texts in place of some rows' texts."""
        self._replace(name, changed)
        if changed:
            self._units.pop(name, None)
            self._languages.pop(name, None)

    def replace_turns(self, changed: dict[int, list[str]]) -> None:
        """Put other texts in place of those that `turns` gives of some rows."""
        turns = {}
        for at, texts in changed.items():
            rest = iter(texts)
            turns[at] = [{**m, **{n: next(rest) for n in _texts(m)}} for m in self.table["messages"][int(at)].as_py()]
        self._replace("messages", turns)

    def _replace(self, name: str, changed: dict[int, Any]) -> None:
        if not changed:
            return
        column = self.table[name]
        at = np.arange(len(column))
        at[list(changed)] = len(column) + np.arange(len(changed))
        both = pa.chunked_array([*column.chunks, pa.array(list(changed.values()), column.type)])
        self.table = self.table.set_column(self.table.schema.get_field_index(name), name, both.take(pa.array(at)))


def _texts(turn: dict[str, Any]) -> tuple[str, ...]:
    """The fields of a turn that hold its words."""
    return ("content", "tool_calls") if turn.get("tool_calls") is not None else ("content",)
