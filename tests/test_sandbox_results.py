"""What queries that may run give: plain values, whether they are in order, and soon."""

import time
from pathlib import Path

import psutil
import pytest

from align.grading.sandbox import Sandbox


@pytest.mark.parametrize(
    "sql",
    ["VALUES (1)", "FROM city", "TABLE city", "(SELECT 1)", "SELECT 1;", "/* why */ SELECT 1 -- so", "SUMMARIZE t",
     "DESCRIBE t", "WITH a AS (SELECT 1) FROM a", "SELECT 1 UNION SELECT 2", "SELECT * FROM generate_series(1, 5)"],
)  # fmt: skip
def test_read_only_queries_run(sandbox: Sandbox, sql: str) -> None:
    (result,) = sandbox.run([sql])
    assert result.status == "ok" and result.rows


def test_values_become_plain_ones(sandbox: Sandbox) -> None:
    (result,) = sandbox.run([
        "SELECT NULL, true, 1.50::DECIMAL(9, 2), 2::DECIMAL(9, 2), 'x', DATE '2024-01-02',"
        " TIMESTAMP '2024-01-02 00:00:00', TIMESTAMP '2024-01-02 03:04:05',"
        " TIMESTAMPTZ '2024-01-02 03:04:05+00', INTERVAL 1 DAY, 10::HUGEINT,"
        " [1.5, NULL], {'a': 1}, '\\xC3\\xA9'::BLOB, '00000000-0000-0000-0000-000000000001'::UUID, TIME '10:00'"
    ])  # fmt: skip
    assert result.rows == [[
        None, True, 1.5, 2, "x", "2024-01-02", "2024-01-02", "2024-01-02 03:04:05", "2024-01-02 03:04:05",
        "1 day, 0:00:00", 10, "[1.5, null]", '{"a": 1}', "c3a9", "00000000-0000-0000-0000-000000000001", "10:00:00",
    ]]  # fmt: skip


def test_every_type_can_be_returned(sandbox: Sandbox) -> None:
    (result,) = sandbox.run(["FROM test_all_types()"])
    assert result.status == "ok" and len(result.rows) == 3


@pytest.mark.parametrize(
    ("sql", "ordered"),
    [
        ("SELECT id FROM city ORDER BY id", True),
        ("SELECT id FROM city UNION SELECT 5 ORDER BY 1", True),
        ("WITH a AS (SELECT 1 x) SELECT * FROM a ORDER BY x LIMIT 1", True),
        ("FROM city ORDER BY ALL", True),
        ("SELECT id FROM city", False),
        ("SELECT * FROM (SELECT id FROM city ORDER BY id)", False),
        ("SELECT count(*) OVER (ORDER BY id) FROM city", False),
        ("SELECT string_agg(name, ',' ORDER BY id) FROM city", False),
    ],
)
def test_top_level_order_is_told(sandbox: Sandbox, sql: str, ordered: bool) -> None:
    (result,) = sandbox.run([sql], order=True)
    assert (result.status, result.ordered) == ("ok", ordered)


def test_it_is_fast(warehouse: Path) -> None:
    queries = [f"SELECT count(*) FROM city WHERE id > {i}" for i in range(1000)]
    with Sandbox(warehouse) as box:
        list(box.run(queries[:10]))
        assert box._child is not None
        child = psutil.Process(box._child.pid)
        before, own = child.cpu_times(), time.process_time()
        assert len(list(box.run(queries))) == 1000
        after = child.cpu_times()
    spent = after.user + after.system - before.user - before.system + time.process_time() - own
    assert spent / 1000 < 1e-2  # about 1 ms on an idle core, half of it DuckDB's own
