"""Rules on the form of a row: whether it is whole, and of a sensible size."""

import json
import re
from collections.abc import Iterator
from typing import Literal

import numpy as np
import pyarrow.compute as pc
from pydantic import Field, model_validator

from align.config import Config
from align.models.base import directory
from align.rules.language import PROGRAM
from align.rules.pool import Drop, Pool
from align.rules.shingles import Units, each, grams, sets, spans

SOME = 0.1  # repeated n-grams below which no end of a text repeats itself
NEARLY_ALL = 0.9  # repeated n-grams: a loop, whatever it is made of


class Empty(Config):
    """Drop rows without a prompt or without a response: null, white space, or dots and dashes only."""

    rule: Literal["empty"] = "empty"

    def drops(self, pool: Pool) -> Iterator[Drop]:
        for side in ("prompt", "response"):
            for at in np.setdiff1d(pool.live, pool.matching(side, r"[^\s.…\-_]"), assume_unique=True):
                text = pool.table[side][int(at)].as_py()
                yield int(at), {"field": side, "text": None if text is None else text[:40]}


class Length(Config):
    """Drop rows whose prompt or response is too short or too long."""

    rule: Literal["length"] = "length"
    unit: Literal["tokens", "characters"] = "tokens"
    """Tokens of the recipe's tokenizer, or characters."""
    min_prompt: int = Field(default=1, ge=0)
    """Fewest of a prompt."""
    max_prompt: int = Field(default=2048, ge=1)
    """Most of a prompt."""
    min_response: int = Field(default=1, ge=0)
    """Fewest of a response."""
    max_response: int = Field(default=2048, ge=1)
    """Most of a response."""

    @model_validator(mode="after")
    def _ordered(self) -> "Length":
        if self.min_prompt > self.max_prompt or self.min_response > self.max_response:
            raise ValueError("a minimum is above its maximum")
        return self

    def drops(self, pool: Pool) -> Iterator[Drop]:
        bounds = {"prompt": (self.min_prompt, self.max_prompt), "response": (self.min_response, self.max_response)}
        for side, (low, high) in bounds.items():
            size = pc.fill_null(pc.utf8_length(pool.table[side]), 0).to_numpy().astype(np.int64)
            doubt = pool.alive & ((size < low) | (size > high))
            if self.unit == "tokens":
                # a token is a byte at least, and two words are two tokens at least: few rows need counting
                large = pc.fill_null(pc.binary_length(pool.table[side]), 0).to_numpy() > high
                words = pool.units(side)
                doubt = pool.alive & (large | (words.counts < low) | (words.chars & (low > 1)))
                texts = pc.fill_null(pool.column(side, np.flatnonzero(doubt)), "")
                size[doubt] = _tokens(pool, texts.to_pylist())
            for at in np.flatnonzero(doubt & ((size < low) | (size > high))):
                yield int(at), {"field": side, self.unit: int(size[at]), "min": low, "max": high}


def _tokens(pool: Pool, texts: list[str]) -> list[int]:
    """The number of tokens of each text by the recipe's tokenizer."""
    if not texts:
        return []
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory(pool.base))
    tokenizer.model_max_length = 1 << 30
    return [len(ids) for i in range(0, len(texts), 1000)
            for ids in tokenizer(texts[i : i + 1000], add_special_tokens=False)["input_ids"]]  # fmt: skip


# Words that no English sentence ends with, or hardly any; and those that are no sentence by themselves; particles and
# connectives that no Korean one ends with.
_HANGING = r"(?:the|an?|and|or|but|because|of|than|such as|including|its|their|my|your|our)"
_LOOSE = (
    r"(?:to|for|with|from|at|by|into|that|which|who|is|are|was|were|be|been|has|have|had|will|would|can|could|should|"
    r"may|might|must|as|if|when|while|very|between|every|these|those|also|both)"
)
_FIRST = (
    r"(?:As|The|An?|In|It|This|That|These|Those|He|She|We|They|You|I|But|And|So|If|When|While|For|With|By|On|At|Then|"
    r"There|To|My|His|Her|Its|Their|Our|Your|What|How|From|Some|One|Another|Such)"
)
_KOREAN = r"(?:을|를|에게|에서|으로|하고|하며|하면서|그리고|그러나|하지만|때문에|통해|위해|대한|있는|하는|되는)"
_LINE = r"(?:^|\n)[^\n\-*•#>|\d]"  # the beginning of a line that is no item of a list, title, quotation or table
_END = r"[.!?][\"”’)]?"
_PART = r"[\p{Lu}][\pL'’]*,? \p{Ll}"  # how a sentence begins, and no name or title
OPEN = r"[\pL\pN,(\[{)\"']\s*$"  # how nothing ends that is surely whole
CUT = "|".join([
    rf"(?i:\w[^.!?\n]*\s{_HANGING})\s*$",
    r"[\pL\pN)\"']\s*[,(\[{]\s*$",
    rf"[가-힣][^.!?\n]*\s[가-힣]+{_KOREAN}\s*$",
    # a line of whole sentences, the last of which has no end
    _LINE + rf"[^\n]{{40,}}[\pL)]{_END} {_PART}[^\n.!?:;]*$",
    _LINE + rf"[^\n]{{40,}}[\pL)]{_END} {_FIRST}$",
    _LINE + rf"[^\n]{{60,}}\s{_LOOSE}$",
    _LINE + rf"[^\n]{{20,}}{_END} [^\n.!?:;]*\s{_LOOSE}$",
    _LINE + r"[^\n]{20,}[다요까죠][.!?] [가-힣][^\n.!?:;]{8,}[가-힣]$",
    # a line without an end after lines with
    rf"[^\n]{{20,}}[\pL)]{_END}\s*\n\s*[^\n]{{20,}}[\pL)]{_END}\s*\n\s*{_PART}[^\n.!?:;]{{20,}}\p{{Ll}}$",
    rf"[\pL)]{_END}\n\n[\p{{Lu}}][^\n.!?:;]{{80,}}\p{{Ll}}$",
])  # fmt: skip
_WHOLE = re.compile(
    r"[다요까죠음함임됨것니네군지야라],?\s*\Z|[세시][요오],?\s*\Z|#\w+\s*\Z|(?:yours|regards|wishes|truly|sincerely)\s*\Z"
)


class Truncated(Config):
    """Drop responses that break off: in the middle of a sentence, or without the ending that the recipe names."""

    rule: Literal["truncated"] = "truncated"
    ending: str | None = None
    """Regular expression (RE2) that every whole response ends with, as ; for SQL. Without it prose is looked at."""

    def drops(self, pool: Pool) -> Iterator[Drop]:
        if self.ending is not None:
            whole = pc.fill_null(pc.match_substring_regex(pool.column("response"), f"(?:{self.ending})\\s*$"), False)
            cut = pool.live[~whole.to_numpy()]
        else:
            cut = pool.matching("response", CUT, pool.matching("response", OPEN))
        for at in cut:
            text = pool.text("response", at)
            if self.ending is None and (_WHOLE.search(text) or "```" in text):
                continue
            yield int(at), {"end": text.rstrip()[-60:]}


class Repetition(Config):
    """Drop responses that loop: their end repeats itself, or too many of their n-grams repeat an earlier one (Rae et
    al. 2021, MassiveText). What is not made of words may repeat itself, but for nearly all of it."""

    rule: Literal["repetition"] = "repetition"
    n: int = Field(default=3, ge=1)
    """Words (or characters of unspaced scripts, twice as many) of an n-gram."""
    max_share: float = Field(default=0.5, gt=0, le=1)
    """The share of n-grams that may repeat an earlier one."""
    min_grams: int = Field(default=20, ge=2)
    """Responses with fewer n-grams are let through."""
    times: int = Field(default=3, ge=2)
    """How often in a row the end of a response may not be said."""

    def drops(self, pool: Pool) -> Iterator[Drop]:
        for found in each(self._loops, pool.chunks("response")):
            for at, repeated, period in found:
                if repeated > NEARLY_ALL or _wordy(pool.text("response", at)):
                    evidence = {"period": period, "times": self.times} if period else {"max": self.max_share}
                    yield at, {"repeated": round(repeated, 4)} | evidence

    def _loops(self, chunk: tuple[np.ndarray, Units]) -> list[tuple[int, float, int]]:
        """(row, share of its n-grams that repeat one, words of what its end repeats or 0) of the rows that loop."""
        at, u = chunk
        every, offsets = grams(u, np.where(u.chars, 2 * self.n, self.n))
        n = np.diff(offsets)
        repeated = 1 - np.diff(sets(every, offsets)[1]) / np.maximum(n, 1)
        found = []
        for i in np.flatnonzero((repeated > min(SOME, self.max_share)) & (n >= self.min_grams)):
            period = self._period(u.hashes[u.offsets[i] : u.offsets[i + 1]], int(2 * self.n if u.chars[i] else self.n))
            if period or repeated[i] > self.max_share:
                found.append((int(at[i]), float(repeated[i]), period))
        return found

    def _period(self, units: np.ndarray, n: int) -> int:
        """How many units, `n` at least, are said `times` times in a row at the end; 0 if none. A last word that was
        cut off does not count."""
        for end in (len(units), len(units) - 1):
            lengths = end - 1 - np.flatnonzero(units[: end - 1] == units[end - 1])[::-1]
            for length in lengths[(lengths >= n) & (lengths * self.times <= end)].tolist():
                whole = end - length * self.times
                if (units[whole : end - length] == units[whole + length : end]).all():
                    return int(length)
        return 0


def _wordy(text: str) -> bool:
    """Whether words make up a text; tables of signs, notes and patterns repeat themselves by nature."""
    return 2 * sum(map(len, re.findall(r"[^\W\d_]{2,}", text))) >= len(re.findall(r"\S", text))


class Echo(Config):
    """Drop responses that repeat their prompt and add next to nothing."""

    rule: Literal["echo"] = "echo"
    min_words: int = Field(default=4, ge=1)
    """Words of the prompt (characters of unspaced scripts, three times as many) below which it may be repeated."""
    max_more: float = Field(default=0.1, ge=0)
    """Words that may follow the repeated prompt, or stand before it, as a share of its own."""

    def drops(self, pool: Pool) -> Iterator[Drop]:
        sides = zip(pool.chunks("prompt"), pool.chunks("response"), strict=True)
        for found in each(self._echoes, sides):
            for at, words, more in found:
                yield at, {"words": words, "more": more}

    def _echoes(self, sides: tuple[tuple[np.ndarray, Units], tuple[np.ndarray, Units]]) -> list[tuple[int, int, int]]:
        """(row, words of its prompt, words that follow them) of the rows that repeat their prompt."""
        (at, p), (_, r) = sides
        n, more = p.counts, r.counts - p.counts
        asks = n >= np.where(p.chars, 3, 1) * self.min_words
        long = np.flatnonzero(asks & (more >= 0) & (more <= self.max_more * n))
        asked = spans(p, p.offsets[long], p.offsets[long] + n[long])
        first = spans(r, r.offsets[long], r.offsets[long] + n[long])
        last = spans(r, r.offsets[long] + more[long], r.offsets[long + 1])
        same = long[(asked == first) | (asked == last)]
        return list(zip(at[same].tolist(), n[same].tolist(), more[same].tolist(), strict=True))


class Broken(Config):
    """Drop responses with an unclosed code fence, programs with an unclosed bracket or tag, and JSON that does not
    parse where JSON is what they are."""

    rule: Literal["broken"] = "broken"

    def drops(self, pool: Pool) -> Iterator[Drop]:
        for at in pool.matching("response", rf"(?:^|\n)\s*```|{PROGRAM}"):
            text = pool.text("response", at)
            if text.count("```") % 2:
                yield int(at), {"problem": "a code fence is not closed"}
            elif problem := _bad_json(text) or _unclosed(text):
                yield int(at), {"problem": problem}


def _unclosed(text: str) -> str | None:
    """Which tag or bracket of a program is opened and not closed, strings, comments and prose around it aside."""
    if "```" in text or re.search(r"[.!?]\s*\Z", text):
        return None
    if (tag := re.match(r"\s*<(html|head|body|div|table|form|ul|ol|svg|select|p|script|style)\b", text, re.I)) and (
        f"</{tag[1].lower()}" not in text.lower()
    ):
        return f"<{tag[1]}> is not closed"
    bare = re.sub(r"""\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|(?:#|//|--)[^\n]*""", "", text)
    return next((f"{a} is not closed" for a, b in ("()", "[]", "{}") if bare.count(a) > bare.count(b)), None)


def _bad_json(text: str) -> str | None:
    """What is wrong with a text that is all JSON, or with its fenced JSON; None where there is none or it is right."""
    blocks = re.findall(r"^\s*```json\s*\n(.*?)^\s*```", text, re.MULTILINE | re.DOTALL)
    if not blocks and re.match(r'\s*(?:\{\s*"|\[\s*[\[{"])', text) and re.search(r"[\]}]\s*\Z", text):
        blocks = [text]
    for block in blocks:
        try:
            json.JSONDecoder().raw_decode(block.strip())
        except (ValueError, RecursionError) as e:
            return f"not valid JSON: {getattr(e, 'msg', 'nested too deeply, or a number too long')}"
    return None
