"""Tool calls and the functions that may be called, in the spellings that people have, as JSON in OpenAI's.

A call is {"id", "type": "function", "function": {"name", "arguments"}} with its arguments as an object, which is how
chat templates want them; a function is {"type": "function", "function": {"name", "description", "parameters"}}. Keys
stay in their order: it is what a model reads and writes. What cannot be read is a ValueError that says why.
"""

import json
from typing import Any

RESULTS = {"tool", "function", "function_response", "tool_response", "tool_result", "observation", "ipython"}
"""Roles of a turn that holds what a tool returned."""
CALLS = {"function_call", "tool_call"}
"""Roles of a turn that is a call, or several, as JSON (ShareGPT)."""


def as_json(value: Any) -> str:
    """JSON in one line, with keys as they come."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=str)


def calls(value: Any) -> str:
    """The calls of one turn as a JSON list: OpenAI's tool_calls or function_call, or a text of ShareGPT's."""
    found = _loaded(value, "a tool call")
    found = found if isinstance(found, list) else [found]
    if not found:
        raise ValueError("holds no tool call where one should be")
    return as_json([_call(c) for c in found])


def joined(*lists: str | None) -> str:
    """The calls of several JSON lists as one."""
    return as_json([call for text in lists if text for call in json.loads(text)])


def _call(value: Any) -> dict[str, Any]:
    value = _loaded(value, "a tool call")
    told = value.get("function", value) if isinstance(value, dict) else None
    if not isinstance(told, dict) or not isinstance(told.get("name"), str) or not told["name"]:
        raise ValueError("holds a tool call without the name of a function")
    arguments = told.get("arguments", told.get("parameters"))
    arguments = {} if arguments in (None, "") else _loaded(arguments, "arguments of a tool call")
    if not isinstance(arguments, dict):
        raise ValueError("holds arguments of a tool call that are no object")
    known = {"id": value["id"]} if isinstance(value.get("id"), str) else {}
    return {**known, "type": "function", "function": {"name": told["name"], "arguments": arguments}}


def functions(value: Any) -> str | None:
    """The functions that may be called as a JSON list, of a list of objects or its text; None where it is neither."""
    try:
        found = _loaded(value, "functions")
        found = [_loaded(f, "functions") for f in found] if isinstance(found, list) else found
    except ValueError:
        return None
    if not isinstance(found, list) or not found or not all(isinstance(f, dict) for f in found):
        return None
    wrapped = [f if isinstance(f.get("function"), dict) else {"type": "function", "function": f} for f in found]
    if not all(isinstance(f["function"].get("name"), str) for f in wrapped):
        return None
    return as_json(wrapped)


def _loaded(value: Any, what: str) -> Any:
    """`value`, or what its text says as JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as e:
        raise ValueError(f"holds {what} that is no JSON") from e
