"""A conversation in which a tool is called, in the spellings that people have."""

import json
from typing import Any

from align.data.shapes import SHAPES
from align.data.turns import Record

LOOK = {"name": "look_up", "description": "Weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}  # fmt: skip
FUNCTIONS = [{"type": "function", "function": LOOK}]
CALL = {"type": "function", "function": {"name": "look_up", "arguments": {"city": "Busan-si", "days": 2}}}
ASKED = {"role": "user", "content": "How is it there?"}
RESULT = "rain, 21 degrees"
ANSWER = {"role": "assistant", "content": "It rains."}
ARGUMENTS = json.dumps(CALL["function"]["arguments"])  # type: ignore[index]
OPENAI: list[dict[str, Any]] = [
    ASKED,
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "abcdefghi", "type": "function", "function": {"name": "look_up", "arguments": ARGUMENTS}}]},
    {"role": "tool", "tool_call_id": "abcdefghi", "content": RESULT},
    ANSWER,
]  # fmt: skip


def read(**row: Any) -> Record:
    """A row of OpenAI's messages or ShareGPT's conversations."""
    shape = "messages" if "messages" in row else "sharegpt"
    return SHAPES[shape].convert(row)


SPELLINGS: dict[str, dict[str, Any]] = {
    "OpenAI": {"messages": OPENAI, "tools": FUNCTIONS},
    "OpenAI with arguments as objects": {
        "messages": [ASKED, {"role": "assistant", "content": "", "tool_calls": [CALL]}, *OPENAI[2:]],
        "tools": json.dumps([LOOK])},
    "OpenAI's function_call": {
        "messages": [ASKED, {"role": "assistant", "content": None, "function_call": {"name": "look_up", "arguments": ARGUMENTS}},
                     {"role": "function", "name": "look_up", "content": RESULT}, ANSWER], "functions": [LOOK]},
    "ShareGPT": {
        "conversations": [{"from": "human", "value": "How is it there?"},
                          {"from": "function_call", "value": json.dumps(CALL["function"])},
                          {"from": "observation", "value": RESULT}, {"from": "gpt", "value": "It rains."}],
        "tools": json.dumps([LOOK])},
    "ShareGPT with other names": {
        "conversations": [{"from": "human", "value": "How is it there?"},
                          {"from": "tool_call", "value": f'[{{"name": "look_up", "arguments": {json.dumps(ARGUMENTS)}}}]'},
                          {"from": "tool_response", "value": RESULT}, {"from": "gpt", "value": "It rains."}],
        "tools": [json.dumps(LOOK)]},
}  # fmt: skip
