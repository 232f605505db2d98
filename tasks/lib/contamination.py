"""Contamination: training rows that hold an evaluation item, word for word, by a long n-gram, or in other words.

n-gram overlap as in GPT-3 (Brown et al. 2020, 13 words) and Tülu 3 (share of the item that is covered); an item that
was altered in a few words is found by its rarest bigrams and decided by the words that it still shares, in order.
"""

from collections import Counter
from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Literal

import numpy as np
from pydantic import Field

from tasks.lib.config import Config
from tasks.lib.pool import Drop, Evidence, Pool
from tasks.lib.shingles import U64, Units, all_units, grams, ragged, sets, spans
from tasks.lib.text import normalise

RAREST = 24  # bigrams of an item by which rows are found that may hold it
SHARED = 0.3  # of which a row must have this share
COMMON = 500  # items that share a bigram, past which it tells nothing
FEWEST = 4  # words (characters: three times as many) from which an item counts as found inside a longer text


class Contamination(Config):
    """Drop rows that hold an item of an evaluation set. It always comes first: nothing may select on leaked rows."""

    rule: Literal["contamination"] = "contamination"
    n: int = Field(default=13, ge=3)
    """Neighbouring words that an item and a row may not share (characters, twice as many, in unspaced scripts)."""
    min_share: float = Field(default=0.0, ge=0, le=1)
    """The share of an item's n-grams that a row must have; 0 means one n-gram is enough."""
    similarity: float = Field(default=0.75, gt=0, le=1)
    """From which share of words in common, in order, a prompt is an altered copy of an item; 1 switches this off."""
    same_answer: bool = False
    """Whether anything but an equal prompt must also have the item's reference as its answer: for questions made from
    templates, of which two differ in a word and are not the same."""

    def drops(self, pool: Pool) -> Iterator[Drop]:
        if pool.items.num_rows and len(pool.live):
            items = Items(pool, self.n)
            seen: set[int] = set()
            for side in ("prompt", "response"):
                for at, units in pool.chunks(side):
                    for i, w, how in self._pairs(items, units, side):
                        row = int(at[i])
                        if row not in seen and (evidence := self._judge(items, int(w), row, side, how, pool)):
                            seen.add(row)
                            yield row, evidence

    def _pairs(self, items: "Items", units: Units, side: str) -> Iterator[tuple[int, int, str]]:
        """(text, item, kind) for every text that may hold an item: the same words, an n-gram, enough of its bigrams."""
        if side == "prompt":
            whole = spans(units, units.offsets[:-1], units.offsets[1:])
            for i, w, _ in zip(*items.whole.count(whole, np.arange(len(whole) + 1)), strict=True):
                yield i, w, "exact"
        for chars in (False, True):
            if not (mine := units.chars == chars).any():
                continue
            part, index = units.take(np.flatnonzero(mine)), np.flatnonzero(mine)
            for kind, size, table, least in items.tables(chars, self.min_share):
                text, item, shared = table.count(*sets(*grams(part, size)))
                enough = shared >= least[item]
                for i, w in zip(index[text[enough]], item[enough], strict=True):
                    yield i, w, kind

    def _judge(self, items: "Items", w: int, row: int, side: str, how: str, pool: Pool) -> Evidence | None:
        own = items.uses[w] == "instructions"
        if own and pool.text("split", row) == "evaluation":
            return None  # the row is itself reserved for evaluation
        evidence = {"leaks": items.ids[w], "of": items.sources[w], "match": how, "field": side}
        chars = bool(items.units.chars[w])
        item, words = items.words(w), _words(pool.text(side, row), chars)
        if how == "exact" or (side == "prompt" and item == words):
            return evidence | {"match": "exact", "overlap": _show(item, chars)}
        if self.same_answer and not items.answered(w, pool.text("response", row)):
            return None
        if how == "n-gram":
            same = SequenceMatcher(None, item, words, autojunk=False).find_longest_match()
            return evidence | {"overlap": _show(item[same.a : same.a + same.size], chars)}
        if len(item) >= FEWEST * (3 if chars else 1) and f" {' '.join(item)} " in f" {' '.join(words)} ":
            return evidence | {"match": "contained", "overlap": _show(item, chars)}
        least = self.similarity * (len(item) + len(words)) / 2
        if side == "response" or self.similarity >= 1 or (Counter(item) & Counter(words)).total() < least:
            return None
        matcher = SequenceMatcher(None, item, words, autojunk=False)
        if matcher.ratio() < self.similarity:
            return None
        same = matcher.find_longest_match()
        overlap = _show(item[same.a : same.a + same.size], chars)
        return evidence | {"match": "altered", "overlap": overlap, "similarity": round(matcher.ratio(), 4)}


class Items:
    """The evaluation items, and tables of their n-grams."""

    def __init__(self, pool: Pool, n: int):
        columns = pool.items.to_pydict()
        self.prompts, self.ids, self.sources, self.uses = (columns[c] for c in ("prompt", "row_id", "source", "use"))
        self.references = [(r or "").casefold().split() for r in columns["reference"]]
        self.units = u = all_units(pool.items["prompt"])
        self._cache: dict[int, list[str]] = {}
        filled = np.flatnonzero(u.counts)
        self.whole = Table(spans(u, u.offsets[:-1], u.offsets[1:])[filled], filled)
        self._long, self._rare = {}, {}
        for chars in (False, True):
            size = 2 * n if chars else n
            g, offsets = grams(u, size)
            owner = np.repeat(np.arange(len(u.counts)), np.diff(offsets))
            mine = ((u.chars == chars) & (u.counts >= size))[owner]
            self._long[chars] = (size, Table(g[mine], owner[mine]), np.diff(offsets))
            g, offsets = sets(*grams(u, 2))
            owner = np.repeat(np.arange(len(u.counts)), np.diff(offsets))
            mine = (u.chars == chars)[owner]
            g, owner = _rarest(g[mine], owner[mine])
            self._rare[chars] = (2, Table(g, owner), np.bincount(owner, minlength=len(u.counts)))

    def tables(self, chars: bool, min_share: float) -> Iterator[tuple[str, int, "Table", np.ndarray]]:
        """(kind, size of n-grams, table, how many of them a text must share with each item)."""
        size, table, counts = self._long[chars]
        yield "n-gram", size, table, np.maximum(min_share * counts, 1)
        size, table, counts = self._rare[chars]
        yield "bigrams", size, table, np.maximum(SHARED * counts, 1)

    def words(self, w: int) -> list[str]:
        """The units of an item as text."""
        if w not in self._cache:
            self._cache[w] = _words(self.prompts[w], bool(self.units.chars[w]))
        return self._cache[w]

    def answered(self, w: int, response: str) -> bool:
        """Whether a response is the item's reference, white space and case aside."""
        return bool(self.references[w]) and self.references[w] == response.casefold().split()


class Table:
    """Which items hold an n-gram: sorted `grams` and, for the i-th, its items at items[starts[i]:starts[i + 1]]."""

    def __init__(self, hashes: np.ndarray, owners: np.ndarray):
        order = np.lexsort((owners, hashes))
        self.items = owners[order]
        self.grams, first = np.unique(hashes[order], return_index=True)
        self.starts = np.append(first, len(order))
        self.sieve = np.zeros(1 << 20, bool)  # most n-grams of a text are no item's: told by one look
        self.sieve[self.grams >> U64(44)] = True

    def count(self, hashes: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(text, item, number of shared n-grams) of every pair that shares one. [pairs] each"""
        likely = np.flatnonzero(self.sieve[hashes >> U64(44)])
        at = np.searchsorted(self.grams, hashes[likely])
        hit = self.grams[np.minimum(at, len(self.grams) - 1)] == hashes[likely] if len(self.grams) else at < 0
        text = np.searchsorted(offsets, likely[hit], side="right") - 1
        index, ends = ragged(self.starts, at[hit])
        key = np.repeat(text, np.diff(ends)) << 32 | self.items[index]
        pairs, shared = np.unique(key, return_counts=True)
        return pairs >> 32, pairs & 0xFFFFFFFF, shared


def _rarest(hashes: np.ndarray, owners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The RAREST n-grams of each owner, without those that COMMON owners share."""
    _, inverse, frequency = np.unique(hashes, return_inverse=True, return_counts=True)
    order = np.lexsort((hashes, frequency[inverse], owners))
    order = order[frequency[inverse][order] <= COMMON]
    place = np.arange(len(order)) - np.searchsorted(owners[order], owners[order])
    order = order[place < RAREST]
    return hashes[order], owners[order]


def _words(text: str | None, chars: bool) -> list[str]:
    words = normalise(text or "").split()
    return list("".join(words)) if chars else words


def _show(units: list[str], chars: bool) -> str:
    return ("" if chars else " ").join(units)[:300]
