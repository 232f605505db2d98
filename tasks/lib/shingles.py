"""Texts as sets of hashed n-grams, made by array operations over whole chunks of texts at once.

The words of a text are those of `tasks.lib.text.normalise`: runs of letters, digits and marks, case folded, NFKC.
Text in a script without reliable word spaces (Korean, Chinese, Japanese, Thai) counts every character as a unit,
so that spacing never matters. An n-gram is the hash of n neighbouring units; a shorter text has one, of all its units.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

U64 = np.uint64
TEXT_BITS = 20  # of a 64-bit key tell the text within a chunk; an n-gram's hash keeps the other 44
KEPT_BITS = np.uint64(2**64 - 2**TEXT_BITS)
CHUNK = 20_000  # texts at a time: bounds the memory of the arrays over their characters
_P, _M1, _M2 = U64(0x9E3779B97F4A7C15), U64(0xBF58476D1CE4E5B9), U64(0x94D049BB133111EB)

# Ranges of scripts written without reliable spaces between words.
UNSPACED = [(0x0E00, 0x0EFF), (0x1100, 0x11FF), (0x2E80, 0x2FDF), (0x3040, 0x318F), (0x31F0, 0x31FF), (0x3400, 0x4DBF),
            (0x4E00, 0x9FFF), (0xA960, 0xA97F), (0xAC00, 0xD7FF), (0xF900, 0xFAFF), (0xFF66, 0xFFDC)]  # fmt: skip


@cache
def _fold() -> np.ndarray:
    """For every character below 0x20000: its case-folded self where it belongs to a word, else 0. [0x20000] uint32"""
    table = np.zeros(0x20000, np.uint32)
    for c in range(0x20000):
        char = chr(c)
        if char.isalnum() or char == "_":
            folded = char.casefold()
            table[c] = ord(folded) if len(folded) == 1 else c
    return table


@cache
def _unspaced() -> np.ndarray:
    table = np.zeros(0x20000, bool)
    for low, high in UNSPACED:
        table[low : high + 1] = True
    table[0x1B000:0x1B170] = True
    return table


def mix(x: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser: every output bit depends on every input bit."""
    x = (x ^ (x >> U64(30))) * _M1
    x = (x ^ (x >> U64(27))) * _M2
    return x ^ (x >> U64(31))


@dataclass(frozen=True)
class Units:
    """The units of some texts: `hashes` [units] of all, those of text i at offsets[i]:offsets[i + 1]; `chars` [texts]
    tells whose units are characters."""

    hashes: np.ndarray
    offsets: np.ndarray
    chars: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        return np.diff(self.offsets)


def units(texts: pa.Array, unit: str = "auto") -> Units:
    """Words, or characters (unit "char", or "auto" where a fifth of the letters are of an unspaced script)."""
    texts = pc.utf8_normalize(pc.fill_null(texts, ""), form="NFKC")
    lengths = pc.utf8_length(texts).to_numpy(zero_copy_only=False).astype(np.int64)
    points = np.frombuffer("\n".join(texts.to_pylist()).encode("utf-32-le", "surrogatepass"), np.uint32)
    n = len(lengths)
    starts = np.zeros(n + 1, np.int64)
    np.cumsum(lengths + 1, out=starts[1:])  # one separator after each text, but the last
    low = np.minimum(points, 0x1FFFF)
    folded = np.where(points < 0x20000, _fold()[low], points)
    is_word = folded > 0
    wide = _unspaced()[low]
    ends = np.concatenate([[0], np.cumsum(is_word, dtype=np.int64)])
    wides = np.concatenate([[0], np.cumsum(wide & is_word, dtype=np.int64)])
    top = np.minimum(starts, len(points))
    letters, of_wide = np.diff(ends[top]), np.diff(wides[top])
    chars = np.full(n, unit == "char") if unit != "auto" else of_wide * 5 > letters
    if unit == "word":
        chars = np.zeros(n, bool)
    # A unit begins where a word does, and in a text of characters at every character of a word.
    begins = is_word.copy()
    begins[1:] &= ~is_word[:-1]
    single = np.repeat(chars, lengths + 1)[: len(points)] & is_word
    begins |= single
    at = np.flatnonzero(begins)
    # The hash of a unit is the difference of prefix sums of c * P^i, shifted to begin at P^0 (P is odd, so invertible).
    finish = np.flatnonzero(is_word & ~np.append(is_word[1:], False) | single) + 1
    width = finish - at
    longest = int(width.max(initial=0))
    values = mix(folded.astype(U64) * _P)
    hashes = np.zeros(len(at), U64)
    order = np.arange(len(at)) if longest <= 1 else np.argsort(width, kind="stable")
    by_width = width[order]
    for k in range(longest):
        alive = order[np.searchsorted(by_width, k, side="right") :]
        hashes[alive] = (hashes[alive] ^ values[at[alive] + k]) * _M2 + U64(k + 1)
    hashes = mix(hashes)
    counted = np.concatenate([[0], np.cumsum(begins, dtype=np.int64)])
    return Units(hashes, counted[top], chars)


def grams(u: Units, n: int | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the n-grams of each text and their offsets; `n` may differ from text to text. [grams], [texts + 1]"""
    sizes = np.broadcast_to(np.asarray(n), u.counts.shape)
    counts = np.where(u.counts > 0, np.maximum(u.counts - sizes + 1, 1), 0)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    text = np.repeat(np.arange(len(counts)), counts)
    start = np.arange(offsets[-1]) - offsets[text] + u.offsets[text]
    last = u.offsets[text + 1]
    size = sizes[text]
    out = np.zeros(len(start), U64)
    for k in range(int(sizes.max(initial=0))):
        there = (k < size) & (start + k < last)
        unit = u.hashes[np.minimum(start + k, max(len(u.hashes) - 1, 0))] if len(u.hashes) else out
        out = np.where(there, (out ^ unit) * _M1 + U64(k + 1), out)
    return mix(out) & KEPT_BITS, offsets


def sets(hashes: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same, each text's hashes sorted and without repeats."""
    n = len(offsets) - 1
    assert n <= 1 << TEXT_BITS
    text = np.repeat(np.arange(n, dtype=U64), np.diff(offsets))
    keys = np.sort((text << U64(64 - TEXT_BITS)) | (hashes >> U64(TEXT_BITS)))  # one sort for text and hash together
    keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])] if len(keys) else keys
    owner = (keys >> U64(64 - TEXT_BITS)).astype(np.int64)
    return keys << U64(TEXT_BITS), np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=n))])


def chunks(texts: Any, size: int = CHUNK) -> Iterator[tuple[int, pa.Array]]:
    """The texts in chunks, with where each begins."""
    for start in range(0, len(texts), size):
        part = texts.slice(start, size)
        yield start, part.combine_chunks() if isinstance(part, pa.ChunkedArray) else part
