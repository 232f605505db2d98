"""Real questions through graders and pairing: GSM8K, IFEval and Spider, each read by ingest.

What is expected is computed here from the files themselves, by other means than the pipeline's.
"""

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pools import dropped
from real import SHARED, Row, paired, rows_of

from align.errors import StageError
from align.grading.grade import item_of
from align.grading.graders import NumberGrader, grade_all
from align.grading.ifeval import IfevalGrader
from align.grading.sql import SqlGrader
from align.rules.parses import Parses

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not here")


def final(solution: str) -> float:
    """The answer of a GSM8K solution."""
    return float(solution.rsplit("####", 1)[1].replace(",", ""))


def test_gsm8k_solutions_are_graded_and_paired(tmp_path: Path) -> None:
    """Every question with its own solution, those of the next two, and words: right is who ends in the same number."""
    rows = rows_of(tmp_path, "gsm8k/test.jsonl", "prompts")
    lines = (SHARED / "gsm8k/test.jsonl").read_text(encoding="utf-8").splitlines()
    answers = {q["question"]: q["answer"] for q in map(json.loads, lines)}
    assert len(rows) == 1319 and all(r["reference"] == answers[r["prompt"]] for r in rows)
    solutions = [r["reference"] for r in rows]
    responses: dict[str, list[str]] = {}
    expected: dict[str, str] = {}
    for at, r in enumerate(rows):
        texts = [solutions[(at + k) % len(rows)] for k in range(3)]
        responses[r["row_id"]] = [*texts, "It depends."]
        right = ["correct" if final(t) == final(texts[0]) else "wrong" for t in texts]
        expected |= {f"{r['row_id']}-{k}": s for k, s in enumerate([*right, "unreadable"])}
    made, scores, metrics = paired(tmp_path, responses, grader=NumberGrader())
    assert {s["sample_id"]: s["status"] for s in scores} == expected
    counts = Counter(expected.values())
    assert 10 < counts["correct"] - len(rows) < 100, "some neighbours end in the same number"
    assert {s: metrics[s] for s in counts} == counts and metrics["ungraded"] == 0
    assert len(made) == metrics["prompts.paired"] == len(rows)
    assert all(expected[p["chosen_id"]] == "correct" and expected[p["rejected_id"]] != "correct" for p in made)
    assert all(final(p["chosen"]) == final(answers[p["messages"][0]["content"]]) for p in made)


GIVEN = "it is a fine day and the sun is up"
OBEY: dict[str, tuple[Callable[[Row, str], str], Callable[[Row, str], str]]] = {
    # instruction: a response that follows it and one that does not, of its arguments and the prompt
    "punctuation:no_comma": (lambda k, p: GIVEN, lambda k, p: GIVEN + ", they say"),
    "change_case:english_lowercase": (lambda k, p: GIVEN, lambda k, p: GIVEN.capitalize()),
    "change_case:english_capital": (lambda k, p: GIVEN.upper(), lambda k, p: GIVEN.capitalize()),
    "startend:quotation": (lambda k, p: f'"{GIVEN}"', lambda k, p: f'"{GIVEN}'),
    "startend:end_checker": (lambda k, p: f"{GIVEN} {k['end_phrase']}", lambda k, p: f"{k['end_phrase']} {GIVEN}"),
    "combination:repeat_prompt": (lambda k, p: f"{k['prompt_to_repeat']} {GIVEN}", lambda k, p: GIVEN),
    "combination:two_responses": (lambda k, p: f"{GIVEN}\n******\nno", lambda k, p: f"{GIVEN}\n*****\nno"),
    "detectable_format:title": (lambda k, p: f"<<A title>>\n{GIVEN}", lambda k, p: f"# A title\n{GIVEN}"),
    "detectable_format:json_format": (lambda k, p: json.dumps({"a": GIVEN}), lambda k, p: f"{{a: {GIVEN}}}"),
    "detectable_format:constrained_response": (lambda k, p: "My answer is yes.", lambda k, p: "Yes."),
    "keywords:forbidden_words": (lambda k, p: "zzz", lambda k, p: f"{GIVEN} {k['forbidden_words'][-1]}"),
    "keywords:existence": (lambda k, p: " ".join(k["keywords"]), lambda k, p: " ".join(k["keywords"][1:]) + " zzz"),
    "detectable_content:postscript": (
        lambda k, p: f"{GIVEN}\n{k['postscript_marker']} bye", lambda k, p: f"{GIVEN}\nbye"),
    "detectable_content:number_placeholders": (
        lambda k, p: "[x] " * k["num_placeholders"], lambda k, p: "[x] " * (k["num_placeholders"] - 1) + GIVEN),
    "detectable_format:number_bullet_lists": (
        lambda k, p: "* x\n" * k["num_bullets"], lambda k, p: "* x\n" * (k["num_bullets"] + 1)),
}  # fmt: skip


def test_ifeval_instructions_are_graded_and_paired(tmp_path: Path) -> None:
    """Every real prompt with a single one of 15 instructions: the response that follows it is chosen."""
    rows = rows_of(tmp_path, "ifeval/input_data.jsonl", "prompts")
    lines = (SHARED / "ifeval/input_data.jsonl").read_text(encoding="utf-8").splitlines()
    single = {q["prompt"]: q for q in map(json.loads, lines) if len(q["instruction_id_list"]) == 1}
    responses = {}
    for r in rows:
        asked = single.get(r["prompt"], {"instruction_id_list": [""]})
        if (name := asked["instruction_id_list"][0]) in OBEY:
            responses[r["row_id"]] = [write(asked["kwargs"][0], r["prompt"]) for write in OBEY[name]]
    assert len(rows) == 541 and len(responses) > 180
    made, scores, metrics = paired(tmp_path, responses, grader=IfevalGrader())
    assert {(s["sample_id"][-1], s["status"]) for s in scores} == {("0", "correct"), ("1", "wrong")}
    assert metrics["pairs"] == len(responses) and all(p["chosen_id"].endswith("-0") for p in made)


def test_ifeval_prompts_of_several_instructions_need_all_of_them(tmp_path: Path) -> None:
    """One response to all 541, and its share of instructions; a prompt is correct where the share is 1."""
    rows = rows_of(tmp_path, "ifeval/input_data.jsonl", "evaluation")
    items = [item_of(r, GIVEN) for r in rows]
    whole, share = (grade_all(IfevalGrader(level=level), items) for level in ("prompt", "instruction"))
    assert [g.status == "correct" for g in whole] == [s.score == 1 for s in share]
    assert {g.status for g in whole} == {"correct", "wrong"} and any(0 < (s.score or 0) < 1 for s in share)
    only = [i for i, r in enumerate(rows) if json.loads(r["meta"])["instruction_id_list"] == ["punctuation:no_comma"]]
    assert len(only) == 16 and all(whole[i].status == "correct" for i in only)


def test_a_number_is_right_only_where_it_is_the_answer(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, "gsm8k/test.jsonl", "evaluation", limit=400)
    grades = grade_all(NumberGrader(), [item_of(r, "#### 18") for r in rows])
    right = [final(r["reference"]) == 18 for r in rows]
    assert [g.status == "correct" for g in grades] == right and 0 < sum(right) < 40


DB = "concert_singer"
YEARS = ("2013", "2014", "2015")


def warehouse(folder: Path) -> Path:
    """The tables of a Spider database by its schema, with rows that tell most queries apart."""
    folder.mkdir()
    (schema,) = (s for s in json.loads((SHARED / "spider/tables.json").read_text()) if s["db_id"] == DB)
    columns = list(zip(schema["column_names_original"], schema["column_types"], strict=True))[1:]
    for at, name in enumerate(schema["table_names_original"]):
        table: dict[str, list[Any]] = {}
        for (_, column), kind in (c for c in columns if c[0][0] == at):
            lower = column.lower()
            if "year" in lower:
                table[column] = [YEARS[i % 3] for i in range(9)]
            elif lower.endswith("_id"):
                table[column] = [i % (9 if at < 3 and lower.startswith(name[:4]) else 5) + 1 for i in range(9)]
            elif kind == "number":
                table[column] = [17 + 7 * i + len(lower) for i in range(9)]
            else:
                table[column] = ["France" if lower == "country" and i % 2 else f"{lower} {i} Hey" for i in range(9)]
        pq.write_table(pa.table(table), folder / f"{name}.parquet")
    return folder


def outcome(con: duckdb.DuckDBPyConnection, sql: str) -> Any:
    """What a query returns, in order where it orders; None where DuckDB does not run it."""
    try:
        found = con.execute(sql).fetchall()
    except duckdb.Error:
        return None
    return found if re.search(r"order by", sql, re.I) else sorted(map(repr, found))


@pytest.fixture
def spider(tmp_path: Path) -> tuple[Path, list[Row], dict[str, Any]]:
    """A warehouse, the questions on it whose SQL runs, and what each SQL returns."""
    file = tmp_path / "questions.json"
    asked = [q for q in json.loads((SHARED / "spider/dev.json").read_text()) if q["db_id"] == DB]
    file.write_text(json.dumps([{k: q[k] for k in ("db_id", "question", "query")} for q in asked]))
    rows = rows_of(tmp_path, str(file), "prompts")
    assert len(rows) == len(asked) == 45 and {r["reference"] for r in rows} == {q["query"] for q in asked}
    folder = warehouse(tmp_path / "warehouse")
    with duckdb.connect() as con:
        for path in folder.glob("*.parquet"):
            con.execute(f"CREATE TABLE {path.stem} AS FROM '{path}'")
        returned = {r["reference"]: outcome(con, r["reference"]) for r in rows}
    return folder, [r for r in rows if returned[r["reference"]] is not None], returned


def test_spider_queries_are_graded_by_what_they_return(spider: Any, tmp_path: Path) -> None:
    """Each question with its own SQL, that of another question, SQL that names no column, words, and, where it counts,
    one more than its own SQL: a result of the same form."""
    folder, rows, returned = spider
    assert len(rows) >= 30, "most of the real SQL is DuckDB's too"
    responses: dict[str, list[str]] = {}
    expected: dict[str, str] = {}
    for at, r in enumerate(rows):
        own, other = r["reference"], rows[(at + 2) % len(rows)]["reference"]
        responses[r["row_id"]] = [f"```sql\n{own};\n```", other, "SELECT shoe_size FROM singer", "Ask somebody else."]
        if re.fullmatch(r"select count\(\*\) from \w+.*", own, re.I):
            responses[r["row_id"]].append(f"SELECT ({own}) + 1")
            expected[f"{r['row_id']}-4"] = "wrong"
        same = (re.search("order by", own, re.I) is None) == (re.search("order by", other, re.I) is None)
        if same and not re.search("limit", own + other, re.I):
            expected[f"{r['row_id']}-1"] = "correct" if returned[own] == returned[other] else "wrong"
        expected |= {f"{r['row_id']}-0": "correct", f"{r['row_id']}-2": "wrong", f"{r['row_id']}-3": "unreadable"}
    made, scores, _ = paired(tmp_path, responses, grader=SqlGrader(warehouse=folder))
    status = {s["sample_id"]: s["status"] for s in scores}
    assert {i: status[i] for i in expected} == expected
    others = Counter(s for i, s in expected.items() if i.endswith("-1"))
    assert others["wrong"] > 10 and sum(i.endswith("-4") for i in expected) >= 4
    assert len(made) == len(rows) and all(status[p["chosen_id"]] == "correct" for p in made)
    assert all(status[p["rejected_id"]] in ("wrong", "unreadable") for p in made)


def test_spider_queries_parse_and_questions_do_not(spider: Any) -> None:
    folder, rows, returned = spider
    asked = [(r["prompt"], r["reference"]) for r in rows] + [(r["prompt"], r["prompt"]) for r in rows]
    strange = [("?", sql) for sql, found in returned.items() if found is None]
    gone = dropped(Parses(warehouse=folder), *asked, *strange)
    assert strange and set(gone) == set(range(len(rows), 2 * len(rows) + len(strange)))
    assert all("Parser Error" in gone[i]["error"] for i in range(len(rows), 2 * len(rows)))
    assert all("Binder Error" in gone[i]["error"] for i in range(2 * len(rows), 2 * len(rows) + len(strange)))
    with pytest.raises(StageError, match="The reference SQL of row strange does not run"):
        grade_all(
            SqlGrader(warehouse=folder), [item_of({**rows[0], "row_id": "strange", "reference": strange[0][1]}, "")]
        )
