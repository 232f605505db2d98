"""Answers as items for a grader, those of later turns with the conversation before them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from align.grading.grade import Item, item_of
from align.grading.suites import turns_of

Row = dict[str, Any]


def items_of(answers: Sequence[Row], asked: Mapping[str, Row]) -> list[Item]:
    """An item for each row of ANSWERS with its `model`; all turns of a conversation are among them.

    In a later turn the prompt is the conversation, with the model's own answers; the reference is that of the turn,
    where the row's `reference` is a list, and none else.
    """
    said = {_place(a, _turn(a)): a["response"] for a in answers}
    return [_item(a, asked[a["row_id"]], said) for a in answers]


def _item(answer: Row, row: Row, said: Mapping[tuple[Any, ...], str]) -> Item:
    item, turn = item_of(row, answer["response"]), _turn(answer)
    if turn == 1:
        return item
    words = [("user", item.prompt)]
    for earlier, ask in enumerate(turns_of(row, turn), 1):
        words += [("assistant", said[_place(answer, earlier)]), ("user", ask)]
    references = item.meta.get("reference")
    reference = references[turn - 1] if isinstance(references, list) and len(references) >= turn else None
    return replace(item, prompt="\n\n".join(f"{who}: {text}" for who, text in words), reference=reference)


def _turn(answer: Row) -> int:
    return int(answer.get("turn") or 1)


def _place(answer: Row, turn: int) -> tuple[Any, ...]:
    return answer["model"], answer["row_id"], answer["mode"], answer["sample_index"], turn
