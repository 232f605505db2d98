"""Texts as sets of hashed n-grams, made by array operations over whole chunks of texts at once.

The words of a text are those of `align.text.normalise`: runs of letters, digits and marks, case folded, NFKC.
Text in a script without reliable word spaces (Korean, Chinese, Japanese, Thai) counts every character as a unit,
so that spacing never matters. An n-gram is the hash of n neighbouring units; a shorter text has one, of all its units.
"""

import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

U64 = np.uint64
TEXT_BITS = 20  # of a 64-bit key tell the text within a chunk; an n-gram's hash keeps the other 44
KEPT_BITS = np.uint64(2**64 - 2**TEXT_BITS)
CHUNK = 1 << 18  # characters, or units, at a time: the arrays over them stay in the cache, and threads do not jostle
_P, _M1, _M2 = U64(0x9E3779B97F4A7C15), U64(0xBF58476D1CE4E5B9), U64(0x94D049BB133111EB)

# Ranges of scripts written without reliable spaces between words.
UNSPACED = [(0x0E00, 0x0EFF), (0x1100, 0x11FF), (0x2E80, 0x2FDF), (0x3040, 0x318F), (0x31F0, 0x31FF), (0x3400, 0x4DBF),
            (0x4E00, 0x9FFF), (0xA960, 0xA97F), (0xAC00, 0xD7FF), (0xF900, 0xFAFF), (0xFF66, 0xFFDC)]  # fmt: skip


def mix(x: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser: every output bit depends on every input bit."""
    x = x.astype(np.uint64, copy=False) + _P
    x = (x ^ (x >> U64(30))) * _M1
    x = (x ^ (x >> U64(27))) * _M2
    return x ^ (x >> U64(31))


@cache
def _tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every character below 0x20000: a random-looking value of its folded self, 0 where it belongs to no word;
    whether its script has no reliable spaces; and that value, 0 for white space only. [0x20000] each"""
    folded, word = np.zeros(0x20000, np.uint64), np.zeros(0x20000, bool)
    for c in range(0x20000):
        char = chr(c)
        if not char.isspace() and not 0xD800 <= c < 0xE000:
            same = unicodedata.normalize("NFKC", char).casefold() if c > 127 else char.lower()
            folded[c] = ord(same) if len(same) == 1 else c
            word[c] = char.isalnum() or char == "_"
    unspaced = np.zeros(0x20000, bool)
    for low, high in UNSPACED:
        unspaced[low : high + 1] = True
    value = np.where(folded > 0, mix(folded * _P) | U64(1), U64(0))
    return np.where(word, value, U64(0)), unspaced, value


@cache
def _powers(n: int) -> tuple[np.ndarray, np.ndarray]:
    """_P to the power of 0..n-1 and its inverses, modulo 2^64. [n] each"""
    inverse = pow(int(_P), -1, 1 << 64)
    steps = np.full(n, _P, np.uint64), np.full(n, inverse, np.uint64)
    for step in steps:
        step[0] = 1
    return np.cumprod(steps[0]), np.cumprod(steps[1])


@dataclass(frozen=True)
class Units:
    """The units of some texts: `hashes` [units] uint32 of all, those of text i at offsets[i]:offsets[i + 1]; `chars`
    [texts] tells whose units are characters."""

    hashes: np.ndarray
    offsets: np.ndarray
    chars: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """The number of units of each text. [texts]"""
        return np.diff(self.offsets)

    @cached_property
    def sums(self) -> np.ndarray:
        """Sums of the units before each, each times a power of _P: differences of two are hashes. [units + 1]"""
        total = np.zeros(len(self.hashes) + 1, np.uint64)
        np.cumsum(
            mix(self.hashes) * _powers(1 << int(len(self.hashes)).bit_length())[0][: len(self.hashes)], out=total[1:]
        )
        return total

    def take(self, at: np.ndarray) -> "Units":
        """The units of the texts at some positions."""
        if len(at) and (np.diff(at) == 1).all():  # neighbours: nothing is copied
            offsets = self.offsets[at[0] : at[-1] + 2]
            return Units(self.hashes[offsets[0] : offsets[-1]], offsets - offsets[0], self.chars[at[0] : at[-1] + 1])
        index, offsets = ragged(self.offsets, at)
        return Units(self.hashes[index], offsets, self.chars[at])

    def head(self, n: int) -> "Units":
        """The first n units of each text at most."""
        counts = np.minimum(self.counts, n)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        index = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1] - offsets[:-1], counts)
        return Units(self.hashes[index], offsets, self.chars)


def ragged(offsets: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the elements of the sets at some positions lie, and the offsets of those sets among them."""
    counts = np.diff(offsets)[at]
    new = np.concatenate([[0], np.cumsum(counts)])
    return np.arange(new[-1]) + np.repeat(offsets[at] - new[:-1], counts), new


def units(texts: pa.Array, unit: str = "auto") -> Units:
    """Words, or characters (unit "char", or "auto" where a fifth of the letters are of an unspaced script)."""
    texts = pc.fill_null(texts, "")
    n = len(texts)
    points, starts = code_points(texts)
    ends = np.minimum(starts, len(points))
    low = np.minimum(points, 0x1FFFF)
    value = _tables()[0][low]
    word = value > 0
    chars = np.full(n, unit == "char")
    if unit == "auto" and low.max(initial=0) >= UNSPACED[0][0]:
        wide = _tables()[1][low] & word
        chars = _within(wide, ends) * 5 > _within(word, ends)
    # A unit begins where a word does, and in a text of characters at every character of a word; likewise its end.
    begins, finish = word.copy(), word.copy()
    begins[1:] &= ~word[:-1]
    finish[:-1] &= ~word[1:]
    if chars.any():
        single = np.repeat(chars, np.diff(starts))[: len(points)] & word
        begins |= single
        finish |= single
    first, last = np.flatnonzero(begins), np.flatnonzero(finish) + 1
    # The hash of a unit is the sum of value[i] * P^i over its characters, divided by P to the power of where it begins.
    power, inverse = _powers(1 << int(len(points)).bit_length())
    total = np.zeros(len(points) + 1, np.uint64)
    np.cumsum(value * power[: len(points)], out=total[1:])
    hashes = (mix((total[last] - total[first]) * inverse[first]) >> U64(32)).astype(np.uint32)
    return Units(hashes, np.searchsorted(first, ends), chars)


def text_hashes(texts: pa.Array) -> np.ndarray:
    """A hash of each whole text, case and white space aside; punctuation counts. [texts] uint64"""
    points, starts = code_points(pc.fill_null(texts, ""))
    value = _tables()[2][np.minimum(points, 0x1FFFF)] + (points >> 17)
    ink = value > 0
    rank = np.cumsum(ink)
    power, inverse = _powers(1 << int(len(points) + 1).bit_length())
    total = np.zeros(len(points) + 1, np.uint64)
    np.cumsum(value * power[rank], out=total[1:])
    ends = np.minimum(starts, len(points))
    before = np.concatenate([[0], rank])[ends]
    return mix((total[ends[1:]] - total[ends[:-1]]) * inverse[before[:-1]] + np.diff(before).astype(np.uint64))


def code_points(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """All characters, one line end between two texts, and where each text starts. [chars] uint32, [texts + 1]"""
    starts = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(pc.utf8_length(texts).to_numpy(zero_copy_only=False) + 1, out=starts[1:])
    return np.frombuffer("\n".join(texts.to_pylist()).encode("utf-32-le"), np.uint32), starts


def _within(mask: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """How many characters of each text the mask holds for. [texts]"""
    return np.diff(np.searchsorted(np.flatnonzero(mask), ends))


def grams(u: Units, n: int | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the n-grams of each text and their offsets; `n` may differ from text to text. [grams], [texts + 1]"""
    sizes = np.broadcast_to(np.asarray(n), u.counts.shape)
    counts = np.where(u.counts > 0, np.maximum(u.counts - sizes + 1, 1), 0)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    first = np.arange(offsets[-1]) + np.repeat(u.offsets[:-1] - offsets[:-1], counts)
    last = first + np.repeat(np.minimum(sizes, u.counts), counts)
    return spans(u, first, last), offsets


def spans(u: Units, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Hashes of the runs of units first:last. [runs]"""
    _, inverse = _powers(1 << int(len(u.hashes)).bit_length())
    length = (last - first).astype(np.uint64)
    return mix((u.sums[last] - u.sums[first]) * inverse[first] + length) & KEPT_BITS


def sets(hashes: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same, each text's hashes sorted and without repeats."""
    n = len(offsets) - 1
    assert n <= 1 << TEXT_BITS
    text = np.repeat(np.arange(n, dtype=U64), np.diff(offsets))
    keys = np.sort((text << U64(64 - TEXT_BITS)) | (hashes >> U64(TEXT_BITS)))  # one sort for text and hash together
    keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])] if len(keys) else keys
    owner = (keys >> U64(64 - TEXT_BITS)).astype(np.int64)
    return keys << U64(TEXT_BITS), np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=n))])


def chunks(texts: Any) -> Iterator[tuple[int, pa.Array]]:
    """The texts in chunks of about CHUNK characters, with where each begins."""
    for start, stop in bounds(pc.fill_null(pc.utf8_length(texts), 0).to_numpy(zero_copy_only=False)):
        part = texts.slice(start, stop - start)
        yield start, part.combine_chunks() if isinstance(part, pa.ChunkedArray) else part


def bounds(sizes: np.ndarray) -> list[tuple[int, int]]:
    """Runs of neighbours whose sizes sum to about CHUNK, at most 2^TEXT_BITS of them: where each begins and ends."""
    full = np.cumsum(sizes, dtype=np.int64) // CHUNK + np.arange(len(sizes)) // (1 << TEXT_BITS)
    ends = [*(np.flatnonzero(np.diff(full)) + 1).tolist(), len(sizes)]
    return list(zip([0, *ends[:-1]], ends, strict=True)) if len(sizes) else []


def all_units(texts: Any) -> Units:
    """The units of any number of texts."""
    parts = each(lambda c: units(c[1]), chunks(texts)) or [units(pa.array([], pa.string()))]
    sizes = np.concatenate([p.counts for p in parts])
    return Units(
        np.concatenate([p.hashes for p in parts]),
        np.concatenate([[0], np.cumsum(sizes)]),
        np.concatenate([p.chars for p in parts]),
    )


def each(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """The function's results in order, computed on all cores: array operations let other threads run."""
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return list(threads.map(function, items))


def distinct(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The distinct numbers of some arrays, in order."""
    every = np.sort(np.concatenate(parts))
    return every[np.concatenate([every[1:] != every[:-1], [True]])[: len(every)]]
