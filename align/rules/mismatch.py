"""Responses that answer another prompt: found by a translation model between prompts and responses.

IBM Model 1 (Brown et al. 1993) learns from the rows themselves, most of which match, which words of a response go with
which words of a prompt, as filters of parallel corpora do (Khadivi & Ney 2005). It needs no model and no labels, and
works across languages and for code; it needs a few hundred rows of one kind of task.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field

from align.config import Config
from align.rules.pool import Drop, Pool
from align.rules.shingles import Units, bounds, grams, mix, ragged

FEWEST = 3  # rows that a word must be in to be learned from
ROUNDS = 5  # of expectation maximisation
SMOOTH = 1.0  # rows that are taken to have shown nothing, for each word of a prompt
MOST = 30_000_000  # pairs of words that are learned from at a time


class Mismatched(Config):
    """Drop responses whose words the prompt makes hardly likelier than chance, by what the other rows show."""

    rule: Literal["mismatched"] = "mismatched"
    min: float = 0.2
    """The mean logarithm of how many times likelier the prompt makes the words of its response; lower rows go."""
    folds: int = Field(default=4, ge=2)
    """Parts of the rows, each judged by what the others show."""
    sample: int = Field(default=20_000, ge=100)
    """Rows that are learned from at most."""

    def drops(self, pool: Pool) -> Iterator[Drop]:
        live = pool.live
        if len(live) < 10 * self.folds:
            return
        asked = Words.of(pool.units("prompt").take(live), words=(1, 2), chars=(2, 3))
        said = Words.of(pool.units("response").take(live), words=(1,), chars=(2,))
        random = np.random.default_rng(pool.seed).permutation(len(live))
        fold, learns = random % self.folds, random < self.sample
        score = np.full(pool.table.num_rows, np.nan)
        for k in range(self.folds):
            table = Translation(asked, said, np.flatnonzero(learns & (fold != k)))
            rows = np.flatnonzero(fold == k)
            pairs = np.diff(asked.offsets)[rows] * np.diff(said.offsets)[rows]
            for start, stop in bounds(pairs // 8):
                score[live[rows[start:stop]]] = table.score(asked, said, rows[start:stop])
        pool.scores["alignment"] = score
        for at in live[score[live] < self.min]:
            yield int(at), {"alignment": round(float(score[at]), 4), "min": self.min}


class Words(NamedTuple):
    """The distinct words of each row as numbers, those of row i at numbers[offsets[i]:offsets[i + 1]]."""

    numbers: np.ndarray
    offsets: np.ndarray
    size: int
    """How many numbers there are."""

    @classmethod
    def of(cls, u: Units, words: tuple[int, ...], chars: tuple[int, ...]) -> "Words":
        """n-grams of these sizes, of words or, in unspaced scripts, of characters, that FEWEST rows have."""
        hashes, owners = [], []
        for n in sorted({*words, *chars}):
            g, offsets = grams(u, n)
            owner = np.repeat(np.arange(len(u.counts)), np.diff(offsets))
            use = np.where(u.chars[owner], n in chars, n in words)
            hashes.append(mix(g[use] ^ np.uint64(n)))
            owners.append(owner[use])
        value, owner = np.concatenate(hashes), np.concatenate(owners)
        order = np.lexsort((value, owner))
        value, owner = value[order], owner[order]
        new = np.concatenate([[True], (value[1:] != value[:-1]) | (owner[1:] != owner[:-1])])[: len(value)]
        value, owner = value[new], owner[new]
        _, number, count = np.unique(value, return_inverse=True, return_counts=True)
        common = count >= FEWEST
        keep = common[number]
        renumbered = np.cumsum(common) - 1
        offsets = np.concatenate([[0], np.cumsum(np.bincount(owner[keep], minlength=len(u.counts)))])
        return cls(renumbered[number[keep]], offsets, int(common.sum()))

    def take(self, at: np.ndarray) -> "Words":
        """The words of some rows."""
        index, offsets = ragged(self.offsets, at)
        return Words(self.numbers[index], offsets, self.size)


class Translation:
    """Probabilities of a response's word given a prompt's word, and given no prompt, learned from some rows."""

    def __init__(self, asked: Words, said: Words, rows: np.ndarray):
        budget = np.cumsum(np.diff(asked.offsets)[rows] * np.diff(said.offsets)[rows])
        rows = rows[: max(int(np.searchsorted(budget, MOST)), 1)]
        a, s = asked.take(rows), said.take(rows)
        self.chance = (np.bincount(s.numbers, minlength=said.size) + 0.5) / (len(s.numbers) + 0.5 * said.size)
        self.keys = np.zeros(0, np.int64)
        key, word = self._pairs(a, s)
        self.keys, pair = np.unique(key, return_inverse=True)
        source = self.keys // said.size
        self.given = np.full(len(self.keys), 1.0)
        self.none = self.chance
        for _ in range(ROUNDS):
            value = self.given[pair]
            whole = np.bincount(word, value, minlength=len(s.numbers)) + self.none[s.numbers]
            count = np.bincount(pair, value / whole[word], minlength=len(self.keys))
            total = np.bincount(source, count, minlength=asked.size)
            self.given = count / (total[source] + SMOOTH)
            left = np.bincount(s.numbers, self.none[s.numbers] / whole, minlength=said.size) + 1e-3
            self.none = left / left.sum()

    def _pairs(self, asked: Words, said: Words) -> tuple[np.ndarray, np.ndarray]:
        """For every word of a response and every word of its prompt: the number of this pair, and which word it was."""
        row = np.repeat(np.arange(len(said.offsets) - 1), np.diff(said.offsets))
        index, ends = ragged(asked.offsets, row)
        word = np.repeat(np.arange(len(row)), np.diff(ends))
        return asked.numbers[index] * said.size + said.numbers[word], word

    def score(self, asked: Words, said: Words, rows: np.ndarray) -> np.ndarray:
        """The mean log ratio of the words of each row's response; nan where no word is known. [rows]"""
        a, s = asked.take(rows), said.take(rows)
        key, word = self._pairs(a, s)
        at = np.minimum(np.searchsorted(self.keys, key), max(len(self.keys) - 1, 0))
        value = np.where(self.keys[at] == key, self.given[at], 0.0) if len(self.keys) else np.zeros(len(key))
        row = np.repeat(np.arange(len(rows)), np.diff(s.offsets))
        sources = np.diff(a.offsets)[row] + 1
        likely = (np.bincount(word, value, minlength=len(row)) + self.none[s.numbers]) / sources
        ratio = np.log(np.maximum(likely, 1e-7) / self.chance[s.numbers])
        n = np.diff(s.offsets)
        return np.where(n > 0, np.bincount(row, ratio, minlength=len(rows)) / np.maximum(n, 1), np.nan)
