"""What every shape is made of: texts, turns of a conversation in their many spellings, and the Record they become."""

import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from align.tables import to_json

Row = Mapping[str, Any]

ROLES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant",
    "bing": "assistant", "bard": "assistant",
}  # fmt: skip
TOOLS = {"tool", "function", "function_call", "function_response", "observation", "ipython"}


class BadRow(Exception):
    """A row that its shape cannot convert; the message says why. `skip`: left out on purpose, not malformed."""

    def __init__(self, reason: str, skip: bool = False):
        super().__init__(reason)
        self.skip = skip


@dataclass
class Record:
    """One row in the pipeline's own terms; `used` are the columns that it was made of."""

    messages: list[dict[str, str]]
    used: set[str]
    response: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    reference: str | None = None
    ignored_tools: int = 0
    extra: dict[str, Any] = field(default_factory=dict)


def words(value: Any, column: str) -> str:
    """`value` as NFC text. Numbers become text; BadRow for anything else and for text that is not Unicode or none."""
    if (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and math.isfinite(value)):
        value = str(value)
    if not isinstance(value, str):
        kind = "null" if missing(value) else "infinite" if isinstance(value, float) else f"a {type(value).__name__}"
        raise BadRow(f"{column} is {kind}, not text")
    if "\0" in value:
        raise BadRow(f"{column} holds a NUL character, which no text does")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as e:
            raise BadRow(f"{column} holds a lone surrogate, which is not Unicode text") from e
        if not unicodedata.is_normalized("NFC", value):
            value = unicodedata.normalize("NFC", value)
    return value


def missing(value: Any) -> bool:
    """Whether there is no value: null, or the NaN that pandas writes for one."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def content(value: Any, column: str) -> str:
    """The text of a turn, which may be a list of parts of which all are text."""
    if isinstance(value, list) and value and all(isinstance(p, dict) and p.get("type") == "text" for p in value):
        return "".join(words(p.get("text"), column) for p in value)
    return words(value, column)


def turn(value: Any, column: str) -> dict[str, str] | None:
    """One turn of any spelling as {role, content}; None for a tool's turn (or a call of one without text)."""
    if not isinstance(value, dict):
        raise BadRow(f"{column} holds a turn that is no object")
    who = value.get("role", value.get("from"))
    if isinstance(who, str) and who in TOOLS:
        return None
    role = ROLES.get(str(who).lower())
    if role is None:
        raise BadRow(f"{column} holds a turn of the unknown role {who!r:.40}")
    text = value.get("content", value.get("value"))
    if text is None and (value.get("tool_calls") or value.get("function_call")):
        return None
    return {"role": role, "content": content(text, column)}


def turns(value: Any, column: str) -> tuple[list[dict[str, str]], int]:
    """A list of turns, and how many of tools were left out. Neighbours of one role become one turn."""
    if not isinstance(value, list) or not value:
        raise BadRow(f"{column} is {'empty' if value == [] else 'no list of turns'}")
    found = [turn(v, column) for v in value]
    merged: list[dict[str, str]] = []
    for t in found:
        if t is None:
            continue
        if merged and merged[-1]["role"] == t["role"]:
            merged[-1]["content"] += "\n\n" + t["content"]
        else:
            merged.append(t)
    answered = bool(merged) and merged[-1]["role"] == "assistant"
    if not asks(merged[:-1] if answered else merged):
        raise BadRow(f"{column} holds no turn of a user")
    return merged, found.count(None)


def asks(messages: list[dict[str, str]]) -> bool:
    """Whether the turns before an answer ask for one: a user does, or a system message alone, which is the task."""
    return any(m["role"] == "user" for m in messages) or only_system(messages)


def only_system(messages: list[dict[str, str]]) -> bool:
    """Whether a system message is all that there is."""
    return [m["role"] for m in messages] == ["system"]


def said(messages: list[dict[str, str]]) -> str:
    """The prompt as one text: the words of a lone turn, else every turn but the system's."""
    spoken = [m for m in messages if m["role"] != "system"] or messages
    if len(spoken) == 1:
        return spoken[0]["content"]
    return "\n\n".join(f"{m['role']}: {m['content']}" for m in spoken)


def user(text: str, system: str | None = None) -> list[dict[str, str]]:
    return [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": text}]


def name_in(row: Row, *names: str) -> str | None:
    """The first of `names` that is a column of the row."""
    return next((n for n in names if n in row), None)


def get(row: Row, column: str) -> str:
    if column not in row:
        raise BadRow(f"has no column {column!r}")
    return words(row[column], column)


def maybe(row: Row, column: str | None) -> str | None:
    """The text of a column that may be missing or without a value."""
    return None if column is None or missing(row.get(column)) else words(row[column], column)


def unicode(text: str) -> str:
    """The text with ? for what is no Unicode: lone surrogates of a row, or of a file's name in another encoding."""
    return text.encode(errors="replace").decode()


def plain(text: str) -> str:
    """The text with ? for what a terminal would not print as it is: line ends, escapes, lone surrogates."""
    return "".join(c if c.isprintable() else "?" for c in text)


def meta(rest: Row) -> str:
    """A row's other columns as a JSON object, with null for NaN and the infinities, which JSON does not have.

    BadRow for text that is not Unicode.
    """
    text = to_json(rest)
    if "NaN" in text or "Infinity" in text:
        text = to_json(_finite(rest))
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        raise BadRow("holds a lone surrogate, which is not Unicode text")
    return text


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
