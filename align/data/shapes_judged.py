"""Judged logs: what two models said to one user over some turns, and whom a judge or people preferred.

They are MT-Bench's judgments by people and Chatbot Arena's votes (conversation_a, conversation_b, winner, turn), and
FastChat's by a judge in both orders (g1_winner, g2_winner), whose answers may stand in the question to the judge alone.

The answers to the judged turn are chosen and rejected, and the turns before them the prompt. From the second turn on
the models answer after words of their own; where these differ no prompt is shared, and the row is left out: a verdict
on the second turn says nothing about the first.
"""

import re
from typing import Any

from align.data.shapes_preferences import branches
from align.data.turns import BadRow, Record, Row, Turn, get, missing, name_in, turns, words

SIDES = (("conversation_a", "conversation_b"), ("conversation_1", "conversation_2"))
ASKED = "g1_user_prompt"
ORDERS = ("g1_winner", "g2_winner")
_PLACES = {"model_a": 0, "model_1": 0, "a": 0, "model_b": 1, "model_2": 1, "b": 1}
_ANSWERS = re.compile(
    r"\s*\[User Question\]\n(.*?)\n\n(?:\[The Start of Reference Answer\]\n.*?\n\[The End of Reference Answer\]\n\n)?"
    r"\[The Start of Assistant A's Answer\]\n(.*?)\n\[The End of Assistant A's Answer\]\n\n"
    r"\[The Start of Assistant B's Answer\]\n(.*?)\n\[The End of Assistant B's Answer\]\s*",
    re.DOTALL,
)
_CONVERSATIONS = re.compile(
    r"<\|The Start of Assistant ([AB])'s Conversation with User\|>\n\n(.*?)\n\n"
    r"<\|The End of Assistant \1's Conversation with User\|>",
    re.DOTALL,
)
_SPEAKER = re.compile(r"(?:\A|\n\n)### (User|Assistant [AB]):\n")


def judged_keys(row: Row) -> set[str]:
    """The columns by which a judged log is known in a row; none where it is not one."""
    sides = next((s for s in SIDES if all(isinstance(row.get(c), list) for c in s)), None)
    found = set(sides) if sides else {ASKED} if isinstance(row.get(ASKED), str) else set()
    winner = name_in(row, "winner", ORDERS[0])
    return found | {winner} if found and winner else set()


def judged(row: Row) -> Record:
    """{conversation_a, conversation_b, winner, turn}, or FastChat's {g1_user_prompt, g1_winner, g2_winner, turn}."""
    told = name_in(row, "turn")
    turn = words(row[told], "turn").removesuffix(".0") if told and not missing(row[told]) else None
    if turn is not None and not (turn.isdecimal() and int(turn)):
        raise BadRow(f"turn is {turn!r:.40}, not the number of a turn")
    sides = next((s for s in SIDES if all(c in row for c in s)), None)
    names = sides or (ASKED, ASKED)
    both = [turns(row[c], c) for c in sides] if sides else _of_question(get(row, ASKED), turn)
    first, second = (_until(side, turn, name) for side, name in zip(both, names, strict=True))
    better = _better(row)
    if _asked(first) != _asked(second):
        raise BadRow(f"{' and '.join(names)} do not ask the same")
    if first[:-1] != second[:-1]:
        raise BadRow("the answers before the judged turn differ, so that no prompt is shared", skip=True)
    chosen, rejected = (second, first) if better else (first, second)
    return branches(chosen, rejected, {*names, "g2_user_prompt", "winner", *ORDERS})


def _of_question(text: str, turn: str | None) -> list[list[Turn]]:
    """The conversations of both models in what FastChat asks its judge, A's first."""
    if single := _ANSWERS.fullmatch(text):
        question, *answers = single.groups()
        return [[{"role": "user", "content": question}, {"role": "assistant", "content": a}] for a in answers]
    found = dict(_CONVERSATIONS.findall(text))
    if found.keys() != {"A", "B"}:
        raise BadRow(f"{ASKED} is not FastChat's question to a judge, which holds both answers")
    both = []
    for name, said in sorted(found.items()):
        before, *parts = _SPEAKER.split(said)
        speakers = ["User", f"Assistant {name}"] * (len(parts) // 4)
        if before or parts[::2] != speakers or (turn and len(parts) != 4 * int(turn)):
            raise BadRow(f"the turns of assistant {name} cannot be told apart in {ASKED}")
        roles = {"User": "user", f"Assistant {name}": "assistant"}
        both.append([{"role": roles[w], "content": t} for w, t in zip(parts[::2], parts[1::2], strict=True)])
    return [turns(side, ASKED) for side in both]


def _until(side: list[Turn], turn: str | None, column: str) -> list[Turn]:
    """A conversation up to the assistant's answer in the judged turn; without one, to its end."""
    answers = [at for at, m in enumerate(side) if m["role"] == "assistant"]
    if turn is None or not answers:
        return side
    if int(turn) > len(answers):
        raise BadRow(f"turn is {turn}, and {column} has {len(answers)} answers")
    return side[: answers[int(turn) - 1] + 1]


def _asked(side: list[Turn]) -> list[Turn]:
    return [m for m in side if m["role"] != "assistant"]


def _better(row: Row) -> int:
    """Which side is better, 0 or 1. BadRow where neither is, or nobody says so."""
    columns = ["winner"] if "winner" in row else [c for c in ORDERS if c in row]
    if not columns:
        raise BadRow("has no column 'winner'")
    said = [_place(row, row[c], c) for c in columns]
    if len(set(said)) > 1:
        raise BadRow("the winner is another one in the other order, so that neither side is better", skip=True)
    if said[0] is None:
        raise BadRow(f"{columns[0]} is a tie, so that neither side is better", skip=True)
    return said[0]


def _place(row: Row, value: Any, column: str) -> int | None:
    """The side that a verdict names; None for a tie."""
    name = words(value, column).strip()
    if name.lower() == "error":
        raise BadRow(f"{column} is an error: the judge gave no verdict", skip=True)
    if name.lower().startswith("tie") or name.lower().replace(" ", "").replace("_", "") == "bothbad":
        return None
    if name.lower() in _PLACES:
        return _PLACES[name.lower()]
    models = [row.get(c) for c in ("model_a", "model_b") if c in row] or [row.get(c) for c in ("model_1", "model_2")]
    if models.count(name) == 1:
        return models.index(name)
    raise BadRow(f"{column} is {name!r:.40}, neither a side nor a tie")
