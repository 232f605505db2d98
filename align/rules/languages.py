"""Which language texts are in, for whole columns at once: by script, and by function words where letters are Latin."""

from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from align.rules.shingles import Units, chunks, code_points, each, units

SCRIPTS = ("latin", "ko", "zh", "ja", "cyrillic", "arabic", "devanagari", "thai", "greek", "hebrew", "other")
_RANGES = {
    "latin": [(0x41, 0x5A), (0x61, 0x7A), (0xC0, 0xD6), (0xD8, 0xF6), (0xF8, 0x24F), (0x1E00, 0x1EFF),
              (0xFF21, 0xFF5A)],
    "ko": [(0x1100, 0x11FF), (0x3130, 0x318F), (0xA960, 0xA97F), (0xAC00, 0xD7FF)],
    "zh": [(0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF)],
    "ja": [(0x3040, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F)],
    "cyrillic": [(0x400, 0x52F)],
    "arabic": [(0x600, 0x6FF), (0x750, 0x77F), (0xFB50, 0xFDFF), (0xFE70, 0xFEFC)],
    "devanagari": [(0x900, 0x97F)],
    "thai": [(0xE00, 0xE7F)],
    "greek": [(0x370, 0x3FF), (0x1F00, 0x1FFF)],
    "hebrew": [(0x590, 0x5FF)],
    "other": [(0x530, 0x58F), (0x980, 0xDFF), (0xE80, 0x10FF), (0x1200, 0x1DFF)],
}  # fmt: skip
FUNCTION_WORDS = {
    "en": "the of and to in is that it for was on are as with be this by at from or have an they not you which what",
    "es": "de la que el en y los se del las un por con no una su para es al lo como más pero sus le ya este porque",
    "fr": "de la le et les des en un du une que est pour qui dans par sur au pas plus ne se avec ce sont il elle nous",
    "de": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden aus er",
    "pt": "de a o que e do da em um para com não uma os no se na por mais as dos como mas ao ele das à seu sua são",
    "it": "di e il la che in un a per è una sono con non del si da le dei nel alla come più gli della ha anche lo al",
    "nl": "de van een het en in is dat op te zijn met voor niet aan er om ook als dan maar bij uit naar door over ze",
}
NAMES = ("", *SCRIPTS, *FUNCTION_WORDS)  # what `guess` returns is a position in it
LOOKED_AT = 200  # characters of a text
WORDS = 40  # words of a text


@cache
def _script_table() -> np.ndarray:
    """The index into SCRIPTS of every character below 0x20000; len(SCRIPTS) for what is no letter. [0x20000]"""
    table = np.full(0x20000, len(SCRIPTS), np.uint8)
    for i, name in enumerate(SCRIPTS):
        for low, high in _RANGES[name]:
            table[low : high + 1] = i
    return table


@cache
def _function_words() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which upper halves of hashes are those of function words; their sorted hashes; and for each, which of
    FUNCTION_WORDS it is in. [2^16], [words], [words, languages]"""
    found: dict[int, np.ndarray] = {}
    for i, words in enumerate(FUNCTION_WORDS.values()):
        for h in units(pa.array([words]), "word").hashes:
            found.setdefault(int(h), np.zeros(len(FUNCTION_WORDS), np.int32))[i] = 1
    keys = np.array(sorted(found), np.uint32)
    sieve = np.zeros(1 << 16, bool)
    sieve[keys >> 16] = True
    return sieve, keys, np.stack([found[int(k)] for k in keys])


def scripts(texts: pa.Array) -> np.ndarray:
    """How many letters of each script each text has. [texts, SCRIPTS]"""
    points, starts = code_points(texts)
    script = _script_table()[np.minimum(points, 0x1FFFF)]
    width = len(SCRIPTS) + 1
    text = np.repeat(np.arange(len(texts), dtype=np.int32) * np.int32(width), np.diff(starts))[: len(points)]
    return np.bincount(text + script, minlength=len(texts) * width).reshape(len(texts), width)[:, :-1]


def guess(texts: pa.Array, u: Units) -> np.ndarray:
    """The likely language of each text, as a position in NAMES: an ISO 639-1 code, the name of its script, or "" where
    nothing tells. [texts] int8

    The dominant script decides; for Latin letters the most frequent function words, a tenth of all words at least.
    """
    out = np.zeros(len(texts), np.int8)
    texts = pc.utf8_slice_codeunits(pc.fill_null(texts, ""), 0, LOOKED_AT)
    plain = pc.string_is_ascii(texts).to_numpy(zero_copy_only=False)
    lettered = pc.match_substring_regex(texts, "[A-Za-z]").to_numpy(zero_copy_only=False)
    out[plain & lettered] = NAMES.index("latin")
    if not plain.all():
        letters = scripts(texts.filter(pa.array(~plain)))
        letters[:, SCRIPTS.index("ja")] *= 4  # Japanese writes with Chinese characters too: kana tell
        out[~plain] = np.where(letters.any(1), letters.argmax(1) + 1, 0)
    latin = np.flatnonzero(out == NAMES.index("latin"))
    part = u.take(latin).head(WORDS)
    sieve, keys, belongs = _function_words()
    likely = np.flatnonzero(sieve[part.hashes >> 16])
    at = np.minimum(np.searchsorted(keys, part.hashes[likely]), len(keys) - 1)
    hit = keys[at] == part.hashes[likely]
    text = np.searchsorted(part.offsets, likely[hit], side="right") - 1
    counts = np.stack([np.bincount(text, b, minlength=len(latin)) for b in belongs[at[hit]].T.astype(float)], axis=1)
    clear = (counts.max(1, initial=0) * 10 >= part.counts) & (part.counts > 0)
    out[latin[clear]] = counts[clear].argmax(1) + 1 + len(SCRIPTS)
    return out


def languages(texts: pa.ChunkedArray, u: Units) -> np.ndarray:
    """`guess` for any number of texts. [texts] int8"""
    parts = each(lambda c: guess(c[1], u.take(np.arange(c[0], c[0] + len(c[1])))), chunks(texts))
    return np.concatenate([np.zeros(0, np.int8), *parts])
