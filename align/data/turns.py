"""What every shape is made of: texts, turns of a conversation in their many spellings, and the Record they become."""

import math
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from align.data import tool_turns
from align.tables import TOOLS, to_json
from align.text import digest

Row = Mapping[str, Any]

ROLES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant",
    "bing": "assistant", "bard": "assistant",
}  # fmt: skip
Turn = dict[str, str]
"""A turn as MESSAGES has it: role and content, and what it has of tools; `tools` of the first are the functions."""


class BadRow(Exception):
    """A row that its shape cannot convert; the message says why. `skip`: left out on purpose, not malformed."""

    def __init__(self, reason: str, skip: bool = False):
        super().__init__(reason)
        self.skip = skip


@dataclass
class Record:
    """One row in the pipeline's own terms; `used` are the columns that it was made of."""

    messages: list[Turn]
    used: set[str]
    response: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    reference: str | None = None
    calls: bool = False
    """Whether the last line of the response is its tool calls."""
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


def turn(value: Any, column: str) -> Turn:
    """One turn of any spelling as {role, content}, with tool_calls, tool_call_id and name where it has them."""
    if not isinstance(value, dict):
        raise BadRow(f"{column} holds a turn that is no object")
    who = str(value.get("role", value.get("from"))).lower()
    text = value.get("content", value.get("value"))
    if who in tool_turns.CALLS:
        return {"role": "assistant", "content": "", "tool_calls": _json(tool_turns.calls, text, column)}
    if who in tool_turns.RESULTS:
        known = {k: words(value[k], column) for k in ("tool_call_id", "name") if not missing(value.get(k))}
        return {"role": "tool", "content": _result(text, column), **known}
    role = ROLES.get(who)
    if role is None:
        raise BadRow(f"{column} holds a turn of the unknown role {value.get('role', value.get('from'))!r:.40}")
    called = (value.get("tool_calls") or value.get("function_call")) if role == "assistant" else None
    if called:
        said = "" if missing(text) else content(text, column)
        return {"role": role, "content": said, "tool_calls": _json(tool_turns.calls, called, column)}
    return {"role": role, "content": content(text, column)}


def _json(convert: Callable[[Any], str], value: Any, column: str) -> str:
    try:
        return words(convert(value), column)
    except (ValueError, RecursionError) as e:
        raise BadRow(f"{column} {e}" if isinstance(e, ValueError) else f"{column} is nested too deeply") from e


def _result(value: Any, column: str) -> str:
    """What a tool returned as text; JSON where it is no text."""
    if missing(value):
        return ""
    try:
        return content(value, column)
    except BadRow:
        if isinstance(value, str):
            raise
        return _json(tool_turns.as_json, value, column)


def turns(value: Any, column: str) -> list[Turn]:
    """A list of turns. Neighbours of one role become one turn, but for results of tools and words after a call."""
    if not isinstance(value, list) or not value:
        raise BadRow(f"{column} is {'empty' if value == [] else 'no list of turns'}")
    merged: list[Turn] = []
    for t in (turn(v, column) for v in value):
        last = merged[-1] if merged else {"role": ""}
        if last["role"] != t["role"] or t["role"] == "tool" or ("tool_calls" in last and t["content"]):
            merged.append(t)
        elif "tool_calls" in last or "tool_calls" in t:
            last["content"] = "\n\n".join(filter(None, (last["content"], t["content"])))
            last["tool_calls"] = tool_turns.joined(last.get("tool_calls"), t.get("tool_calls"))
        else:
            last["content"] += "\n\n" + t["content"]
    answered = bool(merged) and merged[-1]["role"] == "assistant"
    if not asks(merged[:-1] if answered else merged):
        raise BadRow(f"{column} holds no turn of a user")
    roles = ["", *(t["role"] for t in merged)]
    if any(b == "tool" and a not in ("assistant", "tool") for a, b in pairwise(roles)):
        raise BadRow(f"{column} holds the result of a tool that nobody called")
    return merged


def with_functions(messages: list[Turn], row: Row) -> tuple[list[Turn], set[str]]:
    """The turns with the functions that may be called, where the row has some, and the column that they are in."""
    column = name_in(row, "tools", "functions")
    found = None if column is None or missing(row[column]) else tool_turns.functions(row[column])
    if column is None or found is None:
        return messages, {column} if column and row[column] in ("", "[]", []) else set()
    return [{**messages[0], "tools": words(found, column)}, *messages[1:]], {column}


def with_system(messages: list[Turn], text: str | None) -> list[Turn]:
    """The turns with a system message before them, unless they have one; the functions stand in the first turn."""
    if not text or messages[0]["role"] == "system":
        return messages
    functions = {k: v for k, v in messages[0].items() if k == "tools"}
    first = {k: v for k, v in messages[0].items() if k != "tools"}
    return [{"role": "system", "content": text, **functions}, first, *messages[1:]]


def text_of(message: Turn) -> str:
    """A turn as one text, whose last line is its tool calls where it has some."""
    return "\n".join(filter(None, (message["content"], message.get("tool_calls"))))


def asks(messages: list[Turn]) -> bool:
    """Whether the turns before an answer ask for one: a user does, or a system message alone, which is the task."""
    return any(m["role"] == "user" for m in messages) or only_system(messages)


def only_system(messages: list[Turn]) -> bool:
    """Whether a system message is all that there is."""
    return [m["role"] for m in messages] == ["system"]


def said(messages: list[Turn]) -> str:
    """The prompt as one text: the words of a lone turn, else every turn but the system's."""
    spoken = [m for m in messages if m["role"] != "system"] or messages
    if len(spoken) == 1:
        return spoken[0]["content"]
    return "\n\n".join(f"{m['role']}: {text_of(m)}" for m in spoken)


def row_id(record: Record) -> str:
    """A hash of a row's content, in which tools count where there are some."""
    turns = (f"{m['role']}:{m['content']}" + "".join(f"\0{k}:{m[k]}" for k in TOOLS if k in m) for m in record.messages)
    answers = [record.response, record.chosen, record.rejected, record.reference]
    return digest(*turns, *("\0" if a is None else a for a in answers), *(["calls"] if record.calls else []))


def user(text: str, system: str | None = None) -> list[Turn]:
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
