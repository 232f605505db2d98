"""IFEval's instructions: each one followed and not followed."""

import json
from pathlib import Path
from typing import Any

import pytest

from align.errors import StageError
from align.grading.grade import Item
from align.grading.graders import grade_all
from align.grading.ifeval import CHECKS, IfevalGrader, followed, sentences

DATA = Path(__file__).parents[2] / "shared/data/ifeval/input_data.jsonl"

CASES: list[tuple[str, dict[str, Any], str, str]] = [  # id, kwargs, a response that follows, one that does not
    ("keywords:existence", {"keywords": ["Mom", "mother"]}, "My mom is a mother.", "My mom."),
    ("keywords:frequency", {"keyword": "war", "relation": "at least", "frequency": 2}, "War, war.", "War."),
    ("keywords:frequency", {"keyword": "war", "relation": "less than", "frequency": 2}, "War.", "War, war."),
    ("keywords:forbidden_words", {"forbidden_words": ["rock"]}, "It rocked.", "Rock on."),
    ("keywords:letter_frequency", {"letter": "!", "let_relation": "at least", "let_frequency": 2}, "a!!", "a!"),
    ("keywords:letter_frequency", {"letter": "T", "let_relation": "less than", "let_frequency": 2}, "Tea", "Tot"),
    ("language:response_language", {"language": "ko"}, "오늘은 날씨가 참 좋습니다.", "The weather is fine today."),
    ("language:response_language", {"language": "kn"}, "ಕನ್ನಡ ಒಂದು ಸುಂದರ ಭಾಷೆ.", "हिन्दी एक भाषा है।"),
    ("length_constraints:number_sentences", {"relation": "less than", "num_sentences": 3}, "A. B.", "Ah. Be. See."),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "one\n***\ntwo", "one\n\ntwo"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "one\n***\ntwo\n***", "one ***  *** two"),
    ("length_constraints:number_words", {"relation": "at least", "num_words": 3}, "a b c", "a b"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"first_word": "President", "num_paragraphs": 2, "nth_paragraph": 2},
        "Hi.\n\n'President, yes.",
        "President.\n\nHi.",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name], [city]", "[name]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Hi.\nP.S. Bye.", "Hi. PS bye."),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Hi.\np. p. s bye", "Hi. P.S. Bye."),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n- b", "* a\n- b\n* c"),
    ("detectable_format:constrained_response", {}, "My answer is maybe.", "Maybe."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and **b c**", "*a* and ** **"),
    ("detectable_format:multiple_sections", {"section_spliter": "Section", "num_sections": 2},
     "Section 1\na\nSection 2\nb", "Section 1\na"),
    ("detectable_format:json_format", {}, '```json\n{"a": [1]}\n```', "{'a': 1}"),
    ("detectable_format:title", {}, "<<A title>>\ntext", "<< >>\ntext"),
    ("combination:two_responses", {}, "one\n******\ntwo", "one\n******\none"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say hi."}, "say hi. Hi!", "Hi!"),
    ("startend:end_checker", {"end_phrase": "Any questions?"}, 'Well. "Any questions?"', "Any questions? No."),
    ("startend:quotation", {}, '"Hello."', '"Hello.'),
    ("change_case:capital_word_frequency", {"capital_relation": "at least", "capital_frequency": 2}, "NOW UP", "NOW"),
    ("change_case:english_capital", {}, "THIS IS ALL IN UPPER CASE.", "This is not."),
    ("change_case:english_lowercase", {}, "this is all in lower case.", "This is not."),
    ("punctuation:no_comma", {}, "No; none.", "Well, one."),
]  # fmt: skip


@pytest.mark.parametrize(("name", "kwargs", "good", "bad"), CASES, ids=[f"{c[0]}-{i}" for i, c in enumerate(CASES)])
def test_followed_or_not(name: str, kwargs: dict[str, Any], good: str, bad: str) -> None:
    assert followed(name, good, kwargs) is True
    assert followed(name, bad, kwargs) is False
    assert followed(name, " \n", kwargs) is False


def test_every_instruction_has_a_case() -> None:
    assert {c[0] for c in CASES} == set(CHECKS)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("One. Two! Three?", 3),
        ("Dr. Kim met Mr. Lee. They spoke.", 2),
        ("Wait... what?!", 2),
        ("3.5 is more than 2.", 1),
        ("A heading\nA sentence. Another", 3),
        ("안녕하세요. 반갑습니다.", 2),
        ("今日は。雨です。", 2),
        ("", 0),
        ("...", 0),
    ],
)
def test_sentences(text: str, count: int) -> None:
    assert sentences(text) == count


def meta(*instructions: tuple[str, dict[str, Any] | None]) -> dict[str, Any]:
    return {"instruction_id_list": [i for i, _ in instructions], "kwargs": [k for _, k in instructions]}


def test_levels_and_unknown_instructions() -> None:
    two = meta(("punctuation:no_comma", {"num_words": None}), ("startend:quotation", None))
    unknown = meta(("punctuation:no_comma", {}), ("format:haiku", {}))
    items = [Item("a", "", '"x"', None, two), Item("a", "", "x", None, two), Item("b", "", "x", None, unknown)]
    grades = grade_all(IfevalGrader(), items)
    assert [(g.score, g.status) for g in grades] == [(1, "correct"), (0, "wrong"), (None, "ungraded")]
    assert "startend:quotation" in grades[1].detail and "format:haiku" in grades[2].detail
    assert [g.score for g in grade_all(IfevalGrader(level="instruction"), items)] == [1, 0.5, None]


def test_loose_forgives_a_first_line() -> None:
    item = Item("a", "", 'Sure, here it is:\n"Hello"', None, meta(("startend:quotation", {})))
    assert [g.status for g in grade_all(IfevalGrader(), [item])] == ["wrong"]
    assert [g.status for g in grade_all(IfevalGrader(loose=True), [item])] == ["correct"]


@pytest.mark.parametrize(
    "values",
    [{}, {"instruction_id_list": ["punctuation:no_comma"], "kwargs": []}, meta(("keywords:existence", {})),
     meta(("length_constraints:number_words", {"relation": "around", "num_words": 3}))],
)  # fmt: skip
def test_rows_that_cannot_be_checked_are_named(values: dict[str, Any]) -> None:
    with pytest.raises(StageError, match="r77"):
        grade_all(IfevalGrader(), [Item("r77", "", "x", None, values)])


def test_columns_may_be_json_text() -> None:
    values = {k: json.dumps(v) for k, v in meta(("punctuation:no_comma", {})).items()}
    assert [g.status for g in grade_all(IfevalGrader(), [Item("a", "", "x", None, values)])] == ["correct"]


def test_real_data_is_all_gradable() -> None:
    if not DATA.exists():
        pytest.skip("no IFEval here")
    rows = [json.loads(line) for line in DATA.open(encoding="utf-8")]
    items = [Item(str(r["key"]), r["prompt"], f"{r['prompt']}\n\nMy answer is yes.", None, r) for r in rows]
    grades = grade_all(IfevalGrader(), items)
    assert len(grades) == 541
    assert {g.status for g in grades} == {"correct", "wrong"}
