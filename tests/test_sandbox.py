"""Untrusted SQL: every hostile query gets a clear reason, and the next query meets an untouched warehouse."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import psutil
import pytest

from align.errors import InputError
from align.grading import sandbox_worker
from align.grading.sandbox import IN_FLIGHT_BYTES, Limits, Sandbox

LIMITS = Limits(seconds=0.8, deadline=60, memory_mb=128, rows=500, result_kb=256, query_chars=5000)
ROWS = 2000


def build(folder: Path) -> Path:
    folder.mkdir()
    duckdb.connect().execute(
        f"COPY (SELECT i AS id, 'name ' || i AS name, i % 7 AS grp FROM range({ROWS}) t(i)) TO '{folder}/t.parquet'"
    )
    (folder / "city.csv").write_text("id,name\n1,서울\n2,Busan\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("sandbox") / "warehouse")


@pytest.fixture(scope="module")
def sandbox(warehouse: Path) -> Iterator[Sandbox]:
    with Sandbox(warehouse, LIMITS) as box:
        yield box


HOSTILE = [
    # never ending, or too much
    ("WITH RECURSIVE r AS (SELECT 1 x UNION ALL SELECT x + 1 FROM r) SELECT count(*) FROM r", "timeout", "CPU"),
    ("SELECT count(*) FROM t a, t b, t c, t d WHERE a.id + b.id + c.id + d.id = 7", "timeout", "CPU"),
    ("SELECT count(*) FROM range(1000000000000) t(i) WHERE i % 2 = 3", "timeout", "CPU"),
    ("SELECT list(range) FROM range(1000000000000)", "memory", "128 MiB"),
    ("SELECT list(repeat('y', 1000)) FROM range(10000000)", "memory", "128 MiB"),
    ("SELECT repeat('x', 1000000000)", "memory", "128 MiB"),
    ("SELECT * FROM range(1000000000000)", "too_large", "500 rows"),
    ("SELECT id FROM t", "too_large", "500 rows"),
    ("SELECT repeat('x', 1000000)", "too_large", "256 KiB"),
    ("SELECT '" + "x" * 6000 + "'", "refused", "5000 characters"),
    ("SELECT '" + "x" * 2 * IN_FLIGHT_BYTES + "'", "refused", "5000 characters"),
    # files, network, environment, this process
    ("SELECT * FROM read_csv('/etc/passwd')", "error", "disabled"),
    ("SELECT * FROM read_text('/proc/self/environ')", "error", "disabled"),
    ("SELECT * FROM read_parquet('https://example.com/x.parquet')", "error", "disabled"),
    ("FROM '/etc/passwd'", "error", ""),
    ("FROM 'x.csv'", "error", ""),
    ("FROM '~/.bashrc'", "error", ""),
    ("SELECT * FROM glob('*')", "error", "disabled"),
    ("SELECT * FROM sniff_csv('/etc/passwd')", "error", "disabled"),
    ("FROM read_duckdb('/tmp/x.db')", "error", "disabled"),
    ("SELECT getenv('HOME')", "error", "does not exist"),
    ("FROM cursor", "error", "does not exist"),
    ("FROM sys", "error", "does not exist"),
    ("FROM pandas_scan(1)", "error", ""),
    ("FROM arrow_scan(1, 2, 3)", "error", ""),
    ("COPY t TO '/tmp/stolen.csv'", "refused", "COPY"),
    ("EXPORT DATABASE '/tmp/stolen'", "refused", ""),
    ("IMPORT DATABASE '/tmp'", "error", "disabled"),
    ("PRAGMA import_database('/tmp')", "error", "disabled"),
    ("ATTACH '/tmp/x.db'", "refused", "ATTACH"),
    ("INSTALL httpfs", "refused", "LOAD"),
    ("LOAD httpfs", "refused", "LOAD"),
    ("LOAD '/tmp/x.duckdb_extension'", "refused", "LOAD"),
    ("CREATE PERSISTENT SECRET s (TYPE S3, KEY_ID 'a', SECRET 'b')", "refused", ""),
    # settings
    ("SET memory_limit = '100GB'", "refused", "SET"),
    ("SET home_directory = '/'", "refused", "SET"),
    ("SET GLOBAL enable_external_access = true", "refused", "SET"),
    ("RESET lock_configuration", "refused", ""),
    ("PRAGMA memory_limit='100GB'", "refused", "SET"),
    ("PRAGMA enable_profiling", "refused", ""),
    ("SET VARIABLE a = 1", "refused", "SET"),
    ("FROM enable_logging()", "refused", "state of the engine"),
    # writing
    ("CREATE TABLE x AS SELECT 1", "refused", "CREATE"),
    ("CREATE TEMP TABLE t AS SELECT 1", "refused", "CREATE"),
    ("CREATE OR REPLACE TEMP VIEW city AS SELECT 1", "refused", "CREATE"),
    ("CREATE MACRO count(x) AS 1", "refused", "CREATE"),
    ("INSERT INTO t SELECT * FROM t RETURNING *", "refused", "INSERT"),
    ("UPDATE t SET grp = 1", "refused", "UPDATE"),
    ("DELETE FROM t", "refused", "DELETE"),
    ("DROP TABLE t", "refused", "DROP"),
    ("ALTER TABLE t RENAME TO u", "refused", "ALTER"),
    ("TRUNCATE t", "refused", ""),
    ("WITH x AS (DELETE FROM t RETURNING id) SELECT * FROM x", "error", ""),
    ("FROM query('DROP TABLE t')", "error", "single SELECT"),
    ("FROM json_execute_serialized_sql('{}')", "error", ""),
    # statements that are none, or more than one
    ("SELECT 1; DROP TABLE t", "refused", "2 statements"),
    ("COMMIT; DROP TABLE t; BEGIN", "refused", "3 statements"),
    ("ROLLBACK", "refused", "TRANSACTION"),
    ("PREPARE p AS SELECT 1", "refused", "PREPARE"),
    ("EXPLAIN ANALYZE SELECT 1", "refused", "EXPLAIN"),
    ("CALL pragma_version()", "refused", "CALL"),
    ("CHECKPOINT", "refused", ""),
    ("VACUUM", "refused", "VACUUM"),
    ("", "refused", "0 statements"),
    ("-- nothing", "refused", "0 statements"),
    ("SELECT", "error", "Parser"),
    ("SELECT 'a", "error", "Parser"),
    ("SELECT * FROM nowhere", "error", "does not exist"),
    ("SELECT $1", "error", ""),
    ("\x00SELECT 1", "refused", "0 statements"),
    ("SELECT '\ud800'", "error", ""),
    ("I do not know.", "error", "Parser"),
    ("SELECT 1" + "+1" * 2400, "error", "depth"),
]


@pytest.mark.parametrize(("sql", "status", "reason"), HOSTILE, ids=[ascii(sql[:50]) for sql, _, _ in HOSTILE])
def test_hostile_query_gets_a_reason_and_the_next_one_works(
    sandbox: Sandbox, sql: str, status: str, reason: str
) -> None:
    bad, after = sandbox.run([sql, "SELECT count(*), sum(grp) FROM t"])
    assert bad.status == status, bad
    assert reason in bad.detail
    assert bad.detail and len(bad.detail) <= 300 and "\n" not in bad.detail
    assert not bad.rows
    assert (after.status, after.rows) == ("ok", [[ROWS, sum(i % 7 for i in range(ROWS))]])


def test_all_hostile_queries_in_one_batch(sandbox: Sandbox) -> None:
    """Answers stay with their questions although many are in flight when the child dies."""
    mixed = [s for i, (sql, _, _) in enumerate(HOSTILE) for s in (sql, f"SELECT {i}")]
    results = list(sandbox.run(mixed))
    assert [r.rows for r in results[1::2]] == [[[i]] for i in range(len(HOSTILE))]
    assert [r.status for r in results[::2]] == [status for _, status, _ in HOSTILE]


def test_waiting_has_a_deadline(warehouse: Path) -> None:
    """A query that uses no CPU time is ended by the clock."""
    with Sandbox(warehouse, Limits(deadline=1)) as box:
        asleep, after = box.run(["SELECT sleep_ms(100000)", "SELECT 1"])
    assert (asleep.status, asleep.detail, after.rows) == ("timeout", "more than 1 s", [[1]])


def test_a_child_that_ignores_its_timers_is_killed(warehouse: Path) -> None:
    with Sandbox(warehouse, Limits(deadline=1)) as box:
        assert box._child is not None
        box._child.send_signal(signal.SIGSTOP)
        stopped, after = box.run(["SELECT 1", "SELECT 2"])
    assert (stopped.status, stopped.detail, after.rows) == ("timeout", "more than 1 s", [[2]])


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


def test_queries_cannot_leave_anything_behind(sandbox: Sandbox) -> None:
    """Random numbers repeat, and state of the connection does not last."""
    a, b = sandbox.run(["SELECT random(), uuid()"] * 2)
    assert a.rows == b.rows
    _, seeded = sandbox.run(["SELECT setseed(0.7)", "SELECT random(), uuid()"])
    assert seeded.rows == a.rows
    results = list(sandbox.run(["FROM enable_profiling()", "SELECT 1", "FROM enable_logging()", "SELECT 1"]))
    assert results[1].rows == results[3].rows == [[1]]
    (logs,) = sandbox.run(["SELECT count(*) FROM duckdb_logs"])
    assert logs.rows == [[0]]


def test_a_crash_of_the_engine_is_a_result(warehouse: Path) -> None:
    with Sandbox(warehouse, LIMITS) as box:
        assert box._child is not None
        results = box.run(["SELECT 1", "SELECT sleep_ms(2000)", "SELECT 3"])
        first = next(results)
        box._child.send_signal(signal.SIGSEGV)
        second, third = results
        assert (first.rows, third.rows) == ([[1]], [[3]])
        assert second.status == "crash" and "SIGSEGV" in second.detail


def test_answers_that_nobody_took_are_not_given_to_others(warehouse: Path) -> None:
    with Sandbox(warehouse, LIMITS) as box:
        abandoned = box.run(["SELECT 1", "SELECT 2", "SELECT 3"])
        assert next(abandoned).rows == [[1]]
        del abandoned
        assert [r.rows for r in box.run(["SELECT 4"])] == [[[4]]]


def test_the_child_gives_everything_up(sandbox: Sandbox) -> None:
    assert sandbox._child is not None
    child = psutil.Process(sandbox._child.pid)
    assert set(child.environ()) <= {"TZ", "LANG", "LC_CTYPE"}
    if hasattr(child, "rlimit"):
        for limit in (psutil.RLIMIT_NOFILE, psutil.RLIMIT_FSIZE, psutil.RLIMIT_NPROC, psutil.RLIMIT_CORE):
            assert child.rlimit(limit) == (0, 0)
        space = child.rlimit(psutil.RLIMIT_AS)[1]
        assert 0 < space - child.memory_info().vms <= 3 * LIMITS.memory_mb << 20


def test_settings_are_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    con = duckdb.connect(":memory:")
    monkeypatch.setitem(sandbox_worker.SETTINGS, "threads", "1")  # set, but read back as a number
    with pytest.raises(RuntimeError, match="setting threads is 1, not '1'"):
        sandbox_worker.lock(con, 64)


@pytest.mark.parametrize("memory_mb", [32, 1000, 1500, 5000])
def test_memory_limits_read_back_rounded(memory_mb: int) -> None:
    con = duckdb.connect(":memory:")
    sandbox_worker.lock(con, memory_mb)
    with pytest.raises(duckdb.InvalidInputException, match="locked"):
        con.execute("SET threads = 2")


def test_a_relative_path_is_the_callers(warehouse: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(warehouse.parent)
    with Sandbox(Path(warehouse.name)) as box:
        assert [r.rows for r in box.run(["SELECT count(*) FROM city"])] == [[[2]]]


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


def test_leaving_it_ends_the_child(warehouse: Path) -> None:
    with Sandbox(warehouse) as box:
        assert box._child is not None
        pid = box._child.pid
    assert not psutil.pid_exists(pid)


def test_a_child_without_parent_ends(warehouse: Path) -> None:
    with Sandbox(warehouse, LIMITS) as box:
        child = box._child
        assert child is not None and child.stdin is not None
        os.close(os.dup(child.stdin.fileno()))
        child.stdin.close()
        assert child.wait(10) == 0
        child.stdin = None


def test_schema_sql_shapes_the_tables(tmp_path: Path) -> None:
    folder = build(tmp_path / "w")
    (folder / "city.csv").write_text("name,id\nSeoul,01\nBusan,02\n")
    (folder / "schema.sql").write_text(
        "CREATE TABLE city (id VARCHAR PRIMARY KEY, name VARCHAR NOT NULL);\n"
        "CREATE TABLE t (id BIGINT, grp INTEGER, name VARCHAR);"
    )
    with Sandbox(folder) as box:
        city, t = box.run(["SELECT * FROM city ORDER BY id", "SELECT * FROM t WHERE id = 8"])
    assert city.rows == [["01", "Seoul"], ["02", "Busan"]]
    assert t.rows == [[8, 1, "name 8"]]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "holds no <table>.parquet"),
        ({"a.parquet": "not Parquet"}, "cannot be loaded"),
        ({"a.csv": "x\n1\n", "schema.sql": "CREATE TABLE a (y INTEGER);"}, "cannot be loaded"),
        ({"a.csv": "x\n1\n", "schema.sql": "CREATE TABEL a"}, "schema.sql cannot be run"),
    ],
)
def test_a_bad_warehouse_is_an_input_error(tmp_path: Path, files: dict[str, str], reason: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=reason), Sandbox(tmp_path):
        pass


def test_a_missing_warehouse_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such warehouse"):
        Sandbox(tmp_path / "none")
