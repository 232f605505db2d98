"""Rules on what a prompt holds: things that the model is not shown, and marks that the making of the data left.

The patterns are read by RE2 (whole columns) and by re (one text), so that both must give them the same meaning.
"""

import re
from collections.abc import Iterator
from typing import Literal

from align.config import Config
from align.rules.pool import Drop, Pool

_URL = r"<?(?:https?://|www\.)[^\s<>]+>?"
_LABEL = r"(?:[\w가-힣 ]{1,20}[:=] ?|[\w ]{1,20} is )?"
_SEEN = "(?:image|photo|photograph|picture|painting|drawing|sketch|screenshot|video|animation|audio|clip|chart|diagram)"
# What stands for something that is not text: a link that is a line or ends one after a colon, a picture, a bracket.
THINGS = {
    "picture": r"!\[[^\]\n]*\]\([^)\n]*\)|(?i:<img\s[^>]*src=[^>]*>)",
    "link": rf"(?:^|\n)\W*{_LABEL}(?:\[[^\]\n]*\]\()?{_URL}\)?\W*(?:\n|$)|:\s*{_URL}\s*$",
    "attachment": rf"(?i:(?:^|\n)\s*[\[<(](?:{_SEEN}|lyrics|attached)(?: \w+){{0,3}}[\]>)]\W*(?:\n|$))",
}
# What is done with a thing only by one who sees it; and what can be done with its address alone.
LOOKS = re.compile(
    r"\b(?:summar\w+|sum up|describ\w+|description|explain|read|analy[sz]\w+|identify|classify|caption|headline|title|"
    r"highlights?|extract|edit|rewrite|translate|review|coloriz\w+|crop|access|click|snapshot|screenshot|transform|"
    r"proofread|improve|this|these|the (?:given|following|attached|provided)|below)\b"
    r"|요약|설명|읽|분석|정리|번역|제목|묘사|추출|다음|아래|이 (?:글|기사|사진|그림|영상|링크)",
    re.I,
)
NAMED = re.compile(r"\b(?:html|css|markdown|tags?|regex\w*|code|urls?|hyperlinks?|bookmark|curl|request)\b", re.I)
_TEXT = (
    r"(?:text|sentences?|paragraphs?|passages?|articles?|statements?|poems?|haiku|(?:short )?stor(?:y|ies)|phrases?|"
    r"quotes?|lyrics|dialogue|conversation|e-?mail|document|reviews?|tweets?|essay|input|excerpt|letter|report|"
    r"(?:code )?snippet|data|dataset|table)"
)
_REST = r"[^\n:\"“”'‘’`\[{(<\d.?!]*"  # nothing that could be the text, and no second sentence
# A prompt of one sentence that points at a text, and has none.
POINTS = (
    rf"(?i)^{_REST}\b(?:the|this|these) (?:\w+ )?(?:following|given|provided) (?:\w+ )?{_TEXT}\b{_REST}[.?!]?\s*$"
    rf"|^{_REST}\b(?:the|this|these) {_TEXT} (?:below|above)\b{_REST}[.?!]?\s*$"
    rf"|^{_REST}\b(?:(?:in|of|for|from) th(?:e|is)|this) {_SEEN}"
    rf"(?: (?:in|with|using|and|to|below|above)\b{_REST})?[.?!]?\s*$"
    r"|^(?:다음|아래|주어진) (?:글|문장|문단|기사|텍스트|지문|대화|표|사진|그림|이미지|코드|이메일|문서|리뷰)"
    rf"[을를의에은는]{_REST}[.?!]?\s*$"
)


class Unseen(Config):
    """Drop rows that ask about something that the model is not shown: what a link leads to, an attached picture or
    recording, or "the following text" that does not follow. Their responses can only be made up."""

    rule: Literal["unseen"] = "unseen"

    def drops(self, pool: Pool) -> Iterator[Drop]:
        found: dict[int, dict[str, str]] = {}
        for kind, pattern in THINGS.items():
            for at in pool.matching("prompt", pattern):
                text = pool.turns(int(at))[-1]  # an earlier one was answered
                things = [m.group().strip(" :\n") for m in re.finditer(pattern, text)]
                said = re.sub(rf"{_URL}|<[^>]*>|\[[^\]]*\]", " ", text)
                if things and LOOKS.search(said) and not NAMED.search(re.sub(pattern, "\n", text)):
                    found.setdefault(int(at), {"missing": kind, "text": things[0][:100]})
        for at in pool.matching("prompt", POINTS):
            if len(pool.turns(int(at))) == 1:  # an earlier turn or a system message may hold it
                found.setdefault(int(at), {"missing": "text", "text": pool.text("prompt", at).strip()[:100]})
        yield from found.items()


_NONE = r"(?:no ?(?:in|out)put(?: (?:needed|required|provided|given|necessary))?|n/a)"
MARK = rf"(?i)\s*\n[ \t]*[\\<\[({{\"']*\s*{_NONE}\s*[\\>\])}}\"'.]*\s*$"


class Placeholder(Config):
    """Take marks such as "Noinput" or "<no input>", by which generated data says that a prompt has no input, out of the
    last line of prompts; or drop the rows that have them."""

    rule: Literal["placeholder"] = "placeholder"
    action: Literal["remove", "drop"] = "remove"
    """Whether the mark goes, or the row."""

    def drops(self, pool: Pool) -> Iterator[Drop]:
        marks = {int(at): re.findall(MARK, pool.text("prompt", at))[0].strip() for at in pool.matching("prompt", MARK)}
        if self.action == "drop":
            yield from ((at, {"placeholder": mark}) for at, mark in marks.items())
            return
        pool.replace("prompt", {at: re.sub(MARK, "", pool.text("prompt", at)) for at in marks})
        turns = {at: pool.turns(at) for at in marks}
        pool.replace_turns({at: [*before, re.sub(MARK, "", last)] for at, (*before, last) in turns.items()})
        for at, mark in marks.items():
            pool.remarks.setdefault(at, {})["removed"] = mark
        pool.notes["placeholders_removed"] = len(marks)
