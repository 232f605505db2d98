"""MinHash signatures, banding, and exact Jaccard similarity, over sets of hashes stored back to back.

Broder 1997 (MinHash); Leskovec, Rajaraman & Ullman, Mining of Massive Datasets, ch. 3 (banding). Signatures only
propose pairs: what counts as alike is decided by the exact similarity of the sets.
"""

from collections.abc import Iterator

import numpy as np

from align.rules.shingles import U64, distinct, each, ragged

PERMUTATIONS = 128
_ODD = U64(0x9E3779B97F4A7C15)
CACHED = 32_768  # hashes that one permutation goes over at a time
REMEMBERED = 1 << 25  # compared pairs, so that the bands to come do not compare them again
CROWD = 16  # rows of a bucket that each other row of it is compared with


def bands(threshold: float) -> tuple[int, int]:
    """(bands, rows of a band): the most selective banding that misses at most 1 in 1000 pairs at the threshold."""
    fits = [(PERMUTATIONS // r, r) for r in range(1, 17) if (1 - threshold**r) ** (PERMUTATIONS // r) <= 1e-3]
    return fits[-1] if fits else (PERMUTATIONS, 1)


def signatures(hashes: np.ndarray, offsets: np.ndarray, seed: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """MinHash signatures of sets, 0 for an empty one; and a key for each band of `width` of its permutations.

    A signature keeps 8 bits of each minimum (Li & König 2010, b-bit minwise hashing: two that differ agree in one of
    256), the keys come of the whole. [sets, PERMUTATIONS] uint8, [bands, sets] uint64
    """
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 2**32, PERMUTATIONS, dtype=np.uint32) | np.uint32(1)
    b = rng.integers(0, 2**32, PERMUTATIONS, dtype=np.uint32)
    out = np.zeros((len(offsets) - 1, PERMUTATIONS), np.uint8)
    keys = np.zeros((PERMUTATIONS // width, len(offsets) - 1), np.uint64)
    high = (hashes >> U64(32)).astype(np.uint32)
    full = np.flatnonzero(np.diff(offsets))
    blocks = np.split(full, np.flatnonzero(np.diff(offsets[full] // CACHED)) + 1)

    def sign(block: np.ndarray) -> None:
        first, last = offsets[block[0]], offsets[block[-1] + 1]
        x, y, starts = high[first:last], np.empty(last - first, np.uint32), offsets[block] - first
        rows = np.empty((PERMUTATIONS, len(block)), np.uint32)
        for k in range(PERMUTATIONS):
            np.multiply(x, a[k], out=y)
            np.add(y, b[k], out=y)
            np.minimum.reduceat(y, starts, out=rows[k])
        out[block] = (rows >> np.uint32(8)).astype(np.uint8).T
        key = np.zeros((len(keys), len(block)), np.uint64)
        for k in range(width):
            key = (key ^ (key >> U64(29)) ^ rows[k : len(keys) * width : width]) * _ODD
        keys[:, block] = key

    each(sign, [block for block in blocks if len(block)])
    return out, keys


def candidates(keys: np.ndarray, rank: np.ndarray, filled: np.ndarray) -> Iterator[np.ndarray]:
    """Band by band, the pairs of rows that share it, as better-ranked row * rows + the other. [pairs] int64, distinct

    `filled` are the rows whose set is not empty. In a bucket of more than CROWD rows each is compared with the CROWD
    best of it and with the CROWD before it only, so that time grows with the rows and not with their square.
    """
    n = keys.shape[1]
    for band in keys:
        key = band[filled]
        order = np.argsort(key)
        same = key[order][1:] == key[order][:-1]
        order = order[(np.concatenate([[False], same]) | np.concatenate([same, [False]]))[: len(order)]]
        if not len(order):
            continue
        order = order[np.lexsort((rank[filled[order]], key[order]))]
        key, order = key[order], filled[order]
        starts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
        sizes = np.diff(np.append(starts, len(order)))
        place = np.arange(len(order)) - np.repeat(starts, sizes)
        found = []
        for back in range(1, min(CROWD, int(sizes.max()) - 1) + 1):
            later = np.flatnonzero(place >= back)
            found.append(order[later - back] * n + order[later])
            crowded = later[place[later] > CROWD]
            found.append(order[crowded - place[crowded] + back - 1] * n + order[crowded])
        yield distinct(found)


def alike(
    hashes: np.ndarray, offsets: np.ndarray, rank: np.ndarray, threshold: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of sets whose Jaccard similarity is at least the threshold, better-ranked first, and that similarity.

    hashes, offsets: the sets, each sorted and without repeats. [pairs, 2], [pairs]
    """
    sig, bands_of = signatures(hashes, offsets, seed, bands(threshold)[1])
    n = max(len(sig), 1)

    def likely(keys: np.ndarray) -> np.ndarray:
        # of pairs that a signature of 128 puts so far below the threshold, 1 in 10,000 would be at it
        agree = np.count_nonzero(sig[keys // n] == sig[keys % n], axis=1)
        return keys[agree >= PERMUTATIONS * (threshold - 0.16)]

    seen, near = np.zeros(0, np.int64), [np.zeros(0, np.int64)]
    for keys in candidates(bands_of, rank, np.flatnonzero(np.diff(offsets))):
        keys = keys[~_among(keys, seen)]
        near += each(likely, np.array_split(keys, len(keys) // 8192 + 1))
        seen = np.concatenate([seen, keys] if len(seen) < REMEMBERED else [keys])
        seen.sort(kind="stable")  # two runs in order: a merge
    keys = distinct(near)
    pairs = np.stack([keys // n, keys % n], axis=1)
    similar = jaccard(hashes, offsets, pairs)
    return pairs[similar >= threshold], similar[similar >= threshold]


def _among(keys: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Which keys are among the sorted `seen`. [keys]"""
    if not len(seen):
        return np.zeros(len(keys), bool)
    return seen[np.minimum(np.searchsorted(seen, keys), len(seen) - 1)] == keys


def jaccard(hashes: np.ndarray, offsets: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Exact Jaccard similarities of pairs of sets. [pairs]"""
    out = np.zeros(len(pairs))
    sizes = np.diff(offsets)
    for start in range(0, len(pairs), 20_000):
        part = pairs[start : start + 20_000]
        index, ends = ragged(offsets, np.concatenate([part[:, 0], part[:, 1]]))
        pair = np.repeat(np.tile(np.arange(len(part), dtype=np.uint64), 2), np.diff(ends))
        key = np.sort((pair << U64(48)) | (hashes[index] >> U64(16)))
        same = np.bincount((key[1:][key[1:] == key[:-1]] >> U64(48)).astype(np.int64), minlength=len(part))
        out[start : start + len(part)] = same / np.maximum(sizes[part[:, 0]] + sizes[part[:, 1]] - same, 1)
    return out


def best_stay(pairs: np.ndarray, similar: np.ndarray, rank: np.ndarray) -> dict[int, tuple[int, float]]:
    """Rows to drop, each with the kept row that it is most like: going from best to worst, a row stays unless it is
    like one that stayed before it."""
    gone: dict[int, tuple[int, float]] = {}
    for i in np.lexsort((-similar, rank[pairs[:, 1]])):
        kept, row = int(pairs[i, 0]), int(pairs[i, 1])
        if kept not in gone and row not in gone:
            gone[row] = (kept, float(similar[i]))
    return gone
