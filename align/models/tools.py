"""Tools in conversations: turns as chat templates take them, and whether a template writes what they hold.

A turn has its tool calls, and the first one the functions that may be called, as JSON (MESSAGES). Templates take them
as values, most of them the arguments of a call as an object, some as text. What a template leaves out would be lost
without a word, so conversations with tools are rendered once with other names in their place, which must all be there.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, get_args

from align.errors import InputError
from align.tables import TOOLS

Message = dict[str, Any]
Form = Literal["object", "text"]
"""How a template takes the arguments of a call."""
Render = Callable[[Sequence[Message]], str]
ASK: list[Message] = [{"role": "user", "content": "What is it?"}]
_JSON = ("tool_calls", "tools")


def response_of(row: Message) -> str | Message:
    """A row's response (ROWS) as the assistant's turn: its words, or a message where its last line is tool calls."""
    if not row.get("calls"):
        return str(row["response"])
    said, _, calls = str(row["response"]).rpartition("\n")
    return {"role": "assistant", "content": said, "tool_calls": calls}


def has_tools(messages: Sequence[Message]) -> bool:
    """Whether a conversation has tool calls, results, or functions that may be called."""
    return any(m["role"] == "tool" or any(name in m for name in TOOLS) for m in messages)


def has_calls(messages: Sequence[Message]) -> bool:
    """Whether the assistant calls tools in a conversation."""
    return any("tool_calls" in m for m in messages)


def given(message: Message, clean: Callable[[str], str], form: Form | None) -> Message:
    """A turn with its JSON as values and every text in it cleaned; calls in the form that is wanted."""
    told = {name: text for name, text in message.items() if text is not None}
    found = {name: json.loads(text) if name in _JSON else text for name, text in told.items()}
    found = {name: value if name == "role" else _cleaned(value, clean) for name, value in found.items()}
    return _in_form(found, form)


def _in_form(message: Message, form: Form | None) -> Message:
    if form != "text" or "tool_calls" not in message:
        return message
    return message | {"tool_calls": _with_texts(message["tool_calls"])}


def for_api(messages: Sequence[Message]) -> tuple[list[Message], dict[str, Any]]:
    """Turns as `given` makes them for an OpenAI-compatible server, and what else the request needs: the functions, of
    which it shall write none but the policy's own words."""
    functions = messages[0].get("tools")
    plain = [{k: _with_texts(v) if k == "tool_calls" else v for k, v in m.items() if k != "tools"} for m in messages]
    return plain, {"tools": functions, "tool_choice": "none"} if functions else {}


def _with_texts(calls: list[Message]) -> list[Message]:
    """Calls with arguments as text, which is what the protocol has."""
    return [c | {"function": c["function"] | {"arguments": _text(c["function"]["arguments"])}} for c in calls]


def _text(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _cleaned(value: Any, clean: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [_cleaned(v, clean) for v in value]
    if isinstance(value, dict):
        return {clean(k): _cleaned(v, clean) for k, v in value.items()}
    return value


def form_of(render: Render) -> Form | None:
    """The form in which a template takes calls; None where it writes none. `render` is the template, of values."""
    call = {"id": "call12345", "type": "function", "function": {"name": "look", "arguments": {"city": "Qzx"}}}
    form: Form
    for form in get_args(Form):
        try:
            text = render([*ASK, _in_form({"role": "assistant", "content": "", "tool_calls": [call]}, form)])
        except InputError:
            continue
        # neither what Python writes for an object, nor JSON within a JSON text
        if "Qzx" in text and "'city'" not in text and '\\"' not in text:
            return form
    return None


def lost(messages: Sequence[Message], render: Render, form: Callable[[], Form | None]) -> str | None:
    """What of a conversation's tools a template would leave out, as a reason to set it aside; None where nothing is.

    `messages` are as in a table, `render` is the template, of turns as values, and `form` tells that of calls.
    """
    if not has_tools(messages):
        return None
    try:
        values = [given(m, str, None) for m in messages]
        names = [call["function"]["name"] for m in values for call in (*m.get("tool_calls", ()), *m.get("tools", ()))]
    except (ValueError, TypeError, LookupError):
        return "its tool calls are no JSON"
    if not all(names) or (has_calls(messages) and form() is None):
        return "the chat template does not write tool calls"
    marks: dict[str, str] = {}
    try:
        text = render([_marked(m, form(), marks) for m in values])
        render([given(m, str, form()) for m in messages])
    except InputError as error:
        return f"with its tools {str(error)[:1].lower()}{str(error)[1:200]}"
    return next((why for mark, why in marks.items() if mark not in text), None)


def _marked(message: Message, form: Form | None, marks: dict[str, str]) -> Message:
    """A turn with other names in it, which are added to `marks` with the reason if one is missing."""

    def mark(why: str) -> str:
        marks[name := f"Qzx{len(marks)}zxQ"] = why
        return name

    changed = dict(message)
    if "tools" in message:
        why = "the chat template does not write the functions that may be called"
        changed["tools"] = [f | {"function": f["function"] | {"name": mark(why)}} for f in message["tools"]]
    if "tool_calls" in message:
        changed["tool_calls"] = list(_marked_calls(message["tool_calls"], mark))
        if message["content"]:
            changed["content"] = mark("the chat template drops the words beside a tool call")
        changed = _in_form(changed, form)
    if message["role"] == "tool":
        changed["content"] = mark("the chat template does not write what a tool returned")
    return changed


def _marked_calls(calls: list[Message], mark: Callable[[str], str]) -> Iterator[Message]:
    for call in calls:
        name, value = mark("the chat template does not write tool calls"), mark("the chat template drops arguments")
        yield call | {"function": {"name": name, "arguments": {"x": value}}}
