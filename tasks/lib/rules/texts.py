"""Rules on what a text says of itself: refusals, and characters that tell of a broken encoding."""

import re
from collections.abc import Iterator
from typing import Literal

from tasks.lib.config import Config
from tasks.lib.rules.pool import Drop, Pool

_MODEL = (
    r"(?:ai|artificial intelligence|(?:large |ai )?language model|ai (?:assistant|model)|chatbot|virtual assistant)"
)
_CANNOT = r"(?:can'?t|can ?not|am unable to|am not able to|'?m unable to|'?m not able to|won'?t|will not|do not|don'?t)"
_HELP = (
    r"(?:help|assist|answer|provide|comply|fulfil|access|complete|browse|generate|create|engage|process|perform|"
    r"respond|do that|do this|have (?:access|the ability|personal|feelings|opinions)|offer|give|support|discuss|share|"
    r"determine|translate|run|execute|retrieve|search|look up|see|view|open|recommend|continue)"
)
REFUSALS = {
    "as an AI": rf"\b(?:as|i am|i'm|i’m) (?:just )?an? {_MODEL}\b",
    "sorry": rf"^\W*(?:i'?m |i am |i )?(?:sorry|apologi[sz]e|unfortunately|regret)[^.\n]{{0,60}}\bi ?{_CANNOT} "
             rf"(?:\w+ )?{_HELP}\b",
    "I cannot": rf"^\W*i ?{_CANNOT} (?:\w+ )?{_HELP}\b",
    "not possible": r"^\W*(?:it is|it's) not possible (?:for me )?to "
                    r"(?:provide|answer|generate|determine|complete|give)\b"
                    r"|^\W*(?:no|not enough) (?:information|context|input) "
                    r"(?:was |is |has been )?(?:provided|given)\W*$",
    "no output": r"^\W*no ?(?:(?:in|out)put|answer|response)\b"
                 r"|^\W*(?:this|the|your) (?:\w+ )?(?:cannot|can't|can not) be \w+ by (?:a|an|this) "
                 r"(?:gpt|ai|language)\b",
    "no picture": r"^\s*!\[[^\]\n]*\]\([^)\n]*\)\s*$"
                  r"|^\s*[\[<][^\]>\n]*\b(?:image|screenshot|photo|picture|video|audio)\b[^\]>\n]*[\]>]\s*$",
    "AI로서": r"(?:^|[^a-z])(?:ai|인공 ?지능|언어 ?모델|챗봇)(?: 언어 ?모델| 모델| 비서| 어시스턴트| 챗봇)*"
             r"(?:으로서|로서|로써|이기 때문|이라서|이라 |라서 |이어서|여서|이므로|입니다[^.]{0,20}(?:없|못))",
    "죄송하지만": r"^\W*(?:죄송|미안|안타깝|유감)[^.\n]{0,60}"
                 r"(?:답변|제공|도와|도움|처리|접근|이해|생성|작성|대답|수행|알려)"
                 r"[^.\n]{0,20}(?:수 ?(?:가 |는 )?없|못 ?(?:합|해|하|드)|어렵|불가능)",
}  # fmt: skip
ABOUT_AI = (
    r"(?i)\b(?:ai|artificial intelligence|language model|chatbots?|chatgpt|gpt|robots?|are you)\b"
    r"|인공 ?지능|챗봇|언어 ?모델|로봇"
)


class Refusal(Config):
    """Drop boilerplate refusals and answers that speak as an AI, in English and Korean. A prompt about AI may be
    answered so."""

    rule: Literal["refusal"] = "refusal"

    def drops(self, pool: Pool) -> Iterator[Drop]:
        found: dict[int, str] = {}
        for name, pattern in REFUSALS.items():
            for at in pool.matching("response", "(?i)" + pattern):
                found.setdefault(int(at), name)
        for at, name in found.items():
            if name in ("as an AI", "AI로서") and re.search(ABOUT_AI, pool.text("prompt", at)):
                continue
            match = re.search(REFUSALS[name], pool.text("response", at), re.IGNORECASE)
            yield at, {"pattern": name, "text": match.group().strip()[:100] if match else ""}


# UTF-8 read as a one-byte encoding leaves pairs such as "Ã©" and triples such as "â€™" and "ì•ˆ".
_KOREAN = r"(?:[\x{B0}-\x{C8}][\x{A1}-\x{FE}]){2}"
_SUSPECT = r"[\x{C2}-\x{F4}][\x{80}-\x{BF}€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]"
# Korean in CP949 read as Latin-1: pairs of characters of which the first begins a syllable.
_PAIRS = re.compile(r"(?:[\xb0-\xc8][\xa1-\xfe]){2,}")
_RUN = re.compile(r"[\x80-\xff€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]{2,}")
CONTROLS = r"[\x00-\x08\x0B\x0E-\x1F\x7F\x{80}-\x{9F}\x{FFFD}\x{FFFE}\x{FFFF}]"


class Mojibake(Config):
    """Drop rows with text that was decoded wrongly, with control characters, or with replacement characters."""

    rule: Literal["mojibake"] = "mojibake"

    def drops(self, pool: Pool) -> Iterator[Drop]:
        seen: set[int] = set()
        for side in ("prompt", "response"):
            for at in pool.matching(side, f"{_SUSPECT}|{_KOREAN}|{CONTROLS}"):
                evidence = misread(pool.text(side, at))
                if evidence and int(at) not in seen:
                    seen.add(int(at))
                    yield int(at), {"field": side, **evidence}


def misread(text: str) -> dict[str, str] | None:
    """What is wrong with the characters of a text: a run that decodes as UTF-8 once undone, or a control character."""
    for run in _RUN.findall(text):
        raw = b"".join(_byte(c) for c in run)
        try:
            fixed = raw.decode()
        except UnicodeDecodeError:
            continue
        return {"text": run[:40], "reads": fixed[:40]}
    if pairs := _PAIRS.search(text):
        return {"text": pairs.group()[:40], "reads": pairs.group().encode("latin-1").decode("cp949", "replace")[:40]}
    control = re.search(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ufffd-\uffff]", text)
    return {"character": f"U+{ord(control.group()):04X}"} if control else None


def _byte(char: str) -> bytes:
    try:
        return char.encode("cp1252")
    except UnicodeEncodeError:
        return char.encode("latin-1", "replace")
