"""Responses checked by their form: regular expressions in bounded time, and JSON Schema."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from align import patterns
from align.errors import InputError, StageError
from align.grading.grade import Grade, Item
from align.grading.graders import grade_all
from align.grading.judge import JudgeGrader
from align.grading.matching import RegexGrader
from align.grading.schema import JsonSchemaGrader
from flows.check import check
from flows.recipe import load

CATASTROPHE, VICTIM = r"(x+x+)+y", "x" * 5000
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "pattern": "^[A-Z]"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}


def one(grader: Any, response: str, reference: str | None = None) -> Grade:
    (grade,) = grade_all(grader, [Item("r7", "?", response, reference)])
    return grade


def test_a_pattern_is_fixed_or_holds_the_reference_or_is_it() -> None:
    assert one(RegexGrader(pattern=r"\d{4}-\d\d"), "In 2024-05.").status == "correct"
    assert one(RegexGrader(pattern=r"\d{4}-\d\d"), "In May.").status == "wrong"
    within = RegexGrader(pattern=r"(?i)\A\W*{reference}\b.{0,3}\Z")
    assert [one(within, r, "1+1").status for r in ("1+1.", "11", "so 1+1")] == ["correct", "wrong", "wrong"]
    assert [one(RegexGrader(), r, "colou?r").status for r in ("color", "colr")] == ["correct", "wrong"]
    with pytest.raises(StageError, match="Row r7 has no reference"):
        one(RegexGrader(), "x")
    with pytest.raises(StageError, match=r"reference of row r7 is no regular expression \(missing \)"):
        one(RegexGrader(), "x", "(")


def test_a_bad_pattern_is_one_sentence_of_the_recipe() -> None:
    with pytest.raises(
        InputError, match=r"questions\.grader: regex\.pattern is not a regular expression \(missing"
    ) as e:
        load("quickstart", ["evaluate.suites.questions.grader={kind: regex, pattern: '('}"])
    assert len(str(e.value).splitlines()) == 1


def test_backtracking_ends_after_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns.search, "__defaults__", (0.2,))
    monkeypatch.setattr(patterns.findall, "__defaults__", (0.2,))
    began = time.monotonic()
    grade = one(RegexGrader(pattern=CATASTROPHE), VICTIM)
    assert (grade.score, grade.status) == (None, "ungraded") and "took longer" in grade.detail
    judge = JudgeGrader(base_url="http://localhost:1/v1", model="j", pattern=CATASTROPHE)
    assert judge.parse(VICTIM).status == "ungraded" and "took longer" in judge.parse(VICTIM).detail
    for schema in (
        {"pattern": CATASTROPHE},
        {"patternProperties": {CATASTROPHE: False}},
        {"patternProperties": {CATASTROPHE: {}}, "additionalProperties": False},
    ):
        said = json.dumps(VICTIM if "pattern" in schema else {VICTIM: 1})
        assert one(JsonSchemaGrader(inline=schema), said).status == "ungraded"
    assert time.monotonic() - began < 60, "without a deadline it would take years"


def test_a_search_for_many_matches_ends_too() -> None:
    with pytest.raises(TimeoutError):
        patterns.findall(r"(?:x|xx)+[yz]|b", ("x" * 22 + "!b") * 200, 0.2)


def test_one_json_value_alone_or_in_a_fence() -> None:
    grader, ada = JsonSchemaGrader(inline=PERSON), '{"name": "Ada", "age": 36}'
    fenced = f"Here it is:\n\n```json\n{ada}\n```\nAnything else?"
    assert [one(grader, r).status for r in (ada, f" \n{ada}\n", fenced, f"```\n{ada}\n```")] == ["correct"] * 4
    for wrong, why in (('{"name": "ada"}', "$.name"), ('{"age": 3}', "'name' is a required"), ("[1]", "object"),
                       ('{"name": "A", "x": 1}', "'x' may not be there"), ('{"name": "A", "age": -1}', "$.age")):  # fmt: skip
        grade = one(grader, wrong)
        assert grade.status == "wrong" and why in grade.detail
    several = f"{fenced}\n{fenced}"
    deep = "[" * 100_000 + "]" * 100_000
    bad = ["", "Ada", ada[:-1], f"{ada} {ada}", f"It is {ada}", several, '{"name": NaN}', '{"name":"A","name":"B"}', deep,
           "[" * 200 + "]" * 200]  # fmt: skip
    assert [one(grader, r).status for r in bad] == ["unreadable"] * len(bad)


def test_the_schema_is_a_file_or_inline_or_the_reference(tmp_path: Path) -> None:
    file = tmp_path / "person.json"
    file.write_text(json.dumps(PERSON), encoding="utf-8")
    assert one(JsonSchemaGrader(file=file), '{"name": "Ada"}').status == "correct"
    assert one(JsonSchemaGrader(), "3", '{"type": "integer"}').status == "correct"
    assert one(JsonSchemaGrader(), '"3"', '{"type": "integer"}').status == "wrong"
    local = {"$defs": {"n": {"type": "integer"}}, "items": {"$ref": "#/$defs/n"}}
    assert [one(JsonSchemaGrader(inline=local), r).status for r in ("[1]", '["1"]')] == ["correct", "wrong"]
    patterned = {"patternProperties": {"^n_": {"type": "integer"}}, "additionalProperties": {"type": "string"}}
    grades = [
        one(JsonSchemaGrader(inline=patterned), r).status for r in ('{"n_a": 1, "b": "c"}', '{"n_a": "1"}', '{"b": 1}')
    ]
    assert grades == ["correct", "wrong", "wrong"]
    with pytest.raises(StageError, match="Row r7 has no reference"):
        one(JsonSchemaGrader(), "3")
    with pytest.raises(StageError, match="reference of row r7 is no JSON Schema"):
        one(JsonSchemaGrader(), "3", '{"type": "whole"}')
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text('{"type": "integer"}', encoding="utf-8")
    with pytest.raises(ValidationError, match="cannot be applied"):  # nothing is fetched
        JsonSchemaGrader(inline={"$ref": elsewhere.as_uri()})
    with pytest.raises(ValidationError, match="file or inline, not both"):
        JsonSchemaGrader(file=file, inline={})
    file.write_text('{"type": 3}')
    recipe = load("quickstart", [f"evaluate.suites.questions.grader={{kind: json_schema, file: {file}}}"])
    with pytest.raises(InputError, match=r"questions\.grader\.file: .*person\.json is no JSON Schema"):
        check(recipe)


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "whole"}, "is no JSON Schema"),
        ({"pattern": "("}, "is no JSON Schema"),
        ({"$ref": "#"}, "refers to itself"),
        ({"$ref": "http://127.0.0.1:9/x.json"}, "cannot be applied"),
        ({"unevaluatedProperties": False, "patternProperties": {"a": True}}, "bounded time"),
    ],
)
def test_a_schema_that_cannot_work_is_refused(schema: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=f"inline .*{why}"):
        JsonSchemaGrader(inline=schema)
