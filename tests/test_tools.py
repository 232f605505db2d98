"""Tools in data: every spelling of calls, results and functions is read, kept, told apart, and masked."""

import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pools import pool
from pools import row as instruction
from tooled import ANSWER, ASKED, CALL, FUNCTIONS, OPENAI, RESULT, SPELLINGS, read

from align import tables
from align.data.shapes import SHAPES, mapped
from align.data.turns import BadRow, Record, row_id
from align.models.tools import response_of
from align.rules.personal import PersonalData
from storage.views import _dataset
from tasks.ingest import IngestConfig, Source, ingest


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_is_the_same_conversation(name: str) -> None:
    record = read(**SPELLINGS[name])
    assert [m["role"] for m in record.messages] == ["user", "assistant", "tool"] and record.response == "It rains."
    first, called, result = record.messages
    assert json.loads(first["tools"]) == FUNCTIONS and first["content"] == "How is it there?"
    (call,) = json.loads(called["tool_calls"])
    call.pop("id", None)
    assert (call, called["content"], result["content"], record.calls) == (CALL, "", RESULT, False)
    assert "\n" not in called["tool_calls"] and list(call["function"]["arguments"]) == ["city", "days"], "as given"
    if name == "OpenAI":
        assert (result["tool_call_id"], json.loads(called["tool_calls"])[0]["id"]) == ("abcdefghi", "abcdefghi")


def test_words_and_calls_of_one_turn_stay_together() -> None:
    said = [{"from": "human", "value": "And?"}, {"from": "gpt", "value": "Wait."}]
    calls = [{"from": "function_call", "value": json.dumps({"name": n, "arguments": {}})} for n in "ab"]
    results = [{"from": "observation", "value": v} for v in "12"]
    record = read(conversations=[*said, *calls, *results, {"from": "gpt", "value": "Done."}])
    _, called, *tools = record.messages
    assert called["content"] == "Wait." and [c["function"]["name"] for c in json.loads(called["tool_calls"])] == [
        "a",
        "b",
    ]
    assert [t["content"] for t in tools] == ["1", "2"]
    assert read(messages=[ASKED, {"role": "assistant", "content": None, "tool_calls": [CALL]},
                          {"role": "tool", "content": {"a": [1]}}, ANSWER]).messages[-1]["content"] == '{"a":[1]}'  # fmt: skip


def test_a_final_call_is_the_response_as_its_last_line() -> None:
    record = read(messages=[ASKED, {"role": "assistant", "content": "One\nmoment.", "tool_calls": [CALL]}])
    assert record.calls and (record.response or "").startswith("One\nmoment.\n[{")
    turn = response_of({"response": record.response, "calls": True})
    assert isinstance(turn, dict) and turn["content"] == "One\nmoment." and json.loads(turn["tool_calls"]) == [CALL]
    assert response_of({"response": "One\n[]", "calls": None}) == "One\n[]" == response_of({"response": "One\n[]"})
    bare = read(messages=[ASKED, {"role": "assistant", "content": None, "tool_calls": [CALL]}])
    assert response_of({"response": bare.response, "calls": True})["content"] == ""  # type: ignore[index]
    plain = Record(bare.messages, set(), response=bare.response)
    assert row_id(plain) != row_id(bare), "a text that reads like a call is none"


@pytest.mark.parametrize(
    "messages, reason",
    [
        ([ASKED, {"role": "tool", "content": "x"}, ANSWER], "holds the result of a tool that nobody called"),
        ([ASKED, {"from": "function_call", "value": "look_up()"}], "holds a tool call that is no JSON"),
        ([ASKED, {"from": "function_call", "value": "{}"}], "without the name of a function"),
        ([ASKED, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]}], "are no object"),
        ([ASKED, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}], "arguments of a tool"),
        ([ASKED, {"from": "function_call", "value": "[]"}], "holds no tool call"),
        ([ASKED, {"from": "function_call", "value": "[" * 5000}], "is no JSON"),
        ([ASKED, {"from": "function_call", "value": '{"name": "\\ud800"}'}], "lone surrogate"),
        ([{"role": "tool", "content": "x"}, ASKED, ANSWER], "that nobody called"),
    ],
)  # fmt: skip
def test_calls_that_cannot_be_read_are_bad_rows(messages: list[dict[str, Any]], reason: str) -> None:
    with pytest.raises(BadRow, match=reason) as raised:
        read(messages=messages)
    assert not raised.value.skip


def test_preferences_hold_tools_before_the_answers_and_none_in_them(tmp_path: Path) -> None:
    sides = {"chosen": [*OPENAI], "rejected": [*OPENAI[:3], {"role": "assistant", "content": "No idea."}]}
    record = SHAPES["chosen_rejected"].convert(sides | {"tools": FUNCTIONS})
    assert record.messages[-1]["role"] == "tool" and record.rejected == "No idea." and "tools" in record.messages[0]
    split = SHAPES["chosen_rejected"].convert({"prompt": OPENAI[:3], "chosen": [ANSWER], "rejected": "No."})
    assert split.messages == [{k: v for k, v in m.items() if k != "tools"} for m in record.messages]
    for wrong in (sides | {"rejected": OPENAI[:2]}, {"prompt": [ASKED], "chosen": [OPENAI[1]], "rejected": "No."}):
        wrong = wrong | ({"chosen": [ASKED, ANSWER]} if len(wrong["rejected"]) == 2 else {})
        with pytest.raises(BadRow, match="is a tool call, and preferences are between texts") as raised:
            SHAPES["chosen_rejected"].convert(wrong)
        assert raised.value.skip
    assert "tools" in mapped({"messages": "m", "tools": "t"})({"m": OPENAI, "t": FUNCTIONS}).messages[0]


def test_a_column_of_tools_that_holds_no_functions_stays_in_meta(tmp_path: Path) -> None:
    for value, stays in (["hammer"], True), ("a hammer", True), ([], False), ("[]", False), ([{"weight": 2}], True):
        record = read(messages=[ASKED, ANSWER], tools=value)
        assert record.messages == [ASKED] and ("tools" not in record.used) == stays


def ingested(folder: Path, *rows: dict[str, Any], **source: Any) -> list[dict[str, Any]]:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    ingest(IngestConfig(sources={"a": Source(path=path, **source)}), folder)
    return tables.read(folder / "rows.parquet")


def test_tools_through_ingest(tmp_path: Path) -> None:
    final = {"messages": OPENAI[:2], "tools": FUNCTIONS}
    rows = ingested(tmp_path, SPELLINGS["OpenAI"], final, {"messages": [ASKED, ANSWER]}, system="Be brief.")
    assert rows[0]["messages"][0] == {
        "role": "system",
        "content": "Be brief.",
        "tools": rows[0]["messages"][0]["tools"],
    }
    assert rows[0]["messages"][1] == ASKED and rows[0]["prompt"].splitlines()[2] == "assistant: " + (
        rows[0]["messages"][2]["tool_calls"]) and RESULT in rows[0]["prompt"]  # fmt: skip
    assert [r["calls"] for r in rows] == [False, True, False] and len({r["row_id"] for r in rows}) == 3
    assert rows[2]["messages"] == [{"role": "system", "content": "Be brief."}, ASKED], "no more than before"
    (asked,) = ingested(tmp_path, final, use="evaluation")
    assert (
        asked["calls"]
        and asked["response"] is None
        and json.loads(asked["reference"])[0]["function"] == CALL["function"]
    )


def test_tables_of_two_fields_are_still_read(tmp_path: Path) -> None:
    old = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    table = pa.table({"row_id": ["a"], "messages": pa.array([[ASKED]], old), "response": ["It rains."]})
    pq.write_table(table, tmp_path / "rows.parquet")
    assert tables.read(tmp_path / "rows.parquet", columns=["row_id", "messages", "calls"]) == [
        {"row_id": "a", "messages": [ASKED]}]  # fmt: skip
    con = duckdb.connect()
    con.register("old", _dataset({"x": str(tmp_path / "rows.parquet")}, tables.ROWS))
    found = con.execute("SELECT messages[1].content, messages[1].tool_calls, calls FROM old").fetchall()
    assert found == [("How is it there?", None, None)], "also in `align sql`"
    full = tables.completed(table, tables.ROWS)
    assert full.schema == tables.bare(tables.ROWS) and full["calls"].to_pylist() == [None]
    tables.write(tmp_path / "again.parquet", full, tables.ROWS)
    assert tables.read(tmp_path / "again.parquet")[0]["messages"] == [ASKED]


def test_personal_data_in_calls_is_masked() -> None:
    mail = CALL | {"function": {"name": "send", "arguments": {"to": "kim@naver.com"}}}
    said = read(messages=[ASKED, {"role": "assistant", "content": None, "tool_calls": [mail]}, *OPENAI[2:],
                          ASKED, {"role": "assistant", "content": None, "tool_calls": [mail]}])  # fmt: skip
    held = pool([instruction("user: kim@naver.com", said.response, messages=said.messages, calls=True)])
    list(PersonalData(action="mask").drops(held))
    (found,) = held.table.to_pylist()
    assert "naver" not in json.dumps(found) and found["calls"]
    assert json.loads(found["messages"][1]["tool_calls"])[0]["function"]["arguments"] == {"to": "[email]"}
    assert json.loads(found["response"])[0]["function"]["arguments"] == {"to": "[email]"}
