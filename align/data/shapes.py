"""Row shapes: what the columns of a file mean, found from their names and types, or told by the recipe."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

from align.data.shapes_choices import choice_keys, multiple_choice
from align.data.shapes_instructions import (
    ANSWER,
    COMPLETION,
    OUTPUT,
    QUERY,
    QUESTION,
    alpaca,
    conversation,
    first_turn,
    pair_of,
    prompt_only,
    question_reference,
    two_columns,
)  # fmt: skip
from align.data.shapes_judged import judged, judged_keys
from align.data.shapes_preferences import chosen_rejected, conversations_chosen_rejected, hh, kto, ranked, two_outputs
from align.data.turns import BadRow, Record, Row, missing, name_in, plain, words
from align.errors import InputError

Use = Literal["instructions", "prompts", "preferences", "evaluation"]
ShapeName = Literal[
    "hh", "chosen_rejected", "conversations_chosen_rejected", "ranked", "two_outputs", "judged", "kto",
    "sharegpt", "messages", "alpaca", "prompt_completion", "question_answer", "question_query", "question_reference",
    "multiple_choice", "turns", "prompt", "two_columns",
]  # fmt: skip
Target = Literal[
    "prompt", "input", "system", "messages", "response", "chosen", "rejected", "label", "reference", "tools"
]

Keys = Callable[[Row], set[str]]


class Shape(NamedTuple):
    """`keys` names the columns by which the shape is known in a row (none: it does not fit); `convert` reads a row."""

    keys: Keys
    convert: Callable[[Row], Record]
    uses: frozenset[str]
    wins: bool = False  # over shapes known by other columns


def texts(*columns: tuple[str, ...]) -> Keys:
    """Known by one text column of each of `columns`."""

    def keys(row: Row) -> set[str]:
        names = [name_in(row, *options) for options in columns]
        return {n for n in names if n} if all(n and isinstance(row[n], str | int | float) for n in names) else set()

    return keys


def lists(column: str, *others: str) -> Keys:
    """Known by a list of objects in `column`, and by `others` being there."""

    def keys(row: Row) -> set[str]:
        value = row.get(column)
        fits = isinstance(value, list) and all(isinstance(v, dict) for v in value) and all(o in row for o in others)
        return {column, *others} if fits else set()

    return keys


def _hh_keys(row: Row) -> set[str]:
    sides = [row.get(c) for c in ("chosen", "rejected")]
    return {"chosen", "rejected"} if all(isinstance(s, str) and "\n\nHuman:" in s for s in sides) else set()


def _pair_keys(row: Row) -> set[str]:
    if "chosen" not in row or "rejected" not in row or _hh_keys(row):
        return set()
    prompt = name_in(row, "prompt", "question", "instruction", "input")
    whole = isinstance(row["chosen"], list) and len(row["chosen"]) > 1
    return {"chosen", "rejected"} | ({prompt} if prompt else set()) if prompt or whole else set()


def _branch_keys(row: Row) -> set[str]:
    column = name_in(row, "conversations", "messages")
    single = isinstance(row.get("chosen"), dict | str) or (
        isinstance(row.get("chosen"), list) and len(row["chosen"]) == 1
    )
    return lists(column, "chosen", "rejected")(row) if column and single else set()


def _ranked_keys(row: Row) -> set[str]:
    return {"instruction", "output"} if "instruction" in row and isinstance(row.get("output"), list) else set()


def _outputs_keys(row: Row) -> set[str]:
    known = {"instruction", "output_1", "output_2", "preference"}
    return known if known <= row.keys() else set()


def _kto_keys(row: Row) -> set[str]:
    if not (isinstance(row.get("label"), bool) or str(row.get("label")).lower() in ("true", "false")):
        return set()
    listed = lists("messages")(row) or lists("conversations")(row) or texts(("prompt",), COMPLETION)(row)
    return listed | {"label"} if listed else set()


def _turn_keys(row: Row) -> set[str]:
    value = row.get("turns")
    return {"turns"} if isinstance(value, list) and value and all(isinstance(v, str) for v in value) else set()


def _prompt_keys(row: Row) -> set[str]:
    return lists("prompt")(row) or texts(("prompt", "instruction", *QUESTION))(row)


def _two_keys(row: Row) -> set[str]:
    return set(row) if len(row) == 2 and all(isinstance(v, str) for v in row.values()) else set()


EVERY = frozenset(get_args(Use))
TRAIN = EVERY - {"preferences"}
ASK = frozenset({"prompts", "evaluation"})

SHAPES: dict[str, Shape] = {
    "hh": Shape(_hh_keys, hh, EVERY),
    "chosen_rejected": Shape(_pair_keys, chosen_rejected, EVERY),
    "conversations_chosen_rejected": Shape(_branch_keys, conversations_chosen_rejected, EVERY),
    "ranked": Shape(_ranked_keys, ranked, EVERY),
    "two_outputs": Shape(_outputs_keys, two_outputs, frozenset({"preferences"})),
    "judged": Shape(judged_keys, judged, frozenset({"preferences"})),
    "kto": Shape(_kto_keys, kto, EVERY),
    "sharegpt": Shape(lists("conversations"), conversation("conversations"), TRAIN, wins=True),
    "messages": Shape(lists("messages"), conversation("messages"), TRAIN, wins=True),
    "question_reference": Shape(texts((*QUESTION, "prompt"), ("reference",)), question_reference, ASK, wins=True),
    "multiple_choice": Shape(choice_keys, multiple_choice, ASK, wins=True),
    "alpaca": Shape(texts(("instruction",), OUTPUT), alpaca, TRAIN),
    "prompt_completion": Shape(texts(("prompt",), COMPLETION), pair_of(("prompt",), COMPLETION), TRAIN),
    "question_answer": Shape(texts(QUESTION, ANSWER), pair_of(QUESTION, ANSWER), TRAIN),
    "question_query": Shape(texts(QUESTION, QUERY), pair_of(QUESTION, QUERY), TRAIN),
    "turns": Shape(_turn_keys, first_turn, ASK),
    "prompt": Shape(_prompt_keys, prompt_only, ASK),
    "two_columns": Shape(_two_keys, two_columns, TRAIN),
}


def detect(rows: Sequence[Row], use: str, where: str) -> tuple[str, list[str]]:
    """The shape of a file whose first rows are `rows`, and the others that would fit it too.

    InputError if none fits, or two do between which nothing decides.
    """
    seen: dict[str, list[set[str]]] = {}
    for name, shape in SHAPES.items():
        found = [keys for row in rows if use in shape.uses and (keys := shape.keys(row))]
        if 2 * len(found) >= len(rows) and found:
            seen[name] = found
    known = {name: set(Counter(frozenset(k) for k in found).most_common(1)[0][0]) for name, found in seen.items()}
    # A shape known by fewer of the same columns is the poorer reading of the same data.
    best = [n for n in known if not any(known[n] < known[m] for m in known)]
    if "two_columns" in best and len(best) > 1:
        best.remove("two_columns")
    if not best:
        columns = ", ".join(sorted({plain(str(c)[:40]) for row in rows for c in row})[:40])
        raise InputError(
            f"{where}: its columns ({columns}) fit no known shape of {use}: name them in `columns`, "
            f"for example {{prompt: ..., response: ...}}, or give a `shape` ({', '.join(SHAPES)})"
        )
    winners = [n for n in best if SHAPES[n].wins] or best
    if len(winners) > 1:
        choices = " and ".join(f"{n} ({', '.join(sorted(known[n]))})" for n in winners)
        raise InputError(f"{where} fits {choices}: choose with `shape: {winners[0]}` or `shape: {winners[1]}`")
    return winners[0], [n for n in best if n != winners[0]]


def mapped(columns: Mapping[Target, str]) -> Callable[[Row], Record]:
    """A converter by the recipe's own mapping from the pipeline's terms to the names of columns."""

    def convert(row: Row) -> Record:
        absent = [c for c in columns.values() if c not in row]
        if absent:
            raise BadRow(f"has no column {absent[0]!r}")
        told: dict[str, Any] = {target: row[column] for target, column in columns.items()}
        if "label" in told:
            if "response" in told:
                told["completion"] = told.pop("response")
            record = kto(told)
        elif "chosen" in told:
            record = chosen_rejected(told)
        elif "messages" in told:
            record = conversation("messages")(told)
        else:
            named = {"prompt": "instruction", "response": "output"}
            record = alpaca({"output": None} | {named.get(k, k): v for k, v in told.items()})
        if not missing(told.get("reference")):
            record.reference = words(str(told["reference"]), "reference")
        record.used = set(columns.values())
        return record

    return convert
