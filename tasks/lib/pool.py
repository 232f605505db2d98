"""The rows that a filter works on: columns as Arrow arrays, and which rows are still in."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.lib.models import BaseConfig

Evidence = dict[str, Any]
Drop = tuple[int, Evidence]  # a row's position in the pool, and why it goes: JSON for people and for SQL


class Rule(Protocol):
    """What the recipe lists: a config whose `rule` is the reason that dropped rows carry."""

    rule: str

    def drops(self, pool: "Pool") -> Iterator[Drop]:
        """The live rows that go."""
        ...


@dataclass
class Pool:
    """`table` has the columns of ROWS; `live` says row by row who is still in; `scores` are columns that rules add."""

    table: pa.Table
    items: pa.Table  # what is evaluated on: row_id, prompt, reference
    base: BaseConfig
    seed: int = 0
    alive: np.ndarray = field(init=False)
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    notes: dict[str, float | int | str] = field(default_factory=dict)  # metrics that rules add
    remarks: dict[int, Evidence] = field(default_factory=dict)  # evidence of rows that stay

    def __post_init__(self) -> None:
        self.alive = np.ones(self.table.num_rows, bool)

    @property
    def live(self) -> np.ndarray:
        """Positions of the rows that are still in."""
        return np.flatnonzero(self.alive)

    def column(self, name: str, where: np.ndarray | None = None) -> pa.ChunkedArray:
        """A column of the live rows, or of those at `where`."""
        if where is None and self.alive.all():
            return self.table[name]
        return self.table[name].take(pa.array(self.live if where is None else where))

    def text(self, name: str, at: int) -> str:
        """One text; "" for null."""
        return self.table[name][at].as_py() or ""

    def row_id(self, at: int) -> str:
        return str(self.table["row_id"][at].as_py())

    def matching(self, name: str, pattern: str) -> np.ndarray:
        """Positions of the live rows whose text matches a regular expression (RE2: linear in the text's length)."""
        hit = pc.fill_null(pc.match_substring_regex(self.column(name), pattern), False)
        return self.live[hit.to_numpy()]

    def quality(self) -> np.ndarray:
        """What decides between rows: the last score that a rule computed; 0 for all without one. [rows]"""
        return next(reversed(self.scores.values())) if self.scores else np.zeros(self.table.num_rows)

    def replace(self, name: str, changed: dict[int, str]) -> None:
        """Put other texts in place of some rows' texts."""
        texts = self.table[name].combine_chunks()
        mask = np.zeros(len(texts), bool)
        mask[list(changed)] = True
        new = pa.array([changed[i] for i in sorted(changed)], pa.string())
        at = self.table.schema.get_field_index(name)
        self.table = self.table.set_column(at, name, pc.replace_with_mask(texts, pa.array(mask), new))


def as_json(evidence: Evidence) -> str:
    return json.dumps(evidence, ensure_ascii=False, separators=(",", ":"))
