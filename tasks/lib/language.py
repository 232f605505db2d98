"""The language of texts: by script and function words for whole columns at once, by a detector where it matters."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from tasks.lib.config import Config
from tasks.lib.pool import Drop, Pool
from tasks.lib.shingles import Units, chunks, code_points, units

SCRIPTS = ("latin", "ko", "zh", "ja", "cyrillic", "arabic", "devanagari", "thai", "greek", "hebrew", "other")
_RANGES = {
    "latin": [(0x41, 0x5A), (0x61, 0x7A), (0xC0, 0xD6), (0xD8, 0xF6), (0xF8, 0x24F), (0x1E00, 0x1EFF), (0xFF21, 0xFF5A)],
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
    "en": "the of and to in is that it for was on are as with be this by at from or have an they not you which what how",
    "es": "de la que el en y los se del las un por con no una su para es al lo como más pero sus le ya este porque muy",
    "fr": "de la le et les des en un du une que est pour qui dans par sur au pas plus ne se avec ce sont il elle vous nous",
    "de": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden aus er sie",
    "pt": "de a o que e do da em um para com não uma os no se na por mais as dos como mas ao ele das à seu sua você são",
    "it": "di e il la che in un a per è una sono con non del si da le dei nel alla come più gli della ha anche lo al",
    "nl": "de van een het en in is dat op te zijn met voor niet aan er om ook als dan maar bij uit naar door over ze",
}
# Signs of something written for a machine, which is of no language.
CODE = (
    r"^\s*(?i:select|with|insert|update|delete|create|explain)\s|```|^\s*[{\[<]|^\s*(?:def|class|import|from|public|#include) |"
    r"</?[a-z]+[^>]*>|[;{}]\s*(?:\n|$)|\w\(\w*\)|[=<>*_|]\s*\w+\s*[=<>*_|]"
)
# A prompt that speaks of languages may ask for another than its own.
ASKS = (
    r"(?i)translat|language|번역|[가-힣]어로|외국어|翻译|翻譯|[英中日法德韩俄]文|[英日法德韩俄]语|\b(?:english|korean|spanish|french|german|"
    r"chinese|mandarin|japanese|italian|portuguese|russian|arabic|hindi|latin|dutch|greek|swedish|polish|turkish)\b"
)


@cache
def _script_table() -> np.ndarray:
    """The index into SCRIPTS of every character below 0x20000; len(SCRIPTS) for what is no letter. [0x20000]"""
    table = np.full(0x20000, len(SCRIPTS), np.uint8)
    for i, name in enumerate(SCRIPTS):
        for low, high in _RANGES[name]:
            table[low : high + 1] = i
    return table


@cache
def _function_words() -> tuple[np.ndarray, np.ndarray]:
    """Sorted hashes of function words; for each, which of FUNCTION_WORDS it is in. [words], [words, languages]"""
    found: dict[int, np.ndarray] = {}
    for i, words in enumerate(FUNCTION_WORDS.values()):
        for h in units(pa.array([words]), "word").hashes:
            found.setdefault(int(h), np.zeros(len(FUNCTION_WORDS), np.int32))[i] = 1
    keys = np.array(sorted(found), np.uint32)
    return keys, np.stack([found[int(k)] for k in keys])


def scripts(texts: pa.Array) -> np.ndarray:
    """How many letters of each script each text has. [texts, SCRIPTS]"""
    chars, starts = code_points(texts)
    script = _script_table()[np.minimum(chars, 0x1FFFF)].astype(np.int64)
    text = np.repeat(np.arange(len(texts)) * (len(SCRIPTS) + 1), np.diff(starts))[: len(chars)]
    counts = np.bincount(text + script, minlength=len(texts) * (len(SCRIPTS) + 1))
    return counts.reshape(len(texts), -1)[:, :-1]


def guess(texts: pa.Array, u: Units) -> np.ndarray:
    """The likely language of each text as ISO 639-1 code, or the name of its script; "" where nothing tells. [texts]

    The dominant script decides, for Latin letters the most frequent function words (a tenth of the words at least).
    """
    letters = scripts(texts)
    letters[:, 3] *= 4  # Japanese writes with Chinese characters too: its own tell
    script = np.array([*SCRIPTS])[letters.argmax(1)].astype(object)
    script[letters.sum(1) == 0] = ""
    latin = np.flatnonzero(script == "latin")
    part = u.take(latin)
    keys, belongs = _function_words()
    at = np.minimum(np.searchsorted(keys, part.hashes), len(keys) - 1)
    hit = np.flatnonzero(keys[at] == part.hashes)
    text = np.searchsorted(part.offsets, hit, side="right") - 1
    counts = np.zeros((len(latin), len(FUNCTION_WORDS)), np.int32)
    np.add.at(counts, text, belongs[at[hit]])
    clear = counts.max(1, initial=0) * 10 >= part.counts
    script[latin] = np.where(clear & (part.counts > 0), np.array([*FUNCTION_WORDS])[counts.argmax(1)], "latin")
    return script


class Language(Config):
    """Drop prose in another language than the prompt's. Code is of no language, and a prompt may ask for another."""

    rule: Literal["wrong_language"] = "wrong_language"
    min_letters: int = Field(default=12, ge=1)
    """Letters from which the language of a text is told, where its script tells; four times as many where words do."""
    confidence: float = Field(default=0.9, gt=0.5, le=1)
    """How sure the detector must be of both languages."""

    def drops(self, pool: Pool) -> Iterator[Drop]:
        for at, asked, answered in self._suspects(pool):
            prompt, response = pool.text("prompt", at), pool.text("response", at)
            if re.search(ASKS, prompt) is None and (found := self._differ(prompt, response, asked, answered)):
                yield int(at), {"prompt": found[0], "response": found[1]}

    def _suspects(self, pool: Pool) -> Iterator[tuple[int, str, str]]:
        """Live rows whose prompt and response are guessed to be in two languages, and whose response is no code."""
        code = np.zeros(pool.table.num_rows, bool)
        code[pool.matching("response", CODE)] = True
        sides = zip(
            pool.chunks("prompt"), pool.chunks("response"), chunks(pool.column("prompt")), chunks(pool.column("response")),
            strict=True,
        )  # fmt: skip
        for (at, asked), (_, answered), (_, prompts), (_, responses) in sides:
            p, r = guess(pc.fill_null(prompts, ""), asked), guess(pc.fill_null(responses, ""), answered)
            vague = (p == "latin") & np.isin(r, [*FUNCTION_WORDS])
            differ = (p != r) & (p != "") & ~np.isin(r, ["", "latin"]) & ~vague & ~code[at]
            yield from zip(at[differ], p[differ], r[differ], strict=True)

    def _differ(self, prompt: str, response: str, asked: str, answered: str) -> tuple[str, str] | None:
        """Both languages if they are surely two; None if a text is short, or one mixes in the other's script."""
        p, r = scripts(pa.array([prompt, response]))
        of_p, of_r = p.argmax(), r.argmax()
        if min(p.sum(), r.sum()) < self.min_letters:
            return None
        if of_p != of_r and {SCRIPTS[of_p], SCRIPTS[of_r]} != {"zh", "ja"}:
            mixed = p[of_r] * 5 > p.sum() or r[of_p] * 5 > r.sum()
            return None if mixed else (asked, answered)
        if min(p.sum(), r.sum()) < 4 * self.min_letters:
            return None
        best = [_detector().compute_language_confidence_values(t[:1000])[0] for t in (prompt, response)]
        if best[0].language == best[1].language or min(b.value for b in best) < self.confidence:
            return None
        return tuple(b.language.iso_code_639_1.name.lower() for b in best)


@cache
def _detector() -> Any:
    from lingua import LanguageDetectorBuilder

    return LanguageDetectorBuilder.from_all_languages().build()
