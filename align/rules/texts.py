"""Rules on what a text says of itself: refusals, and characters that tell of a broken encoding."""

import re
from collections.abc import Iterator
from typing import Literal

from align.config import Config
from align.rules.pool import Drop, Pool

_MODEL = (
    r"(?:ai|artificial intelligence|(?:large |ai )?language model|ai (?:assistant|model)|chatbot|virtual assistant)"
)
_CANNOT = (
    r"(?:can['’]?t|can ?not|am unable to|am not able to|['’]?m unable to|['’]?m not able to|won['’]?t(?: be able to)?|"
    r"will not(?: be able to)?|do not|don['’]?t|must decline to|have to decline to)"
)
_HELP = (
    r"(?:help|assist|answer|provide|comply|fulfill?|access|complete|browse|generate|create|engage|process|perform|"
    r"respond|do that|do this|have (?:access|the ability|personal|feelings|opinions|enough information)|offer|give|"
    r"support|discuss|share|determine|translate|run|execute|retrieve|search|look up|open|continue|"
    r"recommend (?:specific|particular|any)|see (?:the|your|any) (?:image|file|picture|photo)|"
    r"understand (?:the|your|this|what))"
)
_DOES = r"(?:답변|답할|대답|제공|도와|도움|처리|접근|응할|이해|생성|작성|수행|알려)"
_NOT = r"(?:수 ?(?:가 |는 )?없|못 ?(?:합|해|하|했|드)|어렵|불가능)"
REFUSALS = {
    "as an AI": rf"\b(?:as|i am|i['’]m) (?:just )?an? {_MODEL}\b",
    "sorry": rf"^\W*(?:i['’]?m |i am |i |my )?(?:sorry|afraid|apologi[sz]e|apologies|unfortunately|regret)"
             rf"[^.\n]{{0,60}}\bi ?{_CANNOT} (?:\w+ )?{_HELP}\b",
    "I cannot": rf"^\W*i ?{_CANNOT} (?:\w+ )?{_HELP}\b|^\W*i cannot in good conscience\b|^\W*i must decline\b",
    "not possible": r"^\W*(?:it is|it['’]s) not possible (?:for me )?to "
                    r"(?:provide|answer|generate|determine|complete|give)\b"
                    r"|^\W*(?:it is|it['’]s) not appropriate for me to\b"
                    r"|^\W*(?:no|not enough) (?:information|context|input) "
                    r"(?:was |is |has been )?(?:provided|given)\W*$",
    "no output": r"^\W*no ?(?:(?:in|out)put|answer|response)\b"
                 r"|^\W*(?:this|the|your) (?:\w+ )?(?:cannot|can['’]t|can not) be \w+ by (?:a|an|this) "
                 r"(?:gpt|ai|language)\b",
    "no picture": r"^\s*!\[[^\]\n]*\]\([^)\n]*\)\s*$"
                  r"|^\s*[\[<][^\]>\n]*\b(?:image|screenshot|photo|picture|video|audio)\b[^\]>\n]*[\]>]\s*$",
    "AI로서": r"(?:^|[^a-z])(?:ai|인공 ?지능|언어 ?모델|챗봇)(?: 언어 ?모델| 모델| 비서| 어시스턴트| 챗봇)*"
             r"(?:으로서|로서|로써|일 뿐|이기 때문|이라서|이라 |라서 |이어서|여서|이므로|입니다[^.]{0,20}(?:없|못))",
    "죄송하지만": rf"^\W*(?:죄송|미안|안타깝|유감)[^\n]{{0,60}}(?:{_DOES}|할 )[^.\n]{{0,20}}{_NOT}",
    "답변할 수 없습니다": r"^\W*(?:(?:해당|요청하신|문의하신)\s[^.\n]{0,40}|(?:저는|제가|그 부분은)\s[^.\n]{0,20})?"
                   rf"(?:답변|답할|대답|제공|도와|도움|처리|응할|알려)[^.\n]{{0,8}}{_NOT}",
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
        seen: set[int] = set()
        for name, pattern in REFUSALS.items():
            for at in pool.matching("response", "(?i)" + pattern):
                # to RE2 Korean letters are \W, so that it finds more than is meant
                match = re.search(pattern, pool.text("response", at), re.IGNORECASE)
                excused = name in ("as an AI", "AI로서") and re.search(ABOUT_AI, pool.text("prompt", at))
                if match and not excused and int(at) not in seen:
                    seen.add(int(at))
                    yield int(at), {"pattern": name, "text": match.group().strip()[:100]}


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
