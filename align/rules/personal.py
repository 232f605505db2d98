"""Personal data in texts: found by form, confirmed by checksum where there is one, dropped or masked."""

import re
from collections.abc import Iterator
from typing import Literal

from stdnum import luhn
from stdnum.exceptions import ValidationError
from stdnum.kr import rrn

from align.config import Config
from align.rules.pool import Drop, Pool

Kind = Literal["email", "phone", "card", "rrn"]

# For each kind a pattern that both RE2 (whole columns) and re (one text) read, without look-around.
PATTERNS: dict[str, str] = {
    "email": r"[A-Za-z0-9._%+\-]{1,64}@[A-Za-z0-9\-]{1,63}(?:\.[A-Za-z0-9\-]{1,63})*\.[A-Za-z]{2,24}",
    "rrn": r"[0-9]{6}[\-–— ]?[1-8][0-9]{6}",
    "card": r"[0-9](?:[ \-]?[0-9]){12,18}",
    "phone": r"\+[1-9][0-9]{0,2}[ .\-]?\(?[0-9]{1,4}\)?(?:[ .\-]?[0-9]{2,4}){2,4}"
             r"|\(?0(?:1[016789]|2|[3-6][1-5]|70|50[0-9])\)?[ .\-]?[0-9]{3,4}[ .\-][0-9]{4}"
             r"|01[016789][0-9]{7,8}"
             r"|\(?[2-9][0-9]{2}\)?[ .\-][0-9]{3}[ .\-][0-9]{4}",
}  # fmt: skip
_ANY = "|".join(f"(?:{p})" for p in PATTERNS.values())
_RESERVED = re.compile(
    r"@(?:[\w\-]+\.)*(?:example\.(?:com|org|net)|[\w\-]+\.(?:example|test|invalid)|localhost)$", re.I
)


class PersonalData(Config):
    """Drop rows with e-mail addresses, phone numbers, card numbers (checksum) or Korean resident registration numbers
    (checksum), or mask these."""

    rule: Literal["personal_data"] = "personal_data"
    action: Literal["drop", "mask"] = "drop"
    """Whether the row goes, or each find is replaced by its kind, as in [email]."""
    kinds: tuple[Kind, ...] = ("email", "phone", "card", "rrn")
    """What to look for."""

    def drops(self, pool: Pool) -> Iterator[Drop]:
        found: dict[int, list[str]] = {}
        masked: dict[str, dict[int, str]] = {"prompt": {}, "response": {}}
        for side in ("prompt", "response"):
            for at in pool.matching(side, _ANY):
                text = pool.text(side, at)
                if spans := personal(text, self.kinds):
                    found.setdefault(int(at), []).extend(kind for kind, _, _ in spans)
                    masked[side][int(at)] = mask(text, spans)
        if self.action == "drop":
            yield from ((at, {"kinds": sorted(set(kinds))}) for at, kinds in found.items())
            return
        for side, texts in masked.items():
            pool.replace(side, texts)
        turns = {at: [mask(t, personal(t, self.kinds)) for t in pool.turns(at)] for at in masked["prompt"]}
        pool.replace_turns(turns)
        for at, kinds in found.items():
            pool.remarks.setdefault(at, {})["masked"] = sorted(kinds)
        pool.notes["masked"] = len(found)


def personal(text: str, kinds: tuple[str, ...]) -> list[tuple[str, int, int]]:
    """(kind, start, end) of what is found in a text, in order and without overlap; earlier kinds win."""
    taken: list[tuple[str, int, int]] = []
    for kind in ("email", "rrn", "card", "phone"):
        if kind not in kinds:
            continue
        for match in re.finditer(PATTERNS[kind], text):
            start, end = match.span()
            beside = text[max(start - 1, 0) : start] + text[end : end + 1]
            inside = kind != "email" and any(c.isalnum() and c.isascii() or c in "-_" for c in beside)
            if inside or any(s < end and start < e for _, s, e in taken) or not _real(kind, match.group()):
                continue
            taken.append((kind, start, end))
    return sorted(taken, key=lambda span: span[1])


def mask(text: str, spans: list[tuple[str, int, int]]) -> str:
    """The text with each span replaced by its kind in brackets."""
    for kind, start, end in reversed(spans):
        text = f"{text[:start]}[{kind}]{text[end:]}"
    return text


def _real(kind: str, text: str) -> bool:
    digits = "".join(c for c in text if c.isdigit())
    match kind:
        case "card":
            return 13 <= len(digits) <= 19 and len(set(digits)) > 1 and digits[0] in "23456" and luhn.is_valid(digits)
        case "rrn":
            return resident(digits)
        case "email":
            return _RESERVED.search(text) is None and ".." not in text
        case _:
            return 9 <= len(digits) <= 15 and len(set(digits)) > 2 and not re.search(r"555[ .\-]01\d\d$", text)


def resident(digits: str) -> bool:
    """Whether 13 digits have the checksum of Korean resident registration numbers and a date of birth that exists.

    stdnum's own is_valid also asks for a place of birth that was once assigned: a number that passes all else is
    someone's often enough to be hidden.
    """
    try:
        rrn.get_birth_date(digits)
    except ValidationError:
        return False
    return rrn.calc_check_digit(digits[:-1]) == digits[-1]
