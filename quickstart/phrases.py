"""Puts an intent into words: as a question (register `chat`) or as the label of a saved query (register `note`)."""

import random

from quickstart.frames import CHAT_EN, CHAT_KO, NOTE_EN, NOTE_KO, ROWS_EN, ROWS_KO
from quickstart.grammar import ABOVE, VALUES, Intent
from quickstart.words import (
    COLUMNS,
    COUNTERS,
    DIMENSIONS_EN,
    DIMENSIONS_KO,
    EN,
    KO,
    MEASURES_EN,
    MEASURES_KO,
    NOUNS,
    time_parts,
    value_word,
)

_JOSA = {"은": ("은", "는"), "이": ("이", "가"), "을": ("을", "를"), "로": ("으로", "로")}


class _Korean(str):
    """A word whose format spec is the particle that follows it, chosen by its last consonant."""

    def __format__(self, spec: str) -> str:
        if not spec:
            return str(self)
        last = (ord(self[-1]) - 0xAC00) % 28 if "가" <= self[-1] <= "힣" else 0
        return f"{self}{_JOSA[spec][0 if last and (spec, last) != ('로', 8) else 1]}"


def _filter_words(entity: str, field: str, value: object, lang: str, register: str, rng: random.Random) -> str:
    forms = KO if lang == "ko" else EN
    form = rng.choice(forms.get(f"{entity} {field}", forms[field])[register])
    if isinstance(value, tuple):
        return form.format(*time_parts(field, value))
    if field.endswith(("_over", "_under")) and isinstance(value, int) and value >= 10000 and rng.random() < 0.4:
        if lang == "en":
            return form.format(f"{value:,}")
        return form.format(f"{value // 10000}만 " if value % 10000 == 0 and "{}원" in form else f"{value:,}")
    return form.format(_Korean(value_word(value, lang)))


def _noun_phrase(intent: Intent, lang: str, register: str, rng: random.Random) -> str:
    noun = NOUNS[lang][intent.entity]
    words = [_filter_words(intent.entity, f, v, lang, register, rng) for f, v in intent.filters]
    if lang == "ko":
        if register == "note" and rng.random() < 0.4:
            return ", ".join([noun, *words])
        # In a question the time of an order comes first, or a short label would swallow it.
        if register == "chat":
            words.sort(key=lambda w: " " not in w)
        else:
            rng.shuffle(words)
        return " ".join([*words, noun])
    before = [w[1:] for w in words if w.startswith("-")]
    after = [w for w in words if not w.startswith("-")]
    if register == "note":
        rng.shuffle(after)
        if rng.random() < 0.4:
            return ", ".join([noun, *before, *after])
    return " ".join([*before, noun, *after])


def say(intent: Intent, lang: str, register: str, rng: random.Random) -> str:
    """One wording of an intent; `register` is `chat` (a question) or `note` (the label of a saved query)."""
    ko, chat = lang == "ko", register == "chat"
    # Half of the notes are written out: framed like notes, but with the noun phrases that people speak in.
    words = "chat" if chat or rng.random() < 0.5 else "note"
    np = _noun_phrase(intent, lang, words, rng)
    forms = (CHAT_KO if ko else CHAT_EN) if chat else (NOTE_KO if ko else NOTE_EN)
    how, _, column = intent.what.partition(" ")
    column = COLUMNS[lang].get(column or how, "")
    measure = (MEASURES_KO if ko else MEASURES_EN).get(how)
    m = rng.choice(measure[words]).format(np=_Korean(np), col=column) if measure else ""
    key = intent.kind
    if key == "scalar" and how == "count":
        key = "count"
    if chat and key == "top" and intent.n == 1:
        key = "top1"
    if chat and not ko and key == "having" and how == "units":
        key = "having units"
    dim = DIMENSIONS_KO.get(intent.dim, "") if ko else DIMENSIONS_EN.get(intent.dim, ("", ""))[0]
    fields = {
        "np": np,
        "m": m,
        "col": column,
        "dim": dim,
        "n": str(intent.n),
        "unit": COUNTERS[intent.entity],
        "dims": DIMENSIONS_EN.get(intent.dim, ("", ""))[1],
        "part": "",
        "by": "",
        "cmp": "",
        "sup": "",
        "ord": "",
    }
    if intent.kind == "share":
        fields["part"] = _part(intent, lang, words, rng)
    if intent.kind == "rows":
        fields["by"] = (ROWS_KO if ko else ROWS_EN)[(intent.what, intent.high)]
    if intent.kind == "above" and not column:
        fields["col"] = COLUMNS[lang][ABOVE[intent.entity]]
    high = intent.high
    fields["sup"] = ("높은" if high else "낮은") if ko else ("highest" if high else "lowest")
    fields["ord"] = rng.choice(
        (("상위", "내림차순") if high else ("하위", "오름차순"))
        if ko
        else (("descending", "largest") if high else ("ascending", "smallest"))
    )
    fields["cmp"] = _compare(intent, ko, words == "chat")
    return rng.choice(forms[key]).format(**{k: _Korean(v) for k, v in fields.items()})


def _compare(intent: Intent, ko: bool, chat: bool) -> str:
    if intent.kind == "above":
        if chat:
            return ("높은" if intent.high else "낮은") if ko else ("above" if intent.high else "below")
        return ("초과" if intent.high else "미만") if ko else ("over" if intent.high else "under")
    if chat:
        return ("보다 많은" if intent.high else "보다 적은") if ko else ("more than" if intent.high else "fewer than")
    return ("초과" if intent.high else "미만") if ko else (">" if intent.high else "<")


def _part(intent: Intent, lang: str, register: str, rng: random.Random) -> str:
    """What a share is the share of: a value of a field, said alone."""
    words = _filter_words(intent.entity, intent.what, VALUES[intent.what][intent.n], lang, register, rng).removeprefix(
        "-"
    )
    return f"{words} {NOUNS['ko'][intent.entity]}" if lang == "ko" and register == "chat" else words
