"""The report's words: sentences are English in the code, and what they are in another language stands in one place.

A sentence is a template, `say("{n:row} from {source}.", n=3, source="logs")`. Whole numbers are written with
separators; one with a noun as its format is counted in it ("1 row", "3 rows"; "{n:category|categories}" where that is
irregular). In Korean a text with a particle as its format takes the form of it that follows its last sound
("{who:은}"). align/report/korean/ holds the Korean sentences by their English ones; what is not there stays English.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from string import Formatter
from typing import Any, Literal

Language = Literal["en", "ko"]
_SPOKEN: ContextVar[Language] = ContextVar("spoken", default="en")

PARTICLES = {"은": ("은", "는"), "이": ("이", "가"), "을": ("을", "를"), "과": ("과", "와"), "으로": ("으로", "로")}
"""Korean particles by the form after a consonant: that, and the form after a vowel."""
_CLOSED = {
    **dict.fromkeys("lmnr", "ㄴ"),
    "l": "ㄹ",
    "r": "ㄹ",
    **dict.fromkeys("036", "ㅇ"),
    **dict.fromkeys("178", "ㄹ"),
}
"""Latin letters and digits whose Korean names end in a consonant, by that consonant as far as it matters."""


@contextmanager
def speaking(language: Language) -> Iterator[None]:
    """Within, `say` speaks this language."""
    token = _SPOKEN.set(language)
    try:
        yield
    finally:
        _SPOKEN.reset(token)


def spoken() -> Language:
    """The language that `say` speaks."""
    return _SPOKEN.get()


def say(text: str, /, **values: Any) -> str:
    """A sentence in the language that is spoken, with its values."""
    if _SPOKEN.get() == "ko":
        from align.report.korean import SENTENCES

        text = SENTENCES.get(text, text)
    return _FORMATTER.vformat(text, (), values)


def lowered(topic: str) -> str:
    """What can stand in the middle of a sentence; abbreviations stay as they are."""
    return topic if topic[1:2].isupper() else topic[:1].lower() + topic[1:]


def raised(text: str) -> str:
    """What can begin a sentence."""
    return text[:1].upper() + text[1:]


def particle(word: str, form: str) -> str:
    """The form of a Korean particle that follows a word; of one that ends in neither Hangul, Latin nor a digit that
    after a vowel."""
    bare = re.sub(r"(?<=\w)\s*\([^()]*\)$", "", word)  # it agrees with what stands before a bracket
    last = next((c for c in reversed(bare.casefold()) if c.isalnum()), "")
    hangul = "가" <= last <= "힣"
    end = {0: "", 8: "ㄹ"}.get((ord(last) - ord("가")) % 28, "ㅇ") if hangul else _CLOSED.get(last, "")
    closed, open_ = PARTICLES[form]
    return open_ if not end or (form == "으로" and end == "ㄹ") else closed


class _Formatter(Formatter):
    def format_field(self, value: Any, format_spec: str) -> str:
        if isinstance(value, int) and not isinstance(value, bool):
            one, _, many = format_spec.partition("|")
            return f"{value:,}" + (f" {one if value == 1 else many or one + 's'}" if one else "")
        return f"{value}{particle(str(value), format_spec)}" if format_spec in PARTICLES else str(value)


_FORMATTER = _Formatter()
