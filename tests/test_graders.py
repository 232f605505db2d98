"""Graders: what is correct, wrong, ungraded or an error."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter, ValidationError

from align.errors import InputError, StageError
from align.grading.grade import Item, item_of
from align.grading.graders import AnyGrader, ExactGrader, NoGrader, NumberGrader, PythonGrader, final_number, grade_all
from align.grading.judge import JudgeGrader, fill
from align.grading.sandbox import Limits
from align.grading.sql import SqlGrader, extract


def test_the_union_is_chosen_by_kind(tmp_path: Path) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(AnyGrader)
    assert isinstance(adapter.validate_python({"kind": "sql", "warehouse": str(tmp_path)}), SqlGrader)
    assert isinstance(adapter.validate_python({"kind": "none"}), NoGrader)
    with pytest.raises(ValidationError, match="Extra inputs"):
        adapter.validate_python({"kind": "exact", "warehouse": "x"})


@pytest.mark.parametrize("kind", ["reward", "reward_model", "select"])
def test_a_reward_model_cannot_be_a_grader(kind: str) -> None:
    with pytest.raises(ValidationError, match="does not match any of the expected tags"):
        TypeAdapter(AnyGrader).validate_python({"kind": kind})


# SQL


@pytest.fixture(scope="module")
def sql(tmp_path_factory: pytest.TempPathFactory) -> SqlGrader:
    folder = tmp_path_factory.mktemp("warehouse")
    table = {
        "city": ["Seoul", "Seoul", "Busan", None, "Jeju"],
        "amount": [10, 20, 30, 40, None],
        "price": [0.1, 0.2, 0.3, 0.6, 1.5],
    }
    pq.write_table(pa.table(table), folder / "orders.parquet")
    return SqlGrader(warehouse=folder, limits=Limits(seconds=0.4, deadline=60, rows=100))


CASES = [
    # the same
    ("SELECT sum(amount) FROM orders", "select SUM(amount) as total from orders;", "correct"),
    ("SELECT city FROM orders", "SELECT city FROM orders ORDER BY amount DESC", "correct"),
    ("SELECT city, amount FROM orders", "SELECT city, amount + 0.0 FROM orders", "correct"),
    ("SELECT 0.3::DOUBLE", "SELECT sum(price) FROM orders WHERE price < 0.25", "correct"),
    ("SELECT avg(amount) FROM orders", "SELECT 25", "correct"),
    ("SELECT NULL", "SELECT max(amount) FROM orders WHERE false", "correct"),
    ("SELECT 'Jeju'", "```sql\nSELECT city FROM orders WHERE amount IS NULL;\n```", "correct"),
    ("SELECT city FROM orders WHERE false", "SELECT 1 WHERE false", "correct"),
    ("SELECT 'nan'::DOUBLE", "SELECT 'nan'::FLOAT", "correct"),
    ("SELECT 1e300", "SELECT 1e300 * (1 + 1e-9)", "correct"),
    ("SELECT DATE '2024-01-01'", "SELECT date_trunc('month', TIMESTAMP '2024-01-09 10:00:00')", "correct"),
    # order
    ("SELECT amount FROM orders ORDER BY amount", "SELECT amount FROM orders ORDER BY amount DESC", "another order"),
    ("SELECT amount FROM orders ORDER BY amount", "SELECT amount FROM orders ORDER BY 1 ASC", "correct"),
    ("SELECT price FROM orders ORDER BY 1", "SELECT price + 1e-12 FROM orders ORDER BY 1", "correct"),
    ("SELECT amount FROM orders ORDER BY amount", "SELECT id + 1 FROM range(5) t(id) ORDER BY 1", "other rows"),
    # not the same
    ("SELECT city FROM orders", "SELECT DISTINCT city FROM orders", "4 rows instead of 5"),
    ("SELECT city FROM orders WHERE city = 'Seoul'", "SELECT 'Seoul' UNION ALL SELECT 'Busan'", "other rows"),
    ("SELECT x FROM (VALUES (1), (1), (2)) t(x)", "SELECT x FROM (VALUES (1), (2), (2)) t(x)", "other rows"),
    ("SELECT city FROM orders", "SELECT city, amount FROM orders", "2 columns instead of 1"),
    ("SELECT city, amount FROM orders", "SELECT amount, city FROM orders", "other rows"),
    ("SELECT NULL", "SELECT 0", "other rows"),
    ("SELECT NULL", "SELECT ''", "other rows"),
    ("SELECT 1", "SELECT true", "other rows"),
    ("SELECT 1", "SELECT '1'", "other rows"),
    ("SELECT 0.3::DOUBLE", "SELECT 0.30001::DOUBLE", "other rows"),
    ("SELECT 0", "SELECT 'nan'::DOUBLE", "other rows"),
    ("SELECT 1e308", "SELECT 'inf'::DOUBLE", "other rows"),
    # does not run
    ("SELECT 1", "", "refused"),
    ("SELECT 1", "I cannot answer that.", "error: Parser Error"),
    ("SELECT 1", "SELECT cty FROM orders", "error: Binder Error"),
    ("SELECT 1", "DROP TABLE orders", "refused"),
    ("SELECT 1", "SELECT count(*) FROM range(1000000000000) t(i) WHERE i % 2 = 3", "timeout: more than 0.4 s of CPU"),
    ("SELECT 1", "SELECT 1 FROM range(101)", "too_large: more than 100 rows"),
]  # fmt: skip


def test_sql_execution_decides(sql: SqlGrader) -> None:
    items = [Item(f"row{i}", "?", response, reference) for i, (reference, response, _) in enumerate(CASES)]
    for (reference, response, expected), grade in zip(CASES, grade_all(sql, items), strict=True):
        assert expected in (grade.status, grade.detail) or expected in grade.detail, (reference, response, grade)
        assert (grade.score, grade.status) in ((1.0, "correct"), (0.0, "wrong"))
        assert grade.detail or grade.status == "correct"


def test_near_equal_floats_match_whatever_their_order(sql: SqlGrader) -> None:
    """Sorting by value would pair 0.1 + 0.2 and 0.3 wrongly."""
    reference = "SELECT * FROM (VALUES (0.3::DOUBLE, 5), (0.1::DOUBLE + 0.2::DOUBLE, 4)) t(a, b)"
    same = "SELECT * FROM (VALUES (0.1::DOUBLE + 0.2::DOUBLE, 5), (0.3::DOUBLE, 4)) t(a, b)"
    other = "SELECT * FROM (VALUES (0.3::DOUBLE, 5), (0.3::DOUBLE, 5)) t(a, b)"
    grades = grade_all(sql, [Item("a", "", same, reference), Item("b", "", other, reference)])
    assert [g.status for g in grades] == ["correct", "wrong"]


@pytest.mark.parametrize("reference", ["SELECT nothing FROM orders", "DROP TABLE orders", "SELECT 1 FROM range(101)"])
def test_a_reference_that_does_not_run_names_its_row(sql: SqlGrader, reference: str) -> None:
    items = [Item("good", "", "SELECT 1", "SELECT 1"), Item("bad7", "", "SELECT 1", reference)]
    with pytest.raises(StageError, match="reference SQL of row bad7 does not run"):
        grade_all(sql, items)


@pytest.mark.parametrize("reference", [None, "", " "])
def test_a_missing_reference_names_its_row(sql: SqlGrader, reference: str | None) -> None:
    with pytest.raises(StageError, match="row bad7 has no reference|Row bad7 has no reference"):
        grade_all(sql, [Item("bad7", "", "SELECT 1", reference)])


def test_a_missing_warehouse_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such warehouse"):
        grade_all(SqlGrader(warehouse=tmp_path / "none"), [Item("a", "", "SELECT 1", "SELECT 1")])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("SELECT 1", "SELECT 1"),
        ("Here it is:\n```sql\nSELECT 1\n```\nDone.", "SELECT 1"),
        ("```\nSELECT 1\n```", "SELECT 1"),
        ("```SQL\nSELECT 1", "SELECT 1"),
        ("```sql\nSELECT 1\n```\n```sql\nSELECT 2\n```", "SELECT 1"),
    ],
)
def test_sql_is_found_in_fences(text: str, found: str) -> None:
    assert extract(text) == found


# numbers


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("6 eggs at 3\n#### 18", "18"), ("#### 1,234.50", "1234.50"), ("#### $-5", "-5"), ("#### -$5", "-5"),
        ("so 5 + 3 = 8", "8"), ("It is 18.", "18"), ("#### 5 + 3 = 8\n9 more", "8"), ("#### .5", ".5"),
        ("#### 1 #### 2", "2"), ("3 #### none", None), ("no digits", None), ("", None), ("####", None), ("...", None),
    ],
)  # fmt: skip
def test_final_number(text: str, number: str | None) -> None:
    found = final_number(text)
    assert (found is None) == (number is None)
    assert number is None or float(found or 0) == float(number)


def test_numbers_are_compared_and_none_is_ungraded() -> None:
    reference = "work\n#### 1,200"
    responses = ["#### 1200", "the answer is 1200.0", "#### 1201", "I do not know"]
    grades = grade_all(NumberGrader(), [Item("r", "", r, reference) for r in responses])
    assert [(g.score, g.status) for g in grades] == [(1, "correct"), (1, "correct"), (0, "wrong"), (None, "ungraded")]
    with pytest.raises(StageError, match="reference of row q9 holds no number"):
        grade_all(NumberGrader(), [Item("q9", "", "1", "none")])


def test_gsm8k_references_have_numbers() -> None:
    file = Path(__file__).parents[2] / "shared/data/gsm8k/test.jsonl"
    if not file.exists():
        pytest.skip("no GSM8K here")
    rows = [json.loads(line) for line in file.open(encoding="utf-8")]
    items = [Item(str(i), r["question"], r["answer"], r["answer"]) for i, r in enumerate(rows)]
    assert {g.status for g in grade_all(NumberGrader(), items)} == {"correct"}


def test_exact_ignores_case_and_punctuation() -> None:
    responses = ["The answer: YES!", "the answer is yes"]
    grades = grade_all(ExactGrader(), [Item("r", "", r, "the answer — yes") for r in responses])
    assert [g.status for g in grades] == ["correct", "wrong"]
    with pytest.raises(StageError, match="Row r has no reference"):
        grade_all(ExactGrader(), [Item("r", "", "x")])


def test_none_grades_nothing() -> None:
    (grade,) = grade_all(NoGrader(), [Item("r", "", "x", "x")])
    assert (grade.score, grade.status) == (None, "ungraded")


# a function of the user


def length(prompt: str, response: str, reference: str | None, meta: dict[str, Any]) -> float | None:
    if response == "raise":
        raise RuntimeError("boom")
    return {"none": None, "much": 7, "word": "good", "nan": float("nan")}.get(response, min(1, len(response) / 10))  # type: ignore[return-value]


PYTHON = PythonGrader(function=f"{__name__}:length")


def test_python_scores_become_grades() -> None:
    grades = grade_all(PYTHON, [Item("r", "", r) for r in ("x" * 20, "xx", "none")])
    assert [(g.score, g.status) for g in grades] == [(1, "correct"), (0.2, "wrong"), (None, "ungraded")]


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("raise", "raised RuntimeError for row r13: boom"),
        ("much", "gave 7 for row r13"),
        ("word", "gave 'good' for row r13"),
        ("nan", "gave nan for row r13"),
    ],
)
def test_a_python_grader_that_fails_names_the_row(response: str, reason: str) -> None:
    with pytest.raises(StageError, match=reason):
        grade_all(PYTHON, [Item("r12", "", "x"), Item("r13", "", response)])


def test_a_python_grader_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def grade(prompt, response, reference, meta):\n    return meta['want'] == response\n")
    grader = PythonGrader(function="grade", file=file)
    items = [Item("a", "", "x", None, {"want": "x"}), Item("b", "", "x", None, {"want": "y"})]
    assert [g.status for g in grade_all(grader, items)] == ["correct", "wrong"]
    file.write_text("syntax error here")
    with pytest.raises(InputError, match="cannot be imported: SyntaxError"):
        grade_all(grader, items)


@pytest.mark.parametrize("function", ["nowhere.at.all:f", f"{__name__}:nothing"])
def test_a_python_grader_that_is_not_there(function: str) -> None:
    with pytest.raises(InputError, match="cannot be imported"):
        grade_all(PythonGrader(function=function), [])
    with pytest.raises(ValidationError, match="package.module:function"):
        PythonGrader(function="bare")


def test_whatever_a_grader_raises_names_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NoGrader, "grade", lambda self, items: 1 / 0)
    with pytest.raises(StageError, match="none raised ZeroDivisionError for row r1 and 1 others"):
        grade_all(NoGrader(), [Item("r1", "", "x"), Item("r2", "", "x")])


def test_equal_responses_to_a_row_are_graded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Item] = []
    original = ExactGrader.grade

    def grade(self: ExactGrader, items: list[Item]) -> list[Any]:
        seen.extend(items)
        return original(self, items)

    monkeypatch.setattr(ExactGrader, "grade", grade)
    items = [Item("a", "", "x", "x"), Item("b", "", "x", "y"), Item("a", "", "x", "x"), Item("a", "", "z", "x")]
    assert [g.status for g in grade_all(ExactGrader(), items)] == ["correct", "wrong", "correct", "wrong"]
    assert len(seen) == 3


def test_items_come_from_rows() -> None:
    row = {"row_id": "r", "prompt": "p", "reference": None, "response": "because", "meta": '{"a": 1}'}
    assert item_of(row, "x") == Item("r", "p", "x", "because", {"a": 1})
    assert item_of(row | {"reference": "ref", "meta": None}, "x").reference == "ref"
    for meta in ("{", "[1]"):
        with pytest.raises(StageError, match="meta column of row r"):
            item_of(row | {"meta": meta}, "x")


# a judge behind a real HTTP server


class Judge(BaseHTTPRequestHandler):
    """Rates by what the response says; `failures` counts down errors, `most` records how many asked at once."""

    failures: dict[str, int] = {}
    seen: list[dict[str, Any]] = []
    active = most = 0
    lock = threading.Lock()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][0]["content"]
        with Judge.lock:
            Judge.seen.append({**body, "path": self.path, "key": self.headers.get("Authorization")})
            Judge.active += 1
            Judge.most = max(Judge.most, Judge.active)
            failing = next((k for k in Judge.failures if k in text and Judge.failures[k] > 0), None)
            if failing:
                Judge.failures[failing] -= 1
        threading.Event().wait(0.05)
        with Judge.lock:
            Judge.active -= 1
        if failing:
            return self.reply(400 if failing == "bad" else 503, {"error": {"message": f"{failing} thing"}})
        answer = {"great": "Fine.\nRating: [[10]]", "middling": "Was [[1]]. Rating: [[5.5]]", "odd": "Rating: [[99]]"}
        said = next((v for k, v in answer.items() if k in text), "I would rather not say.")
        message = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
        return self.reply(
            200, {"id": "1", "object": "chat.completion", "created": 0, "model": "j", "choices": [message]}
        )

    def reply(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def judge() -> Iterator[JudgeGrader]:
    Judge.failures, Judge.seen, Judge.most = {}, [], 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield JudgeGrader(base_url=f"http://127.0.0.1:{server.server_port}/v1", model="j", concurrency=3, attempts=3)
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_judge_rates_and_what_it_does_not_rate_is_ungraded(
    judge: JudgeGrader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    responses = ["great", "middling", "odd", "mute"]
    grades = grade_all(judge, [Item(str(i), "Why?", r, "Because.") for i, r in enumerate(responses)])
    assert [(g.score, g.status) for g in grades] == [
        (1, "correct"), (0.5, "correct"), (None, "ungraded"), (None, "ungraded")]  # fmt: skip
    assert "outside" in grades[2].detail and "no rating" in grades[3].detail
    asked = Judge.seen[0]
    assert (asked["path"], asked["key"], asked["temperature"]) == ("/v1/chat/completions", "Bearer k", 0)
    assert "Why?" in asked["messages"][0]["content"] and "Because." in asked["messages"][0]["content"]


def test_a_judge_is_asked_a_few_at_a_time(judge: JudgeGrader) -> None:
    grade_all(judge, [Item(str(i), "?", "great") for i in range(12)])
    assert len(Judge.seen) == 12 and 1 < Judge.most <= 3


def test_passing_failures_are_retried(judge: JudgeGrader) -> None:
    Judge.failures = {"great": 2}
    assert [g.score for g in grade_all(judge, [Item("r", "?", "great")])] == [1]
    assert len(Judge.seen) == 3


def test_a_judge_that_keeps_failing_names_the_row(judge: JudgeGrader) -> None:
    Judge.failures = {"great": 99}
    with pytest.raises(StageError, match="failed for row r5.*great thing"):
        grade_all(judge, [Item("r5", "?", "great")])
    assert len(Judge.seen) == 3


def test_a_refused_request_is_not_retried(judge: JudgeGrader) -> None:
    Judge.failures = {"bad": 99}
    with pytest.raises(StageError, match="failed for row r5.*bad thing"):
        grade_all(judge, [Item("r5", "?", "bad")])
    assert len(Judge.seen) == 1


def test_no_server_is_an_error() -> None:
    grader = JudgeGrader(base_url="http://127.0.0.1:9/v1", model="j", attempts=1)
    with pytest.raises(StageError, match="The judge j at http://127.0.0.1:9/v1 failed for row r"):
        grade_all(grader, [Item("r", "?", "x")])


def test_what_is_filled_in_is_not_a_template() -> None:
    item = Item("r", "say {response}", "{reference} {0} {", "secret")
    assert fill("{prompt}|{response}|{{x}}", item) == "say {response}|{reference} {0} {|{{x}}"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"lowest": 5, "highest": 5}, "below"), ({"template": "hi"}, "response"), ({"pattern": r"\d+"}, "group")],
)
def test_a_judge_that_cannot_work_is_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        JudgeGrader(base_url="http://x", model="j", **settings)
