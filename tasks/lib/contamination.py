"""Contamination: training rows that hold an evaluation item, word for word, by a long n-gram, or in other words.

n-gram overlap as in GPT-3 (Brown et al. 2020, 13 words) and Tülu 3 (share of the item's words that is covered); an
item altered in a few words is found by the words that it still shares, in order.
"""

from collections import Counter
from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from tasks.lib.config import Config
from tasks.lib.pool import Drop, Evidence, Pool
from tasks.lib.shingles import U64, chunks, grams, sets, units
from tasks.lib.text import normalise

RAREST = 24  # bigrams of an item by which rows are found that may hold it
SHARED = 0.3  # of which a row must have this share
FEWEST = 4  # units from which an item counts as found inside a longer text


class Table:
    """Which items hold an n-gram: sorted `grams` and, for the i-th, its items at items[starts[i]:starts[i + 1]]."""

    def __init__(self, hashes: np.ndarray, owners: np.ndarray):
        order = np.lexsort((owners, hashes))
        self.items = owners[order]
        self.grams, first = np.unique(hashes[order], return_index=True)
        self.starts = np.append(first, len(order))
        self.sieve = np.zeros(1 << 20, bool)  # most n-grams of a row are no item's: told by one look
        self.sieve[self.grams >> U64(44)] = True

    def count(self, hashes: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(texts, items, number of shared n-grams) for every pair that shares one. [pairs] each"""
        likely = np.flatnonzero(self.sieve[hashes >> U64(44)])
        at = np.minimum(np.searchsorted(self.grams, hashes[likely]), len(self.grams) - 1)
        hit = self.grams[at] == hashes[likely]
        likely, at = likely[hit], at[hit]
        n = self.starts[at + 1] - self.starts[at]
        text = np.repeat(np.searchsorted(offsets, likely, side="right") - 1, n)
        which = np.arange(n.sum()) + np.repeat(self.starts[at] - np.concatenate([[0], np.cumsum(n)[:-1]]), n)
        pairs, shared = np.unique(text * (int(self.items.max()) + 1) + self.items[which], return_counts=True)
        return pairs // (self.items.max() + 1), pairs % (self.items.max() + 1), shared


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
        if not pool.items.num_rows or not len(pool.live):
            return
        found: dict[int, Evidence] = {}
        items = _Items(pool, self.n)
        for side in ("prompt", "response"):
            for start, texts in chunks(pool.column(side)):
                for at, evidence in self._scan(items, texts, side, pool, pool.live[start : start + len(texts)]):
                    found.setdefault(at, evidence)
        yield from found.items()

    def _scan(self, items: "_Items", texts: pa.Array, side: str, pool: Pool, live: np.ndarray) -> Iterator[Drop]:
        u = units(texts)
        for chars, table, sizes in items.long:
            g, o = grams(u, 2 * self.n if chars else self.n)
            rows, which, shared = table.count(*sets(g, o))
            keep = (u.chars[rows] == chars) & (shared >= np.maximum(self.min_share * sizes[which], 1))
            for r, w in zip(rows[keep], which[keep], strict=True):
                if self.same_answer and not items.answered(w, pool.text("response", int(live[r]))):
                    continue
                overlap = _overlap(items.words(w), _words(texts[int(r)].as_py(), chars), chars)
                yield int(live[r]), items.evidence(w, "n-gram", field=side, overlap=overlap)
        for chars, table, sizes in items.short:
            g, o = sets(*grams(u, 2))
            rows, which, shared = table.count(g, o)
            keep = (u.chars[rows] == chars) & (shared >= np.maximum(SHARED * sizes[which], 1))
            for r, w in zip(rows[keep], which[keep], strict=True):
                text = texts[int(r)].as_py()
                evidence = self._compare(items, int(w), text, side, pool, int(live[r]), chars)
                if evidence:
                    yield int(live[r]), evidence

    def _compare(
        self, items: "_Items", w: int, text: str, side: str, pool: Pool, at: int, chars: bool
    ) -> Evidence | None:
        item, words = items.words(w), _words(text, chars)
        if item == words and side == "prompt":
            return items.evidence(w, "exact", field=side)
        if self.same_answer and not items.answered(w, pool.text("response", at)):
            return None
        if len(item) >= FEWEST and f" {' '.join(item)} " in f" {' '.join(words)} ":
            return items.evidence(w, "contained", field=side, overlap=" ".join(item)[:200])
        if side != "prompt" or self.similarity >= 1:
            return None
        if 2 * (Counter(item) & Counter(words)).total() < self.similarity * (len(item) + len(words)):
            return None
        ratio = SequenceMatcher(None, item, words, autojunk=False).ratio()
        if ratio < self.similarity:
            return None
        return items.evidence(w, "altered", field=side, similarity=round(ratio, 4))


class _Items:
    """The evaluation items, as tables of their n-grams: `long` ones of n units, `short` their rarest bigrams."""

    def __init__(self, pool: Pool, n: int):
        self.prompts = pool.items["prompt"].to_pylist()
        self.ids = pool.items["row_id"].to_pylist()
        self.sources = pool.items["source"].to_pylist()
        self.references = pool.items["reference"].to_pylist()
        self._cache: dict[int, list[str]] = {}
        u = units(pool.items["prompt"].combine_chunks())
        self.chars = u.chars
        self.long, self.short = [], []
        pairs, offsets = sets(*grams(u, 2))
        for chars in (False, True):
            size = 2 * n if chars else n
            if not (u.chars == chars).any():
                continue
            fits = (u.chars == chars) & (u.counts >= size)
            g, o = grams(u, size)
            owner = np.repeat(np.arange(len(fits)), np.diff(o))
            mine = fits[owner]
            if mine.any():
                self.long.append((chars, Table(g[mine], owner[mine]), np.diff(o)))
            owner = np.repeat(np.arange(len(fits)), np.diff(offsets))
            mine = (u.chars == chars)[owner]
            values, owner = pairs[mine], owner[mine]
            _, inverse, frequency = np.unique(values, return_inverse=True, return_counts=True)
            order = np.lexsort((values, frequency[inverse], owner))
            values, owner = values[order], owner[order]
            first = np.searchsorted(owner, owner)
            rare = np.arange(len(owner)) - first < RAREST
            values, owner = values[rare], owner[rare]
            self.short.append((chars, Table(values, owner), np.bincount(owner, minlength=len(fits))))

    def words(self, w: int) -> list[str]:
        w = int(w)
        if w not in self._cache:
            self._cache[w] = _words(self.prompts[w], bool(self.chars[w]))
        return self._cache[w]

    def answered(self, w: int, response: str) -> bool:
        """Whether a response is the item's reference, white space and case aside."""
        reference = self.references[int(w)]
        return reference is not None and reference.casefold().split() == response.casefold().split()

    def evidence(self, w: int, how: str, **more: object) -> Evidence:
        return {"leaks": self.ids[int(w)], "of": self.sources[int(w)], "match": how, **more}


def _words(text: str | None, chars: bool) -> list[str]:
    words = normalise(text or "").split()
    return list("".join(words)) if chars else words


def _overlap(a: list[str], b: list[str], chars: bool) -> str:
    """The longest run of units that both have."""
    match = SequenceMatcher(None, a, b, autojunk=False).find_longest_match()
    return ("" if chars else " ").join(a[match.a : match.a + match.size])[:300]
