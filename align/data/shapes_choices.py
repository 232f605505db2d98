"""Multiple choice: a question, its options and which is right, as MMLU, MMLU-Pro, ARC and KMMLU write it.

The model is shown the options by letter. The reference is the letter of the right one; `choices` and `question` of meta
are the options and the question alone, for suites that compare how likely the options' texts are.
"""

from typing import Any

from align.data.turns import BadRow, Record, Row, get, missing, name_in, user, words

LETTERS = "ABCDEFGHIJ"
QUESTION = ("question", "query", "prompt", "질문", "문제")
RIGHT = ("answer", "answerKey", "answer_index", "label", "gold", "정답")
LISTS = ("choices", "options", "보기")
ASKS = "Answer with the letter of the right option."
ASKS_KO = "정답인 보기의 알파벳으로 답하세요."


def choice_keys(row: Row) -> set[str]:
    """The columns by which a multiple-choice row is known; none where it is not one."""
    question, right, listed = name_in(row, *QUESTION), name_in(row, *RIGHT), name_in(row, *LISTS)
    if question is None or right is None or not isinstance(row[question], str):
        return set()
    if listed and (isinstance(row[listed], list) or _labelled(row[listed])):
        return {question, right, listed}
    lettered = _columns(row)
    return {question, right, *lettered} if len(lettered) > 1 else set()


def multiple_choice(row: Row) -> Record:
    """{question, choices, answer} with an index from 0, a letter or the text; {question, choices: {text, label},
    answerKey}; or {question, A, B, C, D, answer} with a letter or a number from 1."""
    question, right = name_in(row, *QUESTION), name_in(row, *RIGHT)
    if question is None or right is None:
        raise BadRow(f"has no column {'question' if question is None else 'answer'!r}")
    listed = name_in(row, *LISTS)
    lettered = [] if listed else _columns(row)
    if listed is None and len(lettered) < 2:
        raise BadRow("has neither choices nor columns A, B, ... with the options")
    value: Any = row[listed] if listed else [row[c] for c in lettered]
    labels = [words(v, str(listed)) for v in value["label"]] if _labelled(value) else []
    texts = value["text"] if _labelled(value) else value
    if not isinstance(texts, list) or not 2 <= len(texts) <= len(LETTERS):
        raise BadRow(f"{listed or 'A'} holds no list of 2 to {len(LETTERS)} options")
    texts = [words(t, listed or "A") for t in texts]
    if labels and len(labels) != len(texts):
        raise BadRow(f"{listed} has {len(texts)} texts and {len(labels)} labels")
    asked = get(row, question)
    at = None if missing(row[right]) else _right(row[right], right, texts, labels, 1 if lettered else 0)
    shown = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, texts, strict=False))
    korean = any("가" <= c <= "힣" for c in asked)
    return Record(
        user(f"{asked}\n\n{shown}\n\n{ASKS_KO if korean else ASKS}"),
        {question, right, *lettered, *([listed] if listed else [])},
        reference=None if at is None else LETTERS[at],
        extra={"question": asked, "choices": texts},
    )


def _right(value: Any, column: str, texts: list[str], labels: list[str], first: int) -> int:
    """The position of the right option, by its label, its text, its letter, or its number from `first`."""
    told = words(value, column).strip()
    for known in (labels, texts):
        if known.count(told) == 1:
            return known.index(told)
    at = LETTERS.index(told.upper()) if len(told) == 1 and told.upper() in LETTERS else None
    if at is None and told.lstrip("-").isdecimal():
        at = int(told) - first
    if labels or at is None or not 0 <= at < len(texts):
        counted = f", counted from {first}" if told.lstrip("-").isdecimal() and not labels else ""
        raise BadRow(f"{column} is {told!r:.40}, which is none of the {len(texts)} options{counted}")
    return at


def _labelled(value: Any) -> bool:
    """Whether the options are {text: [...], label: [...]}, as in ARC."""
    return isinstance(value, dict) and all(isinstance(value.get(k), list) for k in ("text", "label"))


def _columns(row: Row) -> list[str]:
    """The columns A, B, ... that hold options."""
    found = []
    for letter in LETTERS:
        if missing(row.get(letter)):
            break
        found.append(letter)
    return found
