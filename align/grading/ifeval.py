"""IFEval's verifiable instructions (Zhou et al., 2023, arXiv:2311.07911), all 25 of them.

Written from the paper's definitions and compatible with the `instruction_id_list` and `kwargs` columns of its data. Two
approximations, where the original uses NLTK and langdetect: sentences end at .!?。！？ followed by white space, with
common abbreviations joined; languages come from lingua, and of the two that it lacks Kannada is told by its script and
Nepali is told from other scripts only (else `ungraded`).
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal

from align.config import Config
from align.errors import StageError
from align.grading.grade import Grade, Item, scored, ungraded

Check = Callable[[str, dict[str, Any]], bool | None]  # (response, kwargs) -> followed; None: cannot be told

_LANGUAGES = "ar bg bn de en es fa fi fr gu hi it ja ko mr nl pa pt ru sw ta te th ur vi zh"
_SCRIPTS = {"kn": re.compile(r"[\u0c80-\u0cff]"), "ne": re.compile(r"[\u0900-\u097f]")}
_ABBREVIATION = re.compile(r"\b(?:mr|mrs|ms|dr|prof|st|vs|etc|e\.g|i\.e|u\.s|no|jr|sr|[a-z])\.$", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?]+[\"')\]]*(?=\s|$)|[。！？]+")


class IfevalGrader(Config):
    """Check a response against the row's `instruction_id_list` and `kwargs` (IFEval)."""

    kind: Literal["ifeval"] = "ifeval"
    """Verifiable instructions."""
    level: Literal["prompt", "instruction"] = "prompt"
    """Score 1 only where all instructions are followed (the usual figure), or the share that is followed."""
    loose: bool = False
    """Also accept the response without its first or last line or its asterisks (the paper's loose accuracy)."""

    @property
    def name(self) -> str:
        """What scores and pairs call this grader."""
        return "ifeval"

    def grade(self, items: Sequence[Item]) -> list[Grade]:
        """Grade all items. Raises StageError naming the row whose instructions cannot be read."""
        return [self._one(item) for item in items]

    def _one(self, item: Item) -> Grade:
        ids, kwargs = _column(item, "instruction_id_list"), _column(item, "kwargs")
        if not ids or len(ids) != len(kwargs):
            raise StageError(f"Row {item.row_id} has no matching instruction_id_list and kwargs; is it an IFEval row?")
        failed, unknown = [], []
        for name, values in zip(ids, kwargs, strict=True):
            given = {k: v for k, v in (values or {}).items() if v is not None}
            try:
                ok = followed(name, item.response, given, self.loose)
            except Exception as error:
                raise StageError(
                    f"The instruction {name} of row {item.row_id} cannot be checked ({type(error).__name__}: {error})."
                ) from error
            if ok is None:
                unknown.append(name)
            elif not ok:
                failed.append(name)
        if unknown:
            return ungraded(f"cannot be checked: {', '.join(unknown)}")
        share = 1 - len(failed) / len(ids)
        score = share if self.level == "instruction" else float(not failed)
        return scored(score, 1.0, f"not followed: {', '.join(failed)}" if failed else "")


def followed(name: str, response: str, kwargs: dict[str, Any], loose: bool = False) -> bool | None:
    """Whether `response` follows the instruction; None where that cannot be told. An empty response follows nothing."""
    check = CHECKS.get(name)
    if check is None:
        return None
    results = [bool(text.strip()) and check(text, kwargs) for text in (_variants(response) if loose else [response])]
    return None if None in results and True not in results else any(results)


def _variants(response: str) -> list[str]:
    lines = response.split("\n")
    texts = ["\n".join(part).strip() for part in (lines, lines[1:], lines[:-1], lines[1:-1])]
    return [response, *texts, *(t.replace("*", "") for t in texts)]


def _column(item: Item, name: str) -> list[Any]:
    value = item.meta.get(name)
    value = json.loads(value) if isinstance(value, str) else value
    return value if isinstance(value, list) else []


def _relation(count: int, relation: str, number: int) -> bool:
    if relation not in ("at least", "less than"):
        raise ValueError(f"unknown relation {relation!r}")
    return count >= number if relation == "at least" else count < number


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def sentences(text: str) -> int:
    """How many sentences a text has; headings and list items on lines of their own count as one each."""
    count = 0
    for line in filter(str.strip, re.split(r"\n+", text)):
        start = 0
        for end in _SENTENCE_END.finditer(line):
            if not _ABBREVIATION.search(line[start : end.end()]) and _words(line[start : end.end()]):
                count, start = count + 1, end.end()
        count += bool(_words(line[start:]))
    return count


@cache
def _detector() -> Any:
    from lingua import Language, LanguageDetectorBuilder

    chosen = [lang for lang in Language.all() if lang.iso_code_639_1.name.lower() in _LANGUAGES.split()]
    return LanguageDetectorBuilder.from_languages(*chosen).build()


def _language(text: str, code: str) -> bool | None:
    if code in _SCRIPTS:
        letters = [c for c in text if c.isalpha()]
        share = sum(bool(_SCRIPTS[code].match(c)) for c in letters) / max(1, len(letters))
        return share > 0.5 if code == "kn" or share <= 0.5 else None
    if code not in _LANGUAGES.split():
        return None
    found = _detector().detect_language_of(text)
    return found is None or found.iso_code_639_1.name.lower() == code  # no language at all, such as numbers: followed


def _paragraphs(text: str, k: dict[str, Any]) -> bool:
    parts = re.split(r"\s?\*\*\*\s?", text)
    if any(not p.strip() for p in parts[1:-1]):
        return False
    return sum(bool(p.strip()) for p in parts) == k["num_paragraphs"]


def _nth_paragraph(text: str, k: dict[str, Any]) -> bool:
    parts = re.split(r"\n\n", text)
    if sum(bool(p.strip()) for p in parts) != k["num_paragraphs"] or k["nth_paragraph"] > len(parts):
        return False
    words = parts[k["nth_paragraph"] - 1].split()
    if not words:
        return False
    return re.split(r"[.,?!'\"]", words[0].lstrip("'\""))[0].lower() == k["first_word"].lower()


def _postscript(text: str, k: dict[str, Any]) -> bool:
    marker = k["postscript_marker"]
    known = {"P.P.S": r"\s*p\.\s?p\.\s?s.*$", "P.S.": r"\s*p\.\s?s\..*$"}
    pattern = known.get(marker, r"\s*" + re.escape(marker.lower()) + r".*$")
    return bool(re.search(pattern, text.lower(), re.MULTILINE))


def _bullets(text: str, k: dict[str, Any]) -> bool:
    return len(re.findall(r"^\s*(?:\*[^*\n]|-).*$", text, re.MULTILINE)) == k["num_bullets"]


def _highlights(text: str, k: dict[str, Any]) -> bool:
    single = [h for h in re.findall(r"\*[^\n*]*\*", text) if h.strip("*").strip()]
    double = [h for h in re.findall(r"\*\*[^\n*]*\*\*", text) if h.removeprefix("**").removesuffix("**").strip()]
    return len(single) + len(double) >= k["num_highlights"]


def _json(text: str, _: dict[str, Any]) -> bool:
    body = re.sub(r"^```(?:json)?|```$", "", text.strip(), flags=re.IGNORECASE).strip()
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


def _two_responses(text: str, _: dict[str, Any]) -> bool:
    parts = text.split("******")
    if any(not p.strip() for p in parts[1:-1]):
        return False
    full = [p.strip() for p in parts if p.strip()]
    return len(full) == 2 and full[0] != full[1]


def _case(text: str, upper: bool) -> bool | None:
    return (text.isupper() if upper else text.islower()) and _language(text, "en")


CHECKS: dict[str, Check] = {
    "keywords:existence": lambda t, k: all(re.search(w, t, re.IGNORECASE) for w in k["keywords"]),
    "keywords:frequency": lambda t, k: _relation(
        len(re.findall(k["keyword"], t, re.IGNORECASE)), k["relation"], k["frequency"]
    ),
    "keywords:forbidden_words": lambda t, k: not any(
        re.search(rf"\b{w}\b", t, re.IGNORECASE) for w in k["forbidden_words"]
    ),
    "keywords:letter_frequency": lambda t, k: _relation(
        Counter(t.lower())[k["letter"].lower()], k["let_relation"], k["let_frequency"]
    ),
    "language:response_language": lambda t, k: _language(t, k["language"]),
    "length_constraints:number_sentences": lambda t, k: _relation(sentences(t), k["relation"], k["num_sentences"]),
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:number_words": lambda t, k: _relation(len(_words(t)), k["relation"], k["num_words"]),
    "length_constraints:nth_paragraph_first_word": _nth_paragraph,
    "detectable_content:number_placeholders": lambda t, k: len(re.findall(r"\[.*?\]", t)) >= k["num_placeholders"],
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": lambda t, k: any(
        f"My answer is {a}." in t for a in ("yes", "no", "maybe")
    ),
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": lambda t, k: len(
        re.split(rf"\s?{re.escape(k['section_spliter'])}\s?\d+\s?", t)
    ) > k["num_sections"],
    "detectable_format:json_format": _json,
    "detectable_format:title": lambda t, k: any(
        m.lstrip("<").rstrip(">").strip() for m in re.findall(r"<<[^\n]+>>", t)
    ),
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": lambda t, k: t.strip().lower().startswith(k["prompt_to_repeat"].strip().lower()),
    "startend:end_checker": lambda t, k: t.strip().strip('"').lower().endswith(k["end_phrase"].strip().lower()),
    "startend:quotation": lambda t, k: len(t.strip()) > 1 and t.strip()[0] == t.strip()[-1] == '"',
    "change_case:capital_word_frequency": lambda t, k: _relation(
        sum(w.isupper() for w in re.findall(r"[\w'-]+", t)), k["capital_relation"], k["capital_frequency"]
    ),
    "change_case:english_capital": lambda t, k: _case(t, True),
    "change_case:english_lowercase": lambda t, k: _case(t, False),
    "punctuation:no_comma": lambda t, k: "," not in t,
}  # fmt: skip
