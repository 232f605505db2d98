"""Responses in another language than their prompts."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from align.config import Config
from align.rules.languages import FUNCTION_WORDS, NAMES, SCRIPTS, scripts
from align.rules.pool import Drop, Pool

QUOTED = 4  # letters of the response's script in a prompt, from which it may be answered in that script
# Signs of something written for a machine, which is of no language.
CODE = (
    r"^\s*(?i:select|with|insert|update|delete|create|explain)\s|```|^\s*[{\[<]|"
    r"^\s*(?:def|class|import|from|public|#include) |</?[a-z]+[^>]*>|[;{}]\s*(?:\n|$)|"
    r"\w\(\w*\)|[=<>*_|]\s*\w+\s*[=<>*_|]"
)
# How a text begins that is a program as a whole.
PROGRAM = (
    r"^\s*(?:```|#include|<\w[^>\n]*>|[{\[]\s*[\"{\[]|(?is:select\s.*\sfrom\s|with\s+\w+\s+as\s*\()|"
    r"(?i:insert into|delete from|create table|update \w+ set)\s|(?:import|from)\s[\w.]+(?: import|\s*\n)|"
    r"(?:def|class|function|public|const|let|var)\s[^\n]*[:;({]\s*(?:\n|$)|(?:for|if|while)\s[^\n]*[:{]\s*\n[ \t]+)"
)
# A prompt that speaks of languages may ask for another than its own.
ASKS = (
    r"(?i)translat|language|번역|[가-힣]어로|외국어|翻译|翻譯|[英中日法德韩俄]文|[英日法德韩俄]语|\b(?:english|korean|spanish|french|german|"
    r"chinese|mandarin|japanese|italian|portuguese|russian|arabic|hindi|latin|dutch|greek|swedish|polish|turkish)\b"
)
_WEIGHTS = np.array([2 if s in ("ko", "zh", "ja") else 1 for s in SCRIPTS])  # a syllable or a word each tells more
LANGUAGES = {
    "english": "en", "korean": "ko", "spanish": "es", "french": "fr", "german": "de", "portuguese": "pt",
    "italian": "it", "dutch": "nl", "chinese": "zh", "mandarin": "zh", "japanese": "ja", "russian": "cyrillic",
    "arabic": "arabic", "hindi": "devanagari", "thai": "thai", "greek": "greek", "hebrew": "hebrew",
    "영어": "en", "한국어": "ko", "한글": "ko", "스페인어": "es", "프랑스어": "fr", "불어": "fr", "독일어": "de",
    "중국어": "zh", "일본어": "ja", "러시아어": "cyrillic",
}  # fmt: skip
_NAMES = "|".join(LANGUAGES)
# A prompt that says in which language the answer is to be.
WANTS = (
    r"(?i)\b(?:translat(?:e|ed|ing|ion)\b[^.?!\n]{0,80}\b(?:in|into|to)|(?:answer|respond|reply)\b[^.?!\n]{0,80}\bin) "
    rf"(?:{_NAMES})\b"
    rf"|(?:{_NAMES})로 (?:번역|옮|답|대답|답변|써|쓰|작성)"
)


class Language(Config):
    """Drop prose in another language than the prompt's, or than the one that the prompt asks for. Code is of no
    language."""

    rule: Literal["wrong_language"] = "wrong_language"
    min_letters: int = Field(default=8, ge=1)
    """Letters from which the language of a text is told, where its script tells; three times as many where words do."""
    confidence: float = Field(default=0.9, gt=0.5, le=1)
    """How sure the detector must be that neither text is in the other's language."""

    def drops(self, pool: Pool) -> Iterator[Drop]:
        for at, asked, answered in self._suspects(pool):
            prompt, response = pool.text("prompt", at), pool.text("response", at)
            if re.search(ASKS, prompt) is None and (found := self._differ(prompt, response, asked, answered)):
                yield int(at), {"prompt": found[0], "response": found[1]}
        answered_in = pool.languages("response")
        for at in pool.matching("prompt", WANTS):
            answered = NAMES[answered_in[at]]
            wanted = {LANGUAGES[name.lower()] for name in re.findall(rf"(?i){_NAMES}", wish(pool.text("prompt", at)))}
            for asked in wanted if len(wanted) == 1 else ():
                if self._ignored(asked, answered, pool.text("response", at)):
                    yield int(at), {"asked": asked, "response": answered}

    def _suspects(self, pool: Pool) -> Iterator[tuple[int, str, str]]:
        """Live rows whose prompt and response are guessed to be in two languages, and whose response is no code."""
        asked, answered = pool.languages("prompt"), pool.languages("response")
        vague, words = NAMES.index("latin"), NAMES.index("latin") + len(SCRIPTS)
        differ = (asked != answered) & (asked > 0) & (answered > 0) & (answered != vague) & pool.alive
        differ &= ~((asked == vague) & (answered >= words))
        code = set(pool.matching("response", CODE, np.flatnonzero(differ)).tolist())
        for at in np.flatnonzero(differ):
            if at not in code:
                yield int(at), NAMES[asked[at]], NAMES[answered[at]]

    def _ignored(self, wanted: str, answered: str, response: str) -> bool:
        """Whether a response is surely not in the language that its prompt asks for."""
        letters = scripts(pa.array([response]))[0]
        total = letters.sum()
        if letters @ _WEIGHTS < self.min_letters or re.search(CODE, response):
            return False
        count = dict(zip(SCRIPTS, letters.tolist(), strict=True))
        if wanted in SCRIPTS:
            return bool(count[wanted] + (count["zh"] if wanted == "ja" else 0) < min(QUOTED, total / 2))
        if count["latin"] < min(QUOTED, total / 2):
            return True
        if answered not in FUNCTION_WORDS or answered == wanted or total < 3 * self.min_letters:
            return False
        sure = confidences(response[:1000])
        return sure[wanted] <= 1 - self.confidence and sure[answered] >= 0.5

    def _differ(self, prompt: str, response: str, asked: str, answered: str) -> tuple[str, str] | None:
        """Both languages if they are surely two; None if a text is short, or one mixes in the other's script."""
        p, r = scripts(pa.array([prompt, response]))
        letters = min((p * _WEIGHTS).sum(), (r * _WEIGHTS).sum())
        if not {asked, answered} <= {*FUNCTION_WORDS}:
            p, r = p * _WEIGHTS, r * _WEIGHTS
            mixed = p[r.argmax()] >= QUOTED or p[r.argmax()] * 5 > p.sum() or r[p.argmax()] * 5 > r.sum()
            mixed &= {asked, answered} != {"zh", "ja"}  # Japanese is written with Chinese characters too
            return (asked, answered) if letters >= self.min_letters and not mixed else None
        words = re.findall(r"[^\W\d_]+", response)
        if min(p.sum(), r.sum()) < 3 * self.min_letters or sum(w[0].isupper() for w in words) * 2 > len(words):
            return None  # too short to tell, or a list of names
        asks, answers = (confidences(text[:1000]) for text in (prompt, response))
        agreed = min(asks[asked], answers[answered]) >= 0.5  # the function words and the detector
        sure = max(asks[answered], answers[asked]) <= 1 - self.confidence
        return (asked, answered) if agreed and sure else None


def wish(prompt: str) -> str:
    """The end of the words by which a prompt asks for a language, where that is named."""
    found = re.search(WANTS, prompt)
    return re.split(r"(?i)\b(?:in|into|to) ", found.group())[-1] if found else ""


def confidences(text: str) -> dict[str, float]:
    """How likely a text is in each of the languages of FUNCTION_WORDS."""
    found = _detector().compute_language_confidence_values(text)
    return {f.language.iso_code_639_1.name.lower(): f.value for f in found}


@cache
def _detector() -> Any:
    from lingua import IsoCode639_1, LanguageDetectorBuilder

    languages = [IsoCode639_1.from_str(code.upper()) for code in FUNCTION_WORDS]
    return LanguageDetectorBuilder.from_iso_codes_639_1(*languages).build()
