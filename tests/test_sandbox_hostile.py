"""Untrusted SQL: every hostile query gets a clear reason, and the next query meets an untouched warehouse."""

import pytest
from sandboxes import ROWS

from align.grading.sandbox import IN_FLIGHT_BYTES, Sandbox

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
    ("WITH x AS (DELETE FROM t RETURNING id) SELECT * FROM x", "unparsable", ""),
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
    ("", "unparsable", "0 statements"),
    ("-- nothing", "unparsable", "0 statements"),
    ("SELECT", "unparsable", "Parser"),
    ("SELECT 'a", "unparsable", "Parser"),
    ("SELECT * FROM nowhere", "error", "does not exist"),
    ("SELECT $1", "error", ""),
    ("\x00SELECT 1", "unparsable", "0 statements"),
    ("SELECT '\ud800'", "error", ""),
    ("I do not know.", "unparsable", "Parser"),
    ("SELECT 1" + "+1" * 2400, "unparsable", "depth"),
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
