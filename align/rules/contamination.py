"""Contamination: training rows that hold an evaluation item, word for word, by a long n-gram, or in other words.

n-gram overlap as in GPT-3 (Brown et al. 2020, 13 words) and Tülu 3 (share of the item that is covered); an item that
was altered in a few words is found by its rarest bigrams and decided by the words that it still shares, in order.
"""

from collections.abc import Iterator
from difflib import SequenceMatcher
from functools import partial
from typing import Literal

import numpy as np
import pyarrow.compute as pc
from pydantic import Field

from align.config import Config
from align.rules.pool import Drop, Evidence, Pool
from align.rules.shingles import U64, Units, all_units, distinct, each, grams, ragged, sets, spans, text_hashes
from align.text import normalise

RAREST = 24  # bigrams of an item by which rows are found that may hold it
SHARED = 0.3  # of which a row must have this share
COMMON = 50  # items, or a twentieth of them, that share a bigram, past which it tells nothing
TOLD = 0.6  # of what the words of an item and of an altered copy tell, what both have
SAMPLE = 50_000  # prompts by which it is told how common a word is
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
                chunks = pool.chunks(side)
                pairs = each(partial(self._chunk, items, pool, side), chunks)
                for (at, _), found in zip(pool.chunks(side), pairs, strict=True):
                    for i, w, how in found:
                        row = int(at[i])
                        if row not in seen and (evidence := self._judge(items, int(w), row, side, how, pool)):
                            seen.add(row)
                            yield row, evidence

    def _chunk(
        self, items: "Items", pool: Pool, side: str, chunk: tuple[np.ndarray, Units]
    ) -> list[tuple[int, int, str]]:
        return list(self._pairs(items, chunk[1], side, pool, chunk[0]))

    def _pairs(self, items: "Items", u: Units, side: str, pool: Pool, at: np.ndarray) -> Iterator[tuple[int, int, str]]:
        """(text, item, kind) for every text that may hold an item: the same words, an n-gram, or most of its words."""
        if side == "prompt":
            whole = spans(u, u.offsets[:-1], u.offsets[1:])
            text, item, _ = items.whole.count(whole, np.arange(len(whole) + 1))
            yield from zip(text, item, ["exact"] * len(text), strict=True)
        answers = text_hashes(pool.column("response", at).combine_chunks()) if self.same_answer else None
        for chars in (False, True):
            index = np.flatnonzero(u.chars == chars)
            part = u.take(index)
            if not len(index):
                continue
            if side == "response":  # a text without an item's rarest bigram does not contain it
                some = np.union1d(*(table.count(*grams(part, size))[0] for size, table in items.probes(chars)))
                part, index = part.take(some), index[some]
            for kind, size, table, held in items.tables(chars):
                text, item, shared = table.count(*grams(part, size))
                if answers is not None:
                    keep = items.references[item] == answers[index[text]]
                    text, item, shared = text[keep], item[keep], shared[keep]
                if kind == "n-gram":
                    keep = shared >= np.maximum(self.min_share * held[item], 1)
                    yield from zip(index[text[keep]], item[keep], [kind] * int(keep.sum()), strict=True)
                    continue
                all_there = shared == held[item]  # as in a text that contains the item
                yield from zip(
                    index[text[all_there]], item[all_there], ["contained"] * int(all_there.sum()), strict=True
                )
                if side == "prompt" and self.similarity < 1:
                    total = part.counts[text] + items.units.counts[item]
                    least = np.minimum(part.counts[text], items.units.counts[item]) * 2 >= self.similarity * total
                    keep = np.flatnonzero(~all_there & least & (shared >= SHARED * held[item]))
                    same, told = items.rarity.shared(part, text[keep], items.units, item[keep])
                    keep = keep[(2 * same >= self.similarity * total[keep]) & (told >= TOLD)]
                    yield from zip(index[text[keep]], item[keep], ["altered"] * len(keep), strict=True)

    def _judge(self, items: "Items", w: int, row: int, side: str, how: str, pool: Pool) -> Evidence | None:
        """The evidence that a row holds an item, or None."""
        if items.uses[w] == "instructions" and pool.text("split", row) == "evaluation":
            return None  # the row is itself reserved for evaluation
        evidence = {"leaks": items.ids[w], "of": items.sources[w], "match": how, "field": side}
        chars = bool(items.units.chars[w])
        item, words = items.words(w), _words(pool.text(side, row), chars)
        if how == "exact" or (side == "prompt" and item == words):
            return evidence | {"match": "exact", "overlap": _show(item, chars)}
        matcher = SequenceMatcher(None, item, words, autojunk=False)
        same = matcher.find_longest_match()
        evidence["overlap"] = _show(item[same.a : same.a + same.size], chars)
        if how == "n-gram" or (same.size == len(item) >= FEWEST * (3 if chars else 1)):
            return evidence
        if side == "response" or self.similarity == 1 or matcher.ratio() < self.similarity:
            return None
        return evidence | {"match": "altered", "similarity": round(matcher.ratio(), 4)}


class Items:
    """The evaluation items, and tables of their n-grams."""

    def __init__(self, pool: Pool, n: int):
        columns = pool.items.to_pydict()
        self.prompts, self.ids, self.sources, self.uses = (columns[c] for c in ("prompt", "row_id", "source", "use"))
        self.references = text_hashes(pool.items["reference"].combine_chunks())
        self.references[
            pc.fill_null(pc.equal(pc.utf8_trim_whitespace(pool.items["reference"]), ""), True).to_numpy()
        ] = 0
        self.units = u = all_units(pool.items["prompt"])
        self.rarity = Rarity(pool.units("prompt"), u)
        self._cache: dict[int, list[str]] = {}
        filled = np.flatnonzero(u.counts)
        self.whole = Table(spans(u, u.offsets[:-1], u.offsets[1:])[filled], filled)
        self._long, self._rare, self._probe = {}, {}, {}
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
            first = np.unique(owner, return_index=True)[1]
            self._probe[chars] = Table(g[first], owner[first])

    def tables(self, chars: bool) -> Iterator[tuple[str, int, "Table", np.ndarray]]:
        """(kind, size of n-grams, table, how many of them each item has)."""
        yield "n-gram", *self._long[chars]
        yield "bigrams", *self._rare[chars]

    def probes(self, chars: bool) -> list[tuple[int, "Table"]]:
        """(size of n-grams, table) of what a text must share with an item that it contains."""
        return [self._long[chars][:2], (2, self._probe[chars])]

    def words(self, w: int) -> list[str]:
        """The units of an item as text."""
        if w not in self._cache:
            self._cache[w] = _words(self.prompts[w], bool(self.units.chars[w]))
        return self._cache[w]


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
        """(text, item, number of distinct shared n-grams) of every pair that shares one. [pairs] each"""
        likely = np.flatnonzero(self.sieve[hashes >> U64(44)])
        at = np.searchsorted(self.grams, hashes[likely])
        hit = self.grams[np.minimum(at, len(self.grams) - 1)] == hashes[likely] if len(self.grams) else at < 0
        text = np.searchsorted(offsets, likely[hit], side="right") - 1
        once = distinct([text << 32 | at[hit]])
        text, at = once >> 32, once & 0xFFFFFFFF
        index, ends = ragged(self.starts, at)
        key = np.sort(np.repeat(text, np.diff(ends)) << 32 | self.items[index])
        first = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]])[: len(key)])
        pairs, shared = key[first], np.diff(np.append(first, len(key)))
        return pairs >> 32, pairs & 0xFFFFFFFF, shared


class Rarity:
    """How much a unit tells: the logarithm of how few texts have it. A question's form is common, its subject not."""

    def __init__(self, rows: Units, items: Units):
        some = rows.take(np.arange(0, len(rows.counts), len(rows.counts) // SAMPLE + 1))
        held = np.zeros(1 << 20, np.int64)
        for u in (some, items):
            text = np.repeat(np.arange(len(u.counts)), u.counts)
            key = np.sort(text << 20 | u.hashes >> 12)
            new = np.concatenate([[True], key[1:] != key[:-1]])[: len(key)]
            held += np.bincount(key[new] & 0xFFFFF, minlength=1 << 20)
        self.weight = np.log((len(some.counts) + len(items.counts) + 1) / (held + 1)) + 0.1

    def shared(self, a: Units, of_a: np.ndarray, b: Units, of_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How many units a[of_a[i]] and b[of_b[i]] have in common, and which part of what both tell. [pairs] each"""
        sides, told = [], np.zeros(len(of_a))
        for u, at in ((a, of_a), (b, of_b)):
            hashes, ends = _tagged(u.take(at))
            weight = self.weight[hashes >> U64(44)]
            pair = np.repeat(np.arange(len(at)), np.diff(ends))
            told += np.bincount(pair, weight, minlength=len(at))
            sides.append(pair.astype(np.uint64) << U64(40) | hashes >> U64(24))
        common = np.isin(sides[1], sides[0], assume_unique=True)
        pair = (sides[1][common] >> U64(40)).astype(np.int64)
        both = np.bincount(pair, weight[common], minlength=len(of_a))
        return np.bincount(pair, minlength=len(of_a)), 2 * both / np.maximum(told, 1e-9)


def _tagged(u: Units) -> tuple[np.ndarray, np.ndarray]:
    """The units of each text as a set, in which the second "the" is another element than the first: their hashes in the
    upper half, what tells equal ones apart below."""
    text = np.repeat(np.arange(len(u.counts), dtype=np.uint64), u.counts)
    key = np.sort(text << U64(32) | u.hashes)
    first = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]])) if len(key) else np.zeros(0, np.int64)
    nth = np.arange(len(key)) - np.repeat(first, np.diff(np.append(first, len(key))))
    return (key << U64(32)) | (nth.astype(np.uint64) << U64(24)), u.offsets


def _rarest(hashes: np.ndarray, owners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The RAREST n-grams of each owner, without those that too many share."""
    _, inverse, frequency = np.unique(hashes, return_inverse=True, return_counts=True)
    order = np.lexsort((hashes, frequency[inverse], owners))
    order = order[frequency[inverse][order] <= max(COMMON, len(np.unique(owners)) // 20)]
    place = np.arange(len(order)) - np.searchsorted(owners[order], owners[order])
    order = order[place < RAREST]
    return hashes[order], owners[order]


def _words(text: str | None, chars: bool) -> list[str]:
    words = normalise(text or "").split()
    return list("".join(words)) if chars else words


def _show(units: list[str], chars: bool) -> str:
    return ("" if chars else " ").join(units)[:300]
