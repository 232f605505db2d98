"""Judged logs of several turns: MT-Bench's judgments by people and by a judge in both orders, and Arena's votes."""

import json
from pathlib import Path
from typing import Any

import pytest

from align.data.shapes import SHAPES, detect
from align.data.turns import BadRow
from align.errors import InputError
from align.tables import read
from tasks.ingest import IngestConfig, Source, ingest

MT_BENCH = Path(__file__).parents[2] / "shared" / "data" / "mt_bench"
CONVERT = SHAPES["judged"].convert


def said(*texts: str) -> list[dict[str, str]]:
    """A conversation that a user begins."""
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def people(**values: Any) -> dict[str, Any]:
    """A row of mt_bench_human_judgments; its conversations go on after the judged turn."""
    return {
        "question_id": 81, "model_a": "alpaca-13b", "model_b": "gpt-3.5-turbo", "winner": "model_b", "judge": "expert_0",
        "conversation_a": said("Hi?", "No.", "And?", "Nothing."), "conversation_b": said("Hi?", "Ho.", "And?", "More."),
        "turn": 1, **values,
    }  # fmt: skip


@pytest.mark.parametrize(
    "row",
    [
        people(),
        people(turn="1"),
        people(winner="gpt-3.5-turbo"),
        people(winner="model_a", conversation_a=said("Hi?", "Ho."), conversation_b=said("Hi?", "No.")),
        {k: v for k, v in people(conversation_a=said("Hi?", "No."), conversation_b=said("Hi?", "Ho.")).items()
         if k != "turn"},
        {"question_id": 1, "model_1": "x", "model_2": "y", "g1_winner": "model_2", "g2_winner": "model_2", "turn": 1,
         "conversation_1": said("Hi?", "No."), "conversation_2": said("Hi?", "Ho.")},
    ],
)  # fmt: skip
def test_the_answers_to_the_judged_turn_are_chosen_and_rejected(row: dict[str, Any]) -> None:
    assert detect([row], "preferences", "f")[0] == "judged"
    record = CONVERT(row)
    assert (record.messages, record.chosen, record.rejected) == (said("Hi?"), "Ho.", "No.")


def test_earlier_turns_are_the_prompt_where_both_models_gave_the_same() -> None:
    sides = {"conversation_a": said("Hi?", "Ho.", "And?", "No."), "conversation_b": said("Hi?", "Ho.", "And?", "More.")}
    for more in ({"turn": 2}, {"turn": None}):
        record = CONVERT(people(**sides, **more))
        assert (record.messages, record.chosen, record.rejected) == (said("Hi?", "Ho.", "And?"), "More.", "No.")


@pytest.mark.parametrize(
    "values, reason, skip",
    [
        ({"turn": 2}, "answers before the judged turn differ", True),
        ({"winner": "tie"}, "winner is a tie, so that neither side is better", True),
        ({"winner": "tie (bothbad)"}, "winner is a tie", True),
        ({"g1_winner": "model_1", "g2_winner": "model_2", "winner": None}, "winner is null", False),
        ({"turn": 3}, "turn is 3, and conversation_a has 2 answers", False),
        ({"turn": 0}, "turn is '0', not the number of a turn", False),
        ({"turn": "last"}, "turn is 'last', not the number of a turn", False),
        ({"winner": "vicuna"}, "winner is 'vicuna', neither a side nor a tie", False),
        ({"conversation_b": said("Ho?", "Ho.")}, "do not ask the same", False),
        ({"conversation_b": said("Hi?", " ")}, "final turn of chosen is empty", False),
        ({"conversation_a": said("Hi?"), "turn": None}, "do not ask the same", False),
    ],
)
def test_rows_that_make_no_pair_say_why(values: dict[str, Any], reason: str, skip: bool) -> None:
    with pytest.raises(BadRow, match=reason) as raised:
        CONVERT(people(**values))
    assert raised.value.skip == skip


@pytest.mark.parametrize(
    "winners, reason",
    [
        (("model_1", "model_2"), "another one in the other order"),
        (("tie", "model_2"), "another one in the other order"),
        (("tie", "tie"), "g1_winner is a tie"),
        (("model_1", "error"), "g2_winner is an error: the judge gave no verdict"),
    ],
)
def test_a_judge_that_does_not_hold_to_its_verdict_prefers_neither(winners: tuple[str, str], reason: str) -> None:
    row = people(g1_winner=winners[0], g2_winner=winners[1])
    del row["winner"]
    with pytest.raises(BadRow, match=reason) as raised:
        CONVERT(row)
    assert raised.value.skip


def templates() -> dict[str, str]:
    """FastChat's questions to its judge, by name."""
    if not MT_BENCH.is_dir():
        pytest.skip("the shared data is not here")
    lines = (MT_BENCH / "judge_prompts.jsonl").read_text(encoding="utf-8").splitlines()
    return {r["name"]: r["prompt_template"] for r in map(json.loads, lines) if r["type"] == "pairwise"}


@pytest.mark.parametrize("name", ["pair-v2", "pair-math-v1", "pair-v2-multi-turn", "pair-math-v1-multi-turn"])
def test_answers_in_fastchats_question_to_its_judge(name: str) -> None:
    """A judgment file has the answers nowhere else; each of the four templates, with the real MT-Bench questions."""
    template = templates()[name]
    lines = (MT_BENCH / "mt_bench__question.jsonl").read_text(encoding="utf-8").splitlines()
    for row in map(json.loads, lines):
        one, two = row["turns"]
        texts = {"question": one, "question_1": one, "question_2": two, "ref_answer_1": "4", "ref_answer_2": "5"}
        first = "### A heading\n\nHo.\n\n[[A]]"
        answers = {"answer_a": "No.", "answer_b": first, "answer_a_1": first, "answer_b_1": first, "answer_a_2": "No.",
                   "answer_b_2": "More."}  # fmt: skip
        turn = 2 if "multi" in name else 1
        judged = {"question_id": row["question_id"], "model_1": "x", "model_2": "y", "g1_winner": "model_2",
                  "g2_winner": "model_2", "judge": ["gpt-4", name], "g1_user_prompt": template.format(**texts, **answers),
                  "g1_judgment": "[[B]]", "g2_user_prompt": "", "g2_judgment": "[[A]]", "turn": turn, "tstamp": 1.0}  # fmt: skip
        assert detect([judged], "preferences", "f")[0] == "judged"
        record = CONVERT(judged)
        assert record.messages == (said(one, first, two) if turn == 2 else said(one))
        assert (record.chosen, record.rejected) == ("More." if turn == 2 else first, "No.")


@pytest.mark.parametrize(
    "text", ["", "Which is better?", "[User Question]\nHi?\n\n[The Start of Assistant A's Answer]\nA"]
)
def test_a_question_of_another_kind_is_bad(text: str) -> None:
    with pytest.raises(BadRow, match="not FastChat's question to a judge"):
        CONVERT({"g1_user_prompt": text, "g1_winner": "model_1", "g2_winner": "model_1"})


def test_an_answer_that_looks_like_turns_is_bad_and_not_cut() -> None:
    trap = "No.\n\n### User:\nWhy?"
    text = templates()["pair-v2-multi-turn"].format(
        question_1="Hi?", question_2="And?", answer_a_1=trap, answer_a_2="a", answer_b_1="Ho.", answer_b_2="b"
    )
    with pytest.raises(BadRow, match="the turns of assistant A cannot be told apart"):
        CONVERT({"g1_user_prompt": text, "g1_winner": "model_1", "g2_winner": "model_1", "turn": 2})


def test_a_log_through_ingest(tmp_path: Path) -> None:
    """Ties and second turns are set aside with their reasons, whatever their share; what is malformed is bad."""
    rows = [people(question_id=i, winner=w, turn=t) for i, (w, t) in enumerate(
        [("model_a", 1), ("model_b", 1), ("tie", 1), ("tie", 2), ("model_a", 2)])]  # fmt: skip
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    metrics = ingest(IngestConfig(sources={"log": Source(path=path, use="preferences")}), tmp_path)
    made, aside = read(tmp_path / "rows.parquet"), read(tmp_path / "quarantine.parquet")
    assert metrics["shape.log"] == "judged" and [(r["chosen"], r["rejected"]) for r in made] == [
        ("No.", "Ho."), ("Ho.", "No.")]  # fmt: skip
    assert json.loads(made[0]["meta"]) == {
        "judge": "expert_0", "model_a": "alpaca-13b", "model_b": "gpt-3.5-turbo", "question_id": 0, "turn": 1}  # fmt: skip
    assert [a["line"] for a in aside] == [3, 4, 5] and "tie" in aside[0]["reason"] and "differ" in aside[2]["reason"]
    path.write_text("\n".join(map(json.dumps, [*rows, people(winner="vicuna")])))
    with pytest.raises(InputError, match="1 of 6 rows of source log are unreadable.*neither a side nor a tie"):
        ingest(IngestConfig(sources={"log": Source(path=path, use="preferences")}), tmp_path)
