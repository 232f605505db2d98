"""Control tokens in data: text that this tokenizer would take for the end of a turn, not for words."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from align import tables
from align.config import Metrics

Message = dict[str, Any]


class Control:
    """The control tokens of a tokenizer, found where its own parse finds them, and broken up so that they stay words.

    They are its special tokens and `end`, the token that ends a turn. Other added tokens, such as <think>, are words.
    """

    def __init__(self, tokenizer: Any, end: str):
        self._tokenizer = tokenizer
        special = {t.content for t in tokenizer.added_tokens_decoder.values() if t.special}
        known = {t: tokenizer.convert_tokens_to_ids(t) for t in {*special, *tokenizer.all_special_tokens, end}}
        self._by_id = {i: t for t, i in known.items() if i is not None and tokenizer.convert_ids_to_tokens(i) == t}
        names = sorted(self._by_id.values(), key=lambda t: (-len(t), t))
        self._any = re.compile("|".join(map(re.escape, names)))

    @property
    def ids(self) -> Collection[int]:
        """The control tokens' ids."""
        return self._by_id.keys()

    def find(self, text: str) -> list[tuple[int, str]]:
        """Where the tokenizer would read a control token in `text`, and which."""
        if not self._any.search(text):
            return []
        if not self._tokenizer.is_fast:  # no offsets: every match of a token's text counts
            return [(found.start(), found[0]) for found in self._any.finditer(text)]
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        parsed = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        found = ((self._by_id[i], start, end) for i, (start, end) in parsed if i in self._by_id)
        return [(text.index(t, start), t) for t, start, end in found if t in text[start:end]]

    def clean(self, text: str) -> str:
        """The text with a space in every control token, after its first character."""
        while found := self.find(text):
            for at, token in reversed(found):
                apart = token[:1] + " " + token[1:] if len(token) > 1 else " "
                text = text[:at] + apart + text[at + len(token) :]
        return text

    def strip(self, text: str) -> str:
        """The text without control tokens: what a policy said, of what it drew."""
        return self._any.sub("", text)


def broken(
    control: Control,
    ids: Sequence[str],
    conversations: Sequence[Sequence[Message]],
    *responses: Sequence[str],
    out: Path,
) -> Metrics:
    """Write altered.parquet (ALTERED) if data holds control tokens; how many rows and tokens do, as metrics.

    `ids` name the conversations; each of `responses` has one response per conversation.
    """
    answers = zip(*responses, strict=True) if responses else [()] * len(ids)
    altered = [
        (i, token, count)
        for i, conversation, said in zip(ids, conversations, answers, strict=True)
        for token, count in sorted(_counts(control, [*_texts(conversation), *said]).items())
    ]
    found: Metrics = {
        "control_tokens": sum(count for _, _, count in altered),
        "control_tokens.rows": len({i for i, _, _ in altered}),
    }
    if altered:
        rows = [dict(zip(tables.ALTERED.names, row, strict=True)) for row in altered]
        tables.write(out / "altered.parquet", rows, tables.ALTERED)
        found["control_tokens.first"] = altered[0][0]
    return found


def _counts(control: Control, texts: Iterable[str]) -> Counter[str]:
    return Counter(token for text in texts for _, token in control.find(text))


def _texts(conversation: Sequence[Message]) -> list[str]:
    """All texts that a conversation puts before a model, tool calls and functions as JSON."""
    return [value for m in conversation for name, value in m.items() if name != "role"]
