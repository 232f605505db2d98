"""Duplicates: exact after normalisation, and near by MinHash LSH with verified Jaccard similarity.

Broder 1997 (MinHash); Leskovec, Rajaraman & Ullman, Mining of Massive Datasets, ch. 3 (banding). Signatures only
propose pairs: what is dropped is decided by the exact Jaccard similarity of the n-gram sets.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from tasks.lib.config import Config
from tasks.lib.pool import Drop, Pool
from tasks.lib.shingles import U64, chunks, grams, mix, sets, units

BANDS, WIDTH = 32, 4  # at Jaccard 0.7 all but 2 in 10,000 pairs meet in a band; at 0.5 13 in 100 do not
CROWD = 48  # rows of a bucket that each other row of it is compared with


def signatures(hashes: np.ndarray, offsets: np.ndarray, seed: int, permutations: int = BANDS * WIDTH) -> np.ndarray:
    """MinHash signatures of sets of hashes. [texts, permutations] uint32; all ones for an empty set"""
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 2**32, permutations, dtype=np.uint32) | np.uint32(1)
    b = rng.integers(0, 2**32, permutations, dtype=np.uint32)
    n = len(offsets) - 1
    out = np.full((permutations, n), 0xFFFFFFFF, np.uint32)
    low = (hashes >> U64(32)).astype(np.uint32)
    full = np.flatnonzero(np.diff(offsets))
    at = 0
    while at < len(full):  # as many texts as keep the arrays in the processor's cache
        stop = max(at + 1, int(np.searchsorted(offsets, offsets[full[at]] + 32_768, side="right") - 1))
        stop = int(np.searchsorted(full, stop))
        stop = max(stop, at + 1)
        first, last = offsets[full[at]], offsets[full[stop - 1] + 1]
        x, y = low[first:last], np.empty(last - first, np.uint32)
        starts = offsets[full[at:stop]] - first
        for k in range(permutations):
            np.multiply(x, a[k], out=y)
            np.add(y, b[k], out=y)
            out[k, full[at:stop]] = np.minimum.reduceat(y, starts)
        at = stop
    return np.ascontiguousarray(out.T)


def candidates(sig: np.ndarray, rank: np.ndarray, empty: np.ndarray) -> np.ndarray:
    """Pairs of rows that share a band of their signatures, the better-ranked first. [pairs, 2]

    In a bucket of more than CROWD rows each is compared with the CROWD best only: time stays linear in the rows.
    """
    n, found = len(sig), []
    for band in range(BANDS):
        key = np.zeros(n, U64)
        for k in range(band * WIDTH, (band + 1) * WIDTH):
            key = mix(key ^ sig[:, k].astype(U64))
        order = np.lexsort((rank, key))
        order = order[~empty[order]]
        sorted_key = key[order]
        starts = np.flatnonzero(np.concatenate([[True], sorted_key[1:] != sorted_key[:-1]]))
        sizes = np.diff(np.append(starts, len(order)))
        place = np.arange(len(order)) - np.repeat(starts, sizes)
        for back in range(1, CROWD + 1):
            later = np.flatnonzero(place >= back)
            if not len(later):
                break
            # within a small bucket every pair; in a crowded one the pairs with its CROWD best
            size = np.repeat(sizes, sizes)[later]
            first = np.where(size <= CROWD, later - back, later - place[later] + back - 1)
            keep = first < later
            found.append(np.stack([order[first[keep]], order[later[keep]]], axis=1))
    if not found:
        return np.zeros((0, 2), np.int64)
    pairs = np.concatenate(found)
    keys = np.unique(pairs[:, 0].astype(np.int64) * n + pairs[:, 1])
    return np.stack([keys // n, keys % n], axis=1)


def jaccard(hashes: np.ndarray, offsets: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Exact Jaccard similarities of pairs of sets. [pairs]"""
    out = np.zeros(len(pairs))
    sizes = np.diff(offsets)
    for start in range(0, len(pairs), 20_000):
        part = pairs[start : start + 20_000]
        both = np.concatenate([part[:, 0], part[:, 1]])
        n = sizes[both]
        at = np.arange(n.sum()) + np.repeat(offsets[both] - np.concatenate([[0], np.cumsum(n)[:-1]]), n)
        pair = np.repeat(np.tile(np.arange(len(part), dtype=U64), 2), n)
        key = np.sort((pair << U64(48)) | (hashes[at] >> U64(16)))
        same = np.bincount((key[1:][key[1:] == key[:-1]] >> U64(48)).astype(np.int64), minlength=len(part))
        union = sizes[part[:, 0]] + sizes[part[:, 1]] - same
        out[start : start + len(part)] = same / np.maximum(union, 1)
    return out


class Side:
    """The n-gram sets and signatures of one column of the live rows."""

    def __init__(self, texts: pa.ChunkedArray, words: int, chars: int, seed: int, sign: bool = True):
        hashes, sizes, sigs = [], [], []
        for _, part in chunks(texts):
            u = units(part)
            h, o = sets(*grams(u, np.where(u.chars, chars, words)))
            hashes.append(h)
            sizes.append(np.diff(o))
            if sign:
                sigs.append(signatures(h, o, seed))
        self.hashes = np.concatenate(hashes)
        self.offsets = np.concatenate([[0], np.cumsum(np.concatenate(sizes))])
        self.signatures = np.concatenate(sigs) if sign else None


class NearDuplicates(Config):
    """Drop all but the best of rows whose n-gram sets are alike."""

    rule: Literal["near_duplicate"] = "near_duplicate"
    on: Literal["prompt", "response", "both"] = "both"
    """What must be alike; both means each of the two."""
    threshold: float = Field(default=0.7, gt=0, le=1)
    """Jaccard similarity from which texts are alike."""
    response_threshold: float | None = Field(default=None, gt=0, le=1)
    """The same for responses, where it differs."""
    words: int = Field(default=3, ge=1)
    """Words of an n-gram."""
    chars: int = Field(default=4, ge=1)
    """Characters of an n-gram in Korean, Chinese and Japanese text."""

    def drops(self, pool: Pool) -> Iterator[Drop]:
        live = pool.live
        if len(live) < 2:
            return
        first = "response" if self.on == "response" else "prompt"
        side = Side(pool.column(first), self.words, self.chars, pool.seed)
        rank = np.empty(len(live), np.int64)
        rank[np.lexsort((live, -pool.quality()[live]))] = np.arange(len(live))
        pairs = candidates(side.signatures, rank, np.diff(side.offsets) == 0)
        limit = {"prompt": self.threshold, "response": self.response_threshold or self.threshold}
        similar = jaccard(side.hashes, side.offsets, pairs)
        pairs, similar = pairs[similar >= limit[first]], similar[similar >= limit[first]]
        if self.on == "both" and len(pairs):
            rows, inverse = np.unique(pairs, return_inverse=True)
            other = Side(pool.column("response", live[rows]), self.words, self.chars, pool.seed, sign=False)
            also = jaccard(other.hashes, other.offsets, inverse.reshape(pairs.shape))
            keep = also >= limit["response"]
            pairs, similar = pairs[keep], np.minimum(similar, also)[keep]
        for at, (of, similarity) in best_stay(pairs, similar, rank).items():
            yield int(live[at]), {"duplicate_of": pool.row_id(live[of]), "similarity": round(similarity, 4)}


def best_stay(pairs: np.ndarray, similar: np.ndarray, rank: np.ndarray) -> dict[int, tuple[int, float]]:
    """Rows to drop, each with the kept row that it is most like: going from best to worst, a row stays unless it is
    like one that stayed before it."""
    swap = rank[pairs[:, 0]] > rank[pairs[:, 1]]
    better, worse = np.where(swap, pairs[:, 1], pairs[:, 0]), np.where(swap, pairs[:, 0], pairs[:, 1])
    gone: dict[int, tuple[int, float]] = {}
    for i in np.lexsort((-similar, rank[worse])):
        a, b = int(better[i]), int(worse[i])
        if a not in gone and b not in gone:
            gone[b] = (a, float(similar[i]))
    return gone
