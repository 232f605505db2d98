"""Shapes: every spelling of a row that people have, found from columns and types."""

from typing import Any

import pytest

from align.data.shapes import SHAPES, detect, mapped
from align.data.turns import BadRow, said
from align.errors import InputError

USER, BOT = {"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Ho."}
HUMAN, GPT = {"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Ho."}

INSTRUCTIONS: dict[str, dict[str, Any]] = {
    "alpaca": {"instruction": "Hi?", "input": "", "output": "Ho."},
    "sharegpt": {"conversations": [HUMAN, GPT], "id": "7"},
    "messages": {"messages": [USER, BOT]},
    "prompt_completion": {"prompt": "Hi?", "completion": "Ho."},
    "question_answer": {"question": "Hi?", "answer": "Ho."},
    "question_query": {"question": "Hi?", "query": "Ho.", "db_id": "x"},
    "two_columns": {"ask": "Hi?", "reply": "Ho."},
}
MORE = [
    ("alpaca", {"instruction": "Hi?", "output": "Ho."}),
    ("alpaca", {"instruction": "Hi?", "context": "", "response": "Ho.", "category": "x"}),
    ("sharegpt", {"conversations": [USER, BOT]}),
    ("question_answer", {"Q": "Hi?", "A": "Ho.", "label": "0"}),
    ("question_answer", {"질문": "Hi?", "답변": "Ho."}),
    ("question_answer", {"system_prompt": "", "question": "Hi?", "response": "Ho."}),
    ("messages", {"prompt": "Hi?", "row_id": "1", "messages": [USER, BOT]}),
    ("messages", {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi?"}]}, BOT]}),
    ("prompt_completion", {"prompt": "Hi?", "response": "Ho."}),
]
PREFERENCES: dict[str, dict[str, Any]] = {
    "hh": {"chosen": "\n\nHuman: Hi?\n\nAssistant: Ho.", "rejected": "\n\nHuman: Hi?\n\nAssistant: No."},
    "chosen_rejected": {"prompt": "Hi?", "chosen": "Ho.", "rejected": "No."},
    "conversations_chosen_rejected": {
        "conversations": [HUMAN], "chosen": GPT, "rejected": {"from": "gpt", "value": "No."}},
    "ranked": {"instruction": "Hi?", "input": "", "output": ["Ho.", "Hm.", "No."]},
    "two_outputs": {"instruction": "Hi?", "output_1": "No.", "generator_1": "a", "output_2": "Ho.", "generator_2": "b",
                    "annotator": "c", "preference": 1.9},
}  # fmt: skip
MORE_PREFERENCES = [
    ("chosen_rejected", {"prompt": "Hi?", "row_id": "1", "chosen": [USER, BOT], "messages": [USER, BOT],
                         "rejected": [USER, {"role": "assistant", "content": "No."}], "score_chosen": 8.0}),
    ("chosen_rejected", {"chosen": [USER, BOT], "rejected": [USER, {"role": "assistant", "content": "No."}]}),
    ("chosen_rejected", {"prompt": [USER], "chosen": [BOT], "rejected": [{"role": "assistant", "content": "No."}]}),
    ("chosen_rejected", {"question": "Hi?", "chosen": "Ho.", "rejected": "No.", "system": ""}),
    ("two_outputs", {"instruction": "Hi?", "output_1": "Ho.", "output_2": "No.", "preference": "1"}),
]  # fmt: skip


@pytest.mark.parametrize("name, row", [*INSTRUCTIONS.items(), *MORE])
def test_instructions(name: str, row: dict) -> None:
    assert detect([row], "instructions", "f") == (name, []) or name in detect([row], "instructions", "f")[0]
    record = SHAPES[name].convert(row)
    assert record.messages == [USER] and record.response == "Ho."


@pytest.mark.parametrize("name, row", [*PREFERENCES.items(), *MORE_PREFERENCES])
def test_preferences(name: str, row: dict) -> None:
    assert detect([row], "preferences", "f")[0] == name
    record = SHAPES[name].convert(row)
    assert (record.messages, record.chosen, record.rejected) == ([USER], "Ho.", "No.")


def test_kto() -> None:
    for label, sides in ((True, ("Ho.", None)), ("false", (None, "Ho."))):
        row = {"messages": [USER, BOT], "label": label}
        assert detect([row], "preferences", "f")[0] == "kto"
        record = SHAPES["kto"].convert(row)
        assert (record.chosen, record.rejected) == sides
    assert SHAPES["kto"].convert({"prompt": "Hi?", "completion": "Ho.", "label": True}).chosen == "Ho."


def test_prompts_and_references() -> None:
    for row, name in (({"prompt": "Hi?", "key": 1}, "prompt"), ({"turns": ["Hi?", "And?"]}, "turns"),
                      ({"question": "Hi?", "reference": "Ho."}, "question_reference"), ({"prompt": [USER]}, "prompt"),
                      ({"question": "Hi?", "reference": "Ho.", "answer": "x"}, "question_reference")):  # fmt: skip
        assert detect([row], "evaluation", "f")[0] == name
        assert SHAPES[name].convert(row).messages == [USER]
    assert SHAPES["turns"].convert({"turns": ["Hi?", "And?"], "reference": ["Ho.", "Hm."]}).reference == "Ho."


def test_conversations_stay_whole() -> None:
    spoken = [{"from": "system", "value": "Be brief."}, HUMAN, GPT, {"from": "human", "value": "More?"},
              {"from": "gpt", "value": "Less."}]  # fmt: skip
    record = SHAPES["sharegpt"].convert({"conversations": spoken})
    assert [m["role"] for m in record.messages] == ["system", "user", "assistant", "user"]
    assert record.response == "Less."
    assert said(record.messages) == "user: Hi?\n\nassistant: Ho.\n\nuser: More?"
    assert SHAPES["alpaca"].convert({"instruction": "More?", "output": "Less.", "history": [["Hi?", "Ho."]]}).messages == [
        USER, BOT, {"role": "user", "content": "More?"}]  # fmt: skip
    unanswered = SHAPES["sharegpt"].convert({"conversations": [HUMAN]})
    assert unanswered.response is None and unanswered.messages == [USER]


def test_a_majority_of_rows_decides() -> None:
    good = INSTRUCTIONS["alpaca"]
    assert detect([good, {"x": 1}, good], "instructions", "f") == ("alpaca", [])


def test_two_shapes_fit() -> None:
    both = {"instruction": "a", "output": "b", "question": "c", "answer": "d"}
    with pytest.raises(InputError, match=r"f fits alpaca .* and question_answer .*: choose with `shape: alpaca`"):
        detect([both], "instructions", "f")
    name, also = detect([{"messages": [USER, BOT], "instruction": "a", "output": "b"}], "instructions", "f")
    assert (name, also) == ("messages", ["alpaca"])


def test_no_shape_fits() -> None:
    with pytest.raises(InputError, match=r"its columns \(x, y, z\) fit no known shape of instructions: name them in"):
        detect([{"x": 1, "y": 2, "z": 3}], "instructions", "f")


def test_columns_named_by_the_recipe() -> None:
    convert = mapped({"prompt": "frage", "input": "mehr", "response": "antwort", "reference": "soll"})
    record = convert({"frage": "Hi", "mehr": "there?", "antwort": "Ho.", "soll": 3, "x": 1})
    assert record.messages[0]["content"] == "Hi\n\nthere?" and record.response == "Ho." and record.reference == "3"
    assert record.used == {"frage", "mehr", "antwort", "soll"}
    assert (
        mapped({"prompt": "p", "chosen": "c", "rejected": "r"})({"p": "Hi?", "c": "Ho.", "r": "No."}).rejected == "No."
    )
    assert mapped({"messages": "m"})({"m": [USER, BOT]}).response == "Ho."
    assert (
        mapped({"prompt": "p", "response": "c", "label": "l"})({"p": "Hi?", "c": "Ho.", "l": False}).rejected == "Ho."
    )
    with pytest.raises(BadRow, match="has no column 'antwort'"):
        convert({"frage": "Hi", "mehr": "", "soll": ""})


@pytest.mark.parametrize(
    "name, row, reason",
    [
        ("alpaca", {"instruction": None, "output": "x"}, "instruction is null, not text"),
        ("alpaca", {"instruction": ["x"], "output": "x"}, "instruction is a list, not text"),
        ("alpaca", {"output": "x"}, "has no column 'instruction'"),
        ("alpaca", {"instruction": "x"}, "has no column 'output'"),
        ("alpaca", {"instruction": "x\ud83d", "output": "x"}, "lone surrogate"),
        ("sharegpt", {"conversations": []}, "conversations is empty"),
        ("sharegpt", {"conversations": [{"from": "alien", "value": "x"}]}, "unknown role 'alien'"),
        ("sharegpt", {"conversations": [GPT]}, "no turn of a user"),
        ("messages", {"messages": [{"role": "user", "content": None}]}, "messages is null, not text"),
        ("hh", PREFERENCES["hh"] | {"rejected": "\n\nHuman: Hi?\n\nAssistant: "}, "final turn of rejected is empty"),
        ("hh", PREFERENCES["hh"] | {"rejected": "\n\nHuman: Ha?\n\nAssistant: No."}, "share no prompt prefix"),
        ("hh", {"chosen": "Hi", "rejected": "Ho"}, "does not begin with"),
        ("chosen_rejected", {"prompt": "x", "chosen": "", "rejected": "y"}, "final turn of chosen is empty"),
        ("chosen_rejected", {"prompt": "x", "chosen": None, "rejected": None}, "chosen is null, not text"),
        ("ranked", {"instruction": "x", "output": ["y"]}, "no list of two or more"),
        ("two_outputs", {**PREFERENCES["two_outputs"], "preference": 1.5}, "neither output is better"),
        ("two_outputs", {**PREFERENCES["two_outputs"], "preference": 0}, "neither output is better"),
        ("two_outputs", {**PREFERENCES["two_outputs"], "preference": 3}, "not a number from 1 to 2"),
        ("two_outputs", {**PREFERENCES["two_outputs"], "preference": None}, "not a number from 1 to 2"),
        ("kto", {"prompt": "x", "completion": "y", "label": "maybe"}, "neither true nor false"),
    ],
)
def test_bad_rows_say_why(name: str, row: dict, reason: str) -> None:
    with pytest.raises(BadRow, match=reason):
        SHAPES[name].convert(row)


def test_a_draw_is_left_out_on_purpose() -> None:
    for draw in (0, 1.5):
        with pytest.raises(BadRow) as raised:
            SHAPES["two_outputs"].convert({**PREFERENCES["two_outputs"], "preference": draw})
        assert raised.value.skip


def test_a_system_message_alone_is_a_prompt() -> None:
    system = {"role": "system", "content": "Name a colour."}
    for shape, row in (("messages", {"messages": [system]}), ("prompt", {"prompt": [system]}),
                       ("sharegpt", {"conversations": [{"from": "system", "value": "Name a colour."}]})):  # fmt: skip
        assert detect([row], "evaluation", "f")[0] == shape
        record = SHAPES[shape].convert(row)
        assert record.messages == [system] and record.response is None and said(record.messages) == "Name a colour."
    assert SHAPES["messages"].convert({"messages": [system, BOT]}).response == "Ho."
    for wrong in ([system, BOT, system], [BOT], [system, BOT, BOT, system, BOT]):
        with pytest.raises(BadRow, match="no turn of a user"):
            SHAPES["messages"].convert({"messages": wrong})
