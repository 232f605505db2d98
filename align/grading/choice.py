"""Which option of a multiple-choice question a response names, by its letter or number, in English and Korean."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from align.config import Config
from align.errors import StageError
from align.grading.grade import Grade, Item, correct, unreadable, wrong
from align.text import normalise

LETTERS = "ABCDEFGHIJ"
CIRCLED = "①②③④⑤⑥⑦⑧⑨⑩"
_CUE = re.compile(
    r"(?:answer|choice|option)\s*(?:is\s*:?|:|：|=)\s*(?:(?:option|choice)\s+)?"
    r"|\b(?:choose|pick|select|it is|it's|it’s|would be|must be|should be)\s+(?:(?:option|choice)\s+)?"
    r"|(?:정답|답)\s*(?:은|는|:|：|=)\s*",
    re.I,
)
_LABEL = r"(?:[A-Ja-j](?![A-Za-z'’])|[①-⑩]|10|[1-9])(?!\d)"
_AFTER_CUE = re.compile(rf"[\s\"'“‘(\[（]*({_LABEL})(\s*번)?")
_KOREAN = re.compile(rf"[(（]?(?<![\w.])({_LABEL})[)）]?\s*(번)?\s*(?:이|가)\s*(?:정답|답|맞|옳)")
_ALONE = re.compile(rf"\W*(?:(?:[Oo]ption|[Cc]hoice|보기)\s+)?\(?({_LABEL})\s*(번)?(?:입니다|이다|이에요|예요)?\W*")
_ENGLISH = re.compile(r"(?<![\w'’])\(?([A-J])\)?\s+is\s+(?:the\s+)?(?:correct|right|best|answer)\b")
_IN_TEXT = re.compile(
    r"(?<![\w.])[(\[（]([A-Ja-j]|[1-9])[)\]）]"
    r"|^\s*([A-J])(?=[.):,]|\s*$)"
    r"|(?<!\w)([A-J])(?=\s+(?:and|or)\s+[A-J]\b)"
    r"|(?<=\band )([A-J])(?!\w)|(?<=\bor )([A-J])(?!\w)"
    r"|([①-⑩])"
    r"|(?<![\d.])(?P<count>10|[1-9])\s*번(?!째)",
    re.M,
)
_BOXED = re.compile(r"\\boxed\s*\{\s*(?:\\(?:text|mathrm|textbf)\s*\{)?\s*\(?([A-J]|[1-9])\)?\s*\}+")
_OR = re.compile(r"[)\]]?\s+(?:or|and)\s+\(?([A-J])(?!\w)")
_NOT_BEFORE = re.compile(
    r"(?:\b(?:not|never|neither|nor|except|isn't|isn’t)\s+(?:option\s+|choice\s+)?[(\[\"']*)\Z", re.I
)
_NOT_AFTER = re.compile(r"[)\]]*\s*번?\s*(?:이|가|은|는|도)?\s*아니|\s+is\s+(?:not|wrong|incorrect|false)\b", re.I)


@dataclass(frozen=True)
class Options:
    """The options of an item: their texts, where the row has them, and which is right."""

    texts: tuple[str, ...]
    right: int
    numbered: bool
    """Whether the reference is a number, so that numbers name options as letters do."""


class ChoiceGrader(Config):
    """Read which option a response chooses: "B", "(B)", "The answer is B", "정답은 ②", "3번", or the option's text.

    A response that names no option, or several without saying which is the answer, is `unreadable`.
    """

    kind: Literal["choice"] = "choice"
    """The letter or number of an option."""

    @property
    def name(self) -> str:
        """What scores and pairs call this grader."""
        return "choice"

    def grade(self, items: Sequence[Item]) -> list[Grade]:
        """Grade all items. Raises StageError naming the row whose reference is no option."""
        return [self._one(item) for item in items]

    def _one(self, item: Item) -> Grade:
        options = options_of(item.row_id, item.reference, item.meta)
        named = chosen(item.response, options)
        if len(named) != 1:
            told = " and ".join(LETTERS[i] for i in sorted(named)[:5])
            return unreadable(f"names {told} and not one of them as the answer" if named else "names no option")
        (at,) = named
        return (
            correct(LETTERS[at]) if at == options.right else wrong(f"{LETTERS[at]} instead of {LETTERS[options.right]}")
        )


def options_of(row_id: str, reference: str | None, meta: Mapping[str, Any]) -> Options:
    """The options of a row: `choices` of its meta, and the reference as a letter, a number from 1, or an option's text.

    Raises StageError naming the row where the reference is none of them.
    """
    listed = meta.get("choices")
    texts = tuple(str(c) for c in listed) if isinstance(listed, list) else ()
    if len(texts) > len(LETTERS):
        raise StageError(f"Row {row_id} has {len(texts)} choices; at most {len(LETTERS)} can be told apart by letter.")
    told = (reference or "").strip()
    found = _ALONE.fullmatch(told)
    if found and (at := index_of(found[1])) is not None and at < (len(texts) or len(LETTERS)):
        return Options(texts, at, not found[1].isalpha())
    same = [i for i, text in enumerate(texts) if normalise(text) == normalise(told) and told]
    if len(same) == 1:
        return Options(texts, same[0], False)
    raise StageError(
        f"The reference of row {row_id} is {told!r:.60}, which is no option's letter, number or text; name the "
        "column of the right one in `columns`, or give the source the shape multiple_choice."
    )


def index_of(label: str) -> int | None:
    """The position of the option that a letter, a digit or a circled number names; from 0."""
    if label in CIRCLED:
        return CIRCLED.index(label)
    return int(label) - 1 if label.isdigit() else LETTERS.index(label.upper()) if label.upper() in LETTERS else None


def chosen(response: str, options: Options) -> set[int]:
    """The options that a response names as its answer; those that it names at all where it calls none the answer."""
    text = re.sub(r"\*\*|__|`", "", response).strip()
    if (found := _ALONE.fullmatch(text)) and (at := _index(found[1], bool(found[2]), options)) is not None:
        return {at}
    same = {i for i, option in enumerate(options.texts) if normalise(option) == normalise(text) and text}
    if same:
        return same
    said = {at for m in _BOXED.finditer(text) if (at := _index(m[1], False, options)) is not None}
    said |= _said(text, options)
    return said or _named(text, options)


def _said(text: str, options: Options) -> set[int]:
    """The options of which the text says that they are the answer."""
    found: set[int] = set()
    for cue in _CUE.finditer(text):
        label = _AFTER_CUE.match(text, cue.end())
        if label and not _is_word(label, text) and not _NOT_AFTER.match(text, label.end()):
            at = _index(label[1], bool(label[2]), options)
            if at is not None:
                both = _OR.match(text, label.end())
                found |= {at} | ({index_of(both[1]) or 0} if both else set())
                continue
        rest = normalise(re.split(r"[\n.。]", text[cue.end() :])[0])
        found |= {i for i, option in enumerate(options.texts) if (n := normalise(option)) and rest == n}
    for label in (*_ENGLISH.finditer(text), *_KOREAN.finditer(text)):
        at = _index(label[1], label.re is _KOREAN and bool(label[2]), options)
        if at is not None and not _NOT_AFTER.match(text, label.end()):
            found.add(at)
    return found


def _is_word(label: re.Match[str], text: str) -> bool:
    """Whether a small letter is an article or the like: "the answer is a matter of taste"."""
    return label[1].islower() and not re.match(r"\s*(?:[.):,;\]]|$)", text[label.end() :])


def _named(text: str, options: Options) -> set[int]:
    """The options that the text names anywhere, but for those that it rules out."""
    found: set[int] = set()
    for m in _IN_TEXT.finditer(text):
        label = next(g for g in m.groups() if g)
        if not _NOT_BEFORE.search(text[max(0, m.start() - 40) : m.start()]) and not _NOT_AFTER.match(text, m.end()):
            at = _index(label, bool(m["count"]), options)
            found |= set() if at is None else {at}
    return found


def _index(label: str, counted: bool, options: Options) -> int | None:
    """The option that a label names. A bare digit does where options are numbered, or with the Korean counter 번."""
    if label.isdigit() and not (counted or options.numbered or label in CIRCLED):
        return None
    at = index_of(label)
    return at if at is not None and at < (len(options.texts) or len(LETTERS)) else None
