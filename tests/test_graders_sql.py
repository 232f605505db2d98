"""The SQL grader: which results are the same, which are not, and what does not run."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from align.errors import InputError, StageError
from align.grading.grade import Item
from align.grading.graders import grade_all
from align.grading.sandbox import Limits
from align.grading.sql import SqlGrader, extract


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
    ("SELECT 1", "", "0 statements"),
    ("SELECT 1", "I cannot answer that.", "Parser Error"),
    ("SELECT 1", "SELECT cty FROM orders", "error: Binder Error"),
    ("SELECT 1", "DROP TABLE orders", "refused"),
    ("SELECT 1", "SELECT count(*) FROM range(1000000000000) t(i) WHERE i % 2 = 3", "timeout: more than 0.4 s of CPU"),
    ("SELECT 1", "SELECT 1 FROM range(101)", "too_large: more than 100 rows"),
]  # fmt: skip


def test_sql_execution_decides(sql: SqlGrader) -> None:
    items = [Item(f"row{i}", "?", response, reference) for i, (reference, response, _) in enumerate(CASES)]
    for (reference, response, expected), grade in zip(CASES, grade_all(sql, items), strict=True):
        assert expected in (grade.status, grade.detail) or expected in grade.detail, (reference, response, grade)
        assert (grade.score, grade.status) in ((1.0, "correct"), (0.0, "wrong"), (0.0, "unreadable"))
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
