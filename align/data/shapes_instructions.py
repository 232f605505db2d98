"""Shapes that hold a prompt and perhaps its response."""

from collections.abc import Callable

from align.data.turns import (
    BadRow,
    Record,
    Row,
    Turn,
    get,
    maybe,
    missing,
    name_in,
    only_system,
    text_of,
    turns,
    user,
    with_functions,
    with_system,
    words,
)

QUESTION = ("question", "Question", "Q", "질문")
ANSWER = ("answer", "Answer", "A", "response", "답변", "답")
QUERY = ("query", "sql", "SQL", "Query")
COMPLETION = ("completion", "response", "output")
INPUT = ("input", "context")
OUTPUT = ("output", "response")
SYSTEM = ("system", "system_prompt")


def _history(row: Row) -> list[Turn]:
    found: list[Turn] = []
    history = row.get("history")
    if missing(history) or not history:
        return found
    for pair in history if isinstance(history, list | tuple) else [None]:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise BadRow("history is no list of [question, answer]")
        found += [{"role": "user", "content": words(pair[0], "history")},
                  {"role": "assistant", "content": words(pair[1], "history")}]  # fmt: skip
    return found


def alpaca_prompt(row: Row) -> list[Turn]:
    text, extra = get(row, "instruction"), maybe(row, name_in(row, *INPUT))
    system = maybe(row, name_in(row, *SYSTEM))
    return [*user("", system)[:-1], *_history(row), *user(f"{text}\n\n{extra}" if extra and extra.strip() else text)]


ALPACA = {"instruction", "history", *INPUT, *OUTPUT, *SYSTEM}


def alpaca(row: Row) -> Record:
    output = name_in(row, *OUTPUT)
    if output is None:
        raise BadRow("has no column 'output'")
    return Record(alpaca_prompt(row), ALPACA, response=maybe(row, output))


def conversation(column: str) -> Callable[[Row], Record]:
    def convert(row: Row) -> Record:
        if column not in row:
            raise BadRow(f"has no column {column!r}")
        said = with_system(turns(row[column], column), maybe(row, name_in(row, *SYSTEM)))
        answered = said[-1]["role"] == "assistant"
        messages = said[:-1] if answered else said
        if messages[-1]["role"] not in ("user", "tool") and not only_system(messages):
            raise BadRow(f"{column} has no user turn before its answer")
        messages, functions = with_functions(messages, row)
        record = Record(messages, {column, *functions, *SYSTEM})
        if answered:
            record.response, record.calls = text_of(said[-1]), "tool_calls" in said[-1]
        return record

    return convert


def pair_of(questions: tuple[str, ...], answers: tuple[str, ...]) -> Callable[[Row], Record]:
    def convert(row: Row) -> Record:
        q, a = name_in(row, *questions), name_in(row, *answers)
        if q is None or a is None:
            raise BadRow(f"has no column {(questions if q is None else answers)[0]!r}")
        return Record(user(get(row, q), maybe(row, name_in(row, *SYSTEM))), {q, a, *SYSTEM}, maybe(row, a))

    return convert


def question_reference(row: Row) -> Record:
    q = name_in(row, *QUESTION, "prompt") or "question"
    return Record(user(get(row, q)), {q, "reference"}, reference=maybe(row, "reference"))


def first_turn(row: Row) -> Record:
    """MT-Bench: a list of user turns that are asked one after the other. The first is the prompt, all stay in meta."""
    value = row.get("turns")
    if not isinstance(value, list) or not value:
        raise BadRow("turns is no list of texts")
    reference = row.get("reference")
    first = reference[0] if isinstance(reference, list) and reference else None
    return Record(
        user(words(value[0], "turns")), set(), reference=None if missing(first) else words(first, "reference")
    )


def prompt_only(row: Row) -> Record:
    column = name_in(row, "prompt", "instruction", *QUESTION) or "prompt"
    if isinstance(row.get(column), list):
        return conversation(column)(row)
    return Record(user(get(row, column), maybe(row, name_in(row, *SYSTEM))), {column, *SYSTEM})


def two_columns(row: Row) -> Record:
    if len(row) != 2:
        raise BadRow(f"has {len(row)} columns, not two")
    q, a = row
    return Record(user(get(row, q)), {q, a}, maybe(row, a))
