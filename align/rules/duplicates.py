"""Duplicates: rows that say the same, exactly or nearly, and prompts that are answered in different ways."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from pydantic import Field

from align.config import Config
from align.rules.minhash import alike, best_stay, jaccard
from align.rules.pool import Drop, Pool
from align.rules.shingles import Units, bounds, chunks, each, grams, sets, spans, text_hashes


class Duplicates(Config):
    """Drop all but the best of rows that are the same but for case and white space and, in the prompt, punctuation.

    Rows that share a prompt and differ in the response are a conflict: they stay, say so in their evidence, and are
    counted in the metric `conflicts`.
    """

    rule: Literal["duplicate"] = "duplicate"

    def drops(self, pool: Pool) -> Iterator[Drop]:
        live = pool.live
        asked = np.concatenate([spans(u, u.offsets[:-1], u.offsets[1:]) for _, u in pool.chunks("prompt")] or [live])
        order = np.argsort(asked, kind="stable")
        same = asked[order][1:] == asked[order][:-1]
        twice = (np.concatenate([[False], same]) | np.concatenate([same, [False]]))[: len(live)]
        order = np.sort(order[twice])
        live, asked = live[order], asked[order]  # most prompts are asked once
        said = _hashes(pool, "response", live)
        order = np.lexsort((live, -pool.quality[live], said, asked))
        new = (asked[order][1:] != asked[order][:-1]) | (said[order][1:] != said[order][:-1])
        group = np.concatenate([[0], np.cumsum(new)])[: len(order)]
        first = np.searchsorted(group, group)  # of each group of equal rows the best
        for at, of in zip(live[order], live[order[first]], strict=True):
            if at != of:
                yield int(at), {"duplicate_of": pool.row_id(of), "similarity": 1.0}
        self._conflicts(pool, np.sort(live[order[np.unique(first)]]))

    def _conflicts(self, pool: Pool, rows: np.ndarray) -> None:
        """Say of rows that differ in nothing but the response which other row they disagree with."""
        asked = _hashes(pool, "prompt", rows)
        order = np.lexsort((rows, asked))
        same = asked[order][1:] == asked[order][:-1]
        for before, after in zip(rows[order[:-1][same]], rows[order[1:][same]], strict=True):
            pool.remarks.setdefault(int(before), {})["conflicts_with"] = pool.row_id(after)
            pool.remarks.setdefault(int(after), {}).setdefault("conflicts_with", pool.row_id(before))
        pool.notes["conflicts"] = int((same & ~np.concatenate([[False], same[:-1]])).sum())


def _hashes(pool: Pool, name: str, at: np.ndarray) -> np.ndarray:
    """Hashes of the texts of a column of some rows, case and white space aside."""
    return np.concatenate([np.zeros(0, np.uint64), *(text_hashes(t) for _, t in chunks(pool.column(name, at)))])


class NearDuplicates(Config):
    """Drop all but the best of rows whose n-gram sets are alike (MinHash LSH, then the exact Jaccard similarity)."""

    rule: Literal["near_duplicate"] = "near_duplicate"
    on: Literal["prompt", "response", "both"] = "both"
    """What must be alike; both means each of the two."""
    threshold: float = Field(default=0.7, ge=0.2, le=1)
    """Jaccard similarity from which texts are alike."""
    response_threshold: float | None = Field(default=None, gt=0, le=1)
    """The same for responses, where it differs; 1 means equal but for case and white space."""
    words: int = Field(default=3, ge=1)
    """Words of an n-gram."""
    chars: int = Field(default=4, ge=1)
    """Characters of an n-gram in Korean, Chinese and Japanese text."""

    def drops(self, pool: Pool) -> Iterator[Drop]:
        live = pool.live
        first = "response" if self.on == "response" else "prompt"
        limit = {"prompt": self.threshold, "response": self.response_threshold or self.threshold}
        rank = np.empty(len(live), np.int64)
        rank[np.lexsort((live, -pool.quality[live]))] = np.arange(len(live))
        pairs, similar = alike(*self._sets(pool, first, live), rank, limit[first], pool.seed)
        if self.on == "both" and len(pairs):
            rows, inverse = np.unique(pairs, return_inverse=True)
            index = inverse.reshape(pairs.shape)
            if limit["response"] == 1:  # sets of words know no signs: "<" and ">" are two responses
                also = np.equal(*_hashes(pool, "response", live[rows])[index].T).astype(float)
            else:
                also = jaccard(*self._sets(pool, "response", live[rows]), index)
            keep = also >= limit["response"]
            pairs, similar = pairs[keep], np.minimum(similar, also)[keep]
        for at, (of, similarity) in best_stay(pairs, similar, rank).items():
            yield int(live[at]), {"duplicate_of": pool.row_id(live[of]), "similarity": round(similarity, 4)}

    def _sets(self, pool: Pool, name: str, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The n-gram sets of a column of some rows."""

        def of(u: Units) -> tuple[np.ndarray, np.ndarray]:
            return sets(*grams(u, np.where(u.chars, self.chars, self.words)))

        units = pool.units(name)
        found = each(lambda b: of(units.take(at[b[0] : b[1]])), bounds(units.counts[at]))
        sizes = np.concatenate([[0], *(np.diff(offsets) for _, offsets in found)])
        return np.concatenate([np.zeros(0, np.uint64), *(h for h, _ in found)]), np.cumsum(sizes)
