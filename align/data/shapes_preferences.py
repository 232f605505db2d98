"""Shapes that say which of two or more answers is better."""

import math
import re
from typing import Any

from align.data.shapes_instructions import ALPACA, COMPLETION, SYSTEM, alpaca_prompt, conversation, pair_of
from align.data.turns import (
    BadRow,
    Record,
    Row,
    Turn,
    content,
    get,
    maybe,
    missing,
    name_in,
    turn,
    turns,
    user,
    with_functions,
)

_HH_TURN = re.compile(r"\n\n(Human|Assistant): ?")


def _hh_turns(text: str, column: str) -> list[Turn]:
    parts = _HH_TURN.split(text)
    if parts[0].strip() or len(parts) < 3:
        raise BadRow(f"{column} does not begin with '\\n\\nHuman:'")
    who = {"Human": "user", "Assistant": "assistant"}
    return [{"role": who[w], "content": t.strip()} for w, t in zip(parts[1::2], parts[2::2], strict=True)]


def hh(row: Row) -> Record:
    chosen, rejected = (_hh_turns(get(row, c), c) for c in ("chosen", "rejected"))
    return branches(chosen, rejected, {"chosen", "rejected"})


def branches(chosen: list[Turn], rejected: list[Turn], used: set[str]) -> Record:
    """Two conversations that differ in their last turn only."""
    if chosen[:-1] != rejected[:-1]:
        raise BadRow("chosen and rejected share no prompt prefix")
    for name, side in (("chosen", chosen), ("rejected", rejected)):
        if side[-1]["role"] != "assistant":
            raise BadRow(f"{name} does not end with the assistant")
        if "tool_calls" in side[-1]:
            raise _called(name)
        if not side[-1]["content"].strip():
            raise BadRow(f"the final turn of {name} is empty")
    if not chosen[:-1] or chosen[-2]["role"] not in ("user", "tool"):
        raise BadRow("no user turn comes before the answers")
    return Record(chosen[:-1], used, chosen=chosen[-1]["content"], rejected=rejected[-1]["content"])


def _called(name: str) -> BadRow:
    return BadRow(f"the final turn of {name} is a tool call, and preferences are between texts", skip=True)


def _answer(value: Any, column: str) -> str:
    """A preferred answer: text, one turn, or a list that ends with the assistant's turn."""
    if isinstance(value, dict):
        spoken = turn(value, column)
        if spoken["role"] != "assistant":
            raise BadRow(f"{column} is no turn of the assistant")
        if "tool_calls" in spoken:
            raise _called(column)
        return spoken["content"]
    if isinstance(value, list):
        if not value:
            raise BadRow(f"{column} is empty")
        return _answer(value[-1], column)
    return content(value, column)


def chosen_rejected(row: Row) -> Record:
    """{prompt, chosen, rejected}: texts or message lists, the prompt inside the lists or beside them."""
    for column in ("chosen", "rejected"):
        if column not in row:
            raise BadRow(f"has no column {column!r}")
    c, r = row["chosen"], row["rejected"]
    if missing(c) and missing(r) and row.get("verdicts"):
        raise BadRow("was judged, and no majority prefers either answer", skip=True)
    used = {"prompt", "chosen", "rejected", *SYSTEM}
    if all(isinstance(v, list) and len(v) > 1 for v in (c, r)):
        record = branches(turns(c, "chosen"), turns(r, "rejected"), used)
        record.messages, functions = with_functions(record.messages, row)
        record.used |= functions
        return record
    column = name_in(row, "prompt", "question", "instruction", "input") or "prompt"
    if isinstance(row.get(column), list):
        messages, functions = with_functions(turns(row[column], column), row)
        return _answered(Record(messages, used | {column} | functions), c, r)
    return _answered(Record(user(get(row, column), maybe(row, name_in(row, *SYSTEM))), used | {column}), c, r)


def _answered(record: Record, chosen: Any, rejected: Any) -> Record:
    if record.messages[-1]["role"] not in ("user", "tool"):
        raise BadRow("the prompt does not end with the user")
    record.chosen, record.rejected = _answer(chosen, "chosen"), _answer(rejected, "rejected")
    for name in ("chosen", "rejected"):
        if not getattr(record, name).strip():
            raise BadRow(f"the final turn of {name} is empty")
    return record


def conversations_chosen_rejected(row: Row) -> Record:
    column = name_in(row, "conversations", "messages") or "conversations"
    record = conversation(column)(row)
    if record.response is not None:
        raise BadRow(f"{column} does not end with the user")
    record.used |= {"chosen", "rejected"}
    return _answered(record, row.get("chosen"), row.get("rejected"))


def ranked(row: Row) -> Record:
    """Answers from best to worst: the first is chosen, the last rejected; the whole list stays in meta."""
    answers = row.get("output")
    if not isinstance(answers, list) or len(answers) < 2:
        raise BadRow("output is no list of two or more answers, best first")
    record = Record(alpaca_prompt(row), ALPACA, extra={"ranked": answers} if len(answers) > 2 else {})
    return _answered(record, answers[0], answers[-1])


def two_outputs(row: Row) -> Record:
    """AlpacaEval's annotations: output_1 and output_2, and a preference of 1, 2, or between them for a probability."""
    try:
        preference = float(row.get("preference"))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        preference = math.nan
    if preference in (0, 1.5):  # 0 is how the first annotators wrote a draw
        raise BadRow(f"preference is {preference:g}, a draw, so that neither output is better", skip=True)
    if not 1 <= preference <= 2:
        raise BadRow(f"preference is {row.get('preference')!r:.40}, not a number from 1 to 2")
    chosen, rejected = ("output_1", "output_2") if preference < 1.5 else ("output_2", "output_1")
    record = Record(alpaca_prompt(row), ALPACA | {"output_1", "output_2", "preference"})
    return _answered(record, get(row, chosen), get(row, rejected))


def kto(row: Row) -> Record:
    """An answer and whether it is desirable: chosen if it is, else rejected; the other side is null."""
    label = {"true": True, "false": False, "1": True, "0": False}.get(str(row.get("label")).lower())
    if label is None:
        raise BadRow(f"label is {row.get('label')!r:.40}, neither true nor false")
    column = name_in(row, "messages", "conversations")
    record = conversation(column)(row) if column else pair_of(("prompt",), COMPLETION)(row)
    if record.response is None:
        raise BadRow("holds no answer to label")
    if record.calls:
        raise _called("an answer")
    answer, record.response = record.response, None
    record.chosen, record.rejected = (answer, None) if label else (None, answer)
    record.used = record.used | {"label"}
    return record
