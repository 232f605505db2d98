"""Rules on the form of a row: what can be told from its text alone."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import pyarrow.compute as pc
from pydantic import Field

from tasks.lib.config import Config
from tasks.lib.pool import Drop, Pool
from tasks.lib.shingles import chunks, grams, units

REFUSALS = {
    "as an AI": r"\bas an? (?:ai|artificial intelligence|(?:large )?language model|ai language model|chatbot)\b",
    "I cannot": r"^\W*(?:i'?m |i am )?(?:sorry|apologi[sz]e|unfortunately|regret)[^.\n]{0,60}\b(?:i|we)(?:'m| am| are)?"
                r" ?(?:can'?t|cannot|unable|not able|won'?t|am not|do not|don'?t)\b",
    "I am unable": r"^\W*(?:i|we) (?:can'?t|cannot|am unable to|am not able to|won'?t) "
                   r"(?:help|assist|answer|provide|comply|fulfil|access|complete|browse|generate|create|engage|do that)",
    "AI로서": r"(?:ai|인공지능|언어 ?모델|챗봇)(?: 언어 ?모델| 모델| 비서| 어시스턴트)?"
             r"(?:으로서|로서|이기 때문|이라서|이라 |이어서|라서|이므로|입니다[^.]{0,20}(?:없|못))",
    "죄송하지만": r"^\W*(?:죄송|미안|안타깝|유감)[^.\n]{0,80}(?:수 ?(?:가 |는 )?없|못 ?(?:합|해|하|드)|어렵|불가능)",
}  # fmt: skip


class Empty(Config):
    """Drop rows without a prompt or without a response."""

    rule: Literal["empty"] = "empty"

    def drops(self, pool: Pool) -> Iterator[Drop]:
        for side in ("prompt", "response"):
            words = pc.fill_null(pc.match_substring_regex(pool.column(side), r"[\pL\pN]"), False)
            for at in pool.live[~words.to_numpy()]:
                if side == "prompt" or pool.text(side, at).strip(" \t\r\n.…-_") == "":
                    yield int(at), {"field": side, "text": pool.text(side, at)[:40]}


class Length(Config):
    """Drop rows that are too short or too long, in characters."""

    rule: Literal["length"] = "length"
    min_prompt: int = Field(default=1, ge=0)
    """Fewest characters of a prompt."""
    max_prompt: int = 20_000
    """Most characters of a prompt."""
    min_response: int = Field(default=1, ge=0)
    """Fewest characters of a response."""
    max_response: int = 20_000
    """Most characters of a response."""

    def drops(self, pool: Pool) -> Iterator[Drop]:
        for side, low, high in (
            ("prompt", self.min_prompt, self.max_prompt),
            ("response", self.min_response, self.max_response),
        ):
            size = pc.fill_null(pc.utf8_length(pool.column(side)), 0).to_numpy()
            for at, n in zip(pool.live[(size < low) | (size > high)], size[(size < low) | (size > high)], strict=True):
                yield int(at), {"field": side, "characters": int(n), "min": low, "max": high}


class Truncated(Config):
    """Drop responses that break off."""

    rule: Literal["truncated"] = "truncated"
    ending: str | None = None
    """Regular expression that the end of every whole response matches; by default prose that breaks off is found."""

    def drops(self, pool: Pool) -> Iterator[Drop]:
        if self.ending is not None:
            ends = pc.fill_null(pc.match_substring_regex(pool.column("response"), f"(?:{self.ending})\\s*$"), False)
            cut = pool.live[~ends.to_numpy()]
        else:
            cut = pool.matching("response", r"(?:[\pL],|[,;(\[{]|\b(?:and|or|the|a|an|of|to|with|in|for|is|are))\s*$")
        for at in cut:
            yield int(at), {"end": pool.text("response", at)[-40:]}


class Refusal(Config):
    """Drop boilerplate refusals and answers that speak of themselves as an AI, in English and Korean."""

    rule: Literal["refusal"] = "refusal"

    def drops(self, pool: Pool) -> Iterator[Drop]:
        import re

        found: dict[int, str] = {}
        for name, pattern in REFUSALS.items():
            for at in pool.matching("response", "(?i)" + pattern):
                found.setdefault(int(at), name)
        for at, name in found.items():
            match = re.search(REFUSALS[name], pool.text("response", at), re.IGNORECASE)
            yield at, {"pattern": name, "text": match.group()[:80] if match else ""}


class Repetition(Config):
    """Drop responses that loop: few of their n-grams are different ones."""

    rule: Literal["repetition"] = "repetition"
    n: int = Field(default=3, ge=1)
    """Words (or characters of unspaced scripts, twice as many) of an n-gram."""
    max_share: float = Field(default=0.5, gt=0, le=1)
    """The share of n-grams that may repeat an earlier one."""
    min_grams: int = 12
    """Responses with fewer n-grams are let through."""

    def drops(self, pool: Pool) -> Iterator[Drop]:
        from tasks.lib.shingles import sets

        live = pool.live
        for start, texts in chunks(pool.column("response")):
            u = units(texts)
            every, offsets = grams(u, np.where(u.chars, 2 * self.n, self.n))
            n = np.diff(offsets)
            repeated = 1 - np.diff(sets(every, offsets)[1]) / np.maximum(n, 1)
            for i in np.flatnonzero((repeated > self.max_share) & (n >= self.min_grams)):
                yield int(live[start + i]), {"repeated": round(float(repeated[i]), 4), "max": self.max_share}
