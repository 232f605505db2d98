"""A warehouse's schema.sql is as little trusted as a query: it creates tables, views and types, and nothing else."""

from pathlib import Path

import duckdb
import pytest

from align.errors import InputError
from align.grading.sandbox import Limits, Sandbox

LIMITS = Limits(seconds=0.8, deadline=60, memory_mb=64)
RECURSIVE = "WITH RECURSIVE r AS (SELECT 1 x UNION ALL SELECT x + 1 FROM r) SELECT count(*) FROM r"

# {outside} is a readable directory that is not the warehouse's, {inside} is the warehouse itself
HOSTILE = [
    ("CREATE TABLE a (x INTEGER); COPY (SELECT 1) TO '{outside}/stolen.csv'", "statement 2 is of the kind COPY"),
    ("COPY a FROM '{outside}/secret.csv'", "kind COPY"),
    ("COPY (SELECT 1) TO '{inside}/t.csv'", "kind COPY"),
    ("EXPORT DATABASE '{outside}/stolen'", "kind EXPORT|kind COPY"),
    ("IMPORT DATABASE '{outside}'", "disabled by configuration|kind"),
    ("ATTACH '{outside}/stolen.db'", "kind ATTACH"),
    ("INSTALL httpfs", "kind LOAD"),
    ("LOAD httpfs", "kind LOAD"),
    ("LOAD '{outside}/x.duckdb_extension'", "kind LOAD"),
    ("SET enable_external_access = true", "kind SET"),
    ("SET GLOBAL home_directory = '{outside}'", "kind SET"),
    ("RESET memory_limit", "kind"),
    ("PRAGMA enable_profiling", "kind PRAGMA"),
    ("PRAGMA import_database('{outside}')", "disabled by configuration|kind"),
    ("CALL enable_logging()", "kind CALL"),
    ("CREATE TABLE a AS FROM enable_logging()", "changes the state of the engine"),
    ("CREATE TABLE a AS FROM enable_logging('QueryLog', storage = 'file', storage_config = "
     "{{'path': '{outside}/stolen'}})", "schema.sql cannot be run"),
    ("CREATE TABLE a AS SELECT * FROM read_csv('{outside}/secret.csv')", "disabled by configuration"),
    ("CREATE TABLE a AS SELECT * FROM read_text('/etc/passwd')", "disabled by configuration"),
    ("CREATE TABLE a AS SELECT * FROM glob('{outside}/*')", "disabled by configuration"),
    ("CREATE TABLE a AS FROM '{outside}/secret.csv'", "schema.sql cannot be run"),
    ("CREATE VIEW a AS SELECT * FROM read_text('{outside}/secret.csv')", "disabled by configuration"),
    ("CREATE TYPE e AS ENUM (SELECT content FROM read_text('{outside}/secret.csv'))", "disabled by configuration"),
    ("CREATE SECRET s (TYPE S3, KEY_ID 'a', SECRET 'b')", "kind CREATE SECRET"),
    ("CREATE PERSISTENT SECRET s (TYPE S3, KEY_ID 'a', SECRET 'b')", "kind CREATE PERSISTENT"),
    ("CREATE OR REPLACE MACRO count(x) AS 1", "kind CREATE MACRO"),
    ("/* CREATE TABLE */ CREATE -- TABLE\n MACRO f(x) AS 1", "kind CREATE MACRO"),
    ("CREATE TEMP TABLE t AS SELECT 1", "kind CREATE TEMP"),
    ("CREATE SCHEMA main2", "kind CREATE SCHEMA"),
    ("INSERT INTO t VALUES (1)", "kind INSERT"),
    ("DROP TABLE t", "kind DROP"),
    ("SELECT * FROM read_text('{outside}/secret.csv')", "kind SELECT"),
    ("BEGIN; CREATE TABLE a (x INTEGER); COMMIT", "kind TRANSACTION"),
    ("CREATE TABLE a AS " + RECURSIVE, "takes more than 0.8 s of CPU time"),
    ("CREATE TABLE a AS SELECT count(*) FROM generate_series(1, 1000000000000) t(i) WHERE i % 2 = 3", "more than 0.8 s"),
    ("CREATE TABLE a AS SELECT list(range) FROM range(1000000000000)", "takes more than 64 MiB of memory"),
    ("CREATE TABLE a AS SELECT repeat('x', 1000000000)", "takes more than 64 MiB of memory"),
    ("CREATE TABLE a AS SELECT sleep_ms(100000)", r"takes more than (1 s|0\.8 s of CPU time)"),
    ("CREATE TABEL a (x INTEGER)", "syntax error"),
    ("CREATE TABLE a (x INTEGER); CREATE TABLE a (x INTEGER)", "already exists"),
    ("CREATE TABLE a (x NOTYPE)", "NOTYPE"),
    ("CREATE VIEW v AS SELECT * FROM nowhere", "does not exist"),
    ("'", "Parser Error|unterminated"),
    ("I do not know.", "syntax error"),
    ("\x00", ""),
    ("(" * 5000, "Parser Error|schema.sql cannot be run"),
]  # fmt: skip


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    (tmp_path / "inside").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "inside" / "t.csv").write_text("x\n1\n2\n")
    (tmp_path / "outside" / "secret.csv").write_text("key\nsesame\n")
    return tmp_path / "inside"


@pytest.mark.parametrize(("sql", "reason"), HOSTILE, ids=[ascii(sql[:50]) for sql, _ in HOSTILE])
def test_a_hostile_schema_is_one_sentence(inside: Path, sql: str, reason: str) -> None:
    outside = inside.parent / "outside"
    text = sql.format(inside=inside, outside=outside) if "{outside}" in sql or "{inside}" in sql else sql
    (inside / "schema.sql").write_text(text)
    before = _files(inside.parent)
    limits = LIMITS.model_copy(update={"deadline": 1}) if "sleep" in sql else LIMITS
    if not reason:  # the engine sees an empty file
        with Sandbox(inside, limits) as box:
            assert [r.rows for r in box.run(["SELECT count(*) FROM t"])] == [[[2]]]
        return
    with pytest.raises(InputError, match=reason) as caught, Sandbox(inside, limits):
        pass
    assert str(caught.value).startswith(f"{inside / 'schema.sql'} cannot be run (")
    assert "\n" not in str(caught.value) and "sesame" not in str(caught.value)
    assert _files(inside.parent) == before


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_what_a_schema_may_hold(inside: Path) -> None:
    duckdb.connect().execute(f"COPY (SELECT 1 AS id, 'b' AS mood) TO '{inside}/Mixed Name.parquet'")
    (inside / "schema.sql").write_text(
        "-- 주석; CREATE SECRET\n/* SET threads = 9; */\n"
        "CREATE TYPE mood AS ENUM ('a', 'b');\n"
        'create or replace table "Mixed Name" (mood mood, id BIGINT PRIMARY KEY, CHECK (id > 0));\n'
        "CREATE TABLE IF NOT EXISTS t (x VARCHAR DEFAULT '-- no; comment');\n"
        "CREATE TABLE numbers AS SELECT i FROM range(3) r(i);\n"
        'CREATE VIEW"v"AS SELECT count(*) AS n FROM t;;\n'
    )
    with Sandbox(inside, LIMITS) as box:
        queries = ['SELECT * FROM "Mixed Name"', "SELECT x FROM t ORDER BY 1", "FROM numbers", "FROM v"]
        assert [r.rows for r in box.run(queries)] == [[["b", 1]], [["1"], ["2"]], [[0], [1], [2]], [[2]]]


def test_a_view_that_does_not_end_ends_its_query(inside: Path) -> None:
    (inside / "schema.sql").write_text(f"CREATE VIEW v AS {RECURSIVE}")
    with Sandbox(inside, LIMITS) as box:
        assert [r.status for r in box.run(["FROM v", "SELECT 1"])] == ["timeout", "ok"]


def test_the_data_are_loaded_without_the_schemas_limits(inside: Path) -> None:
    """Tables may take more memory and time than a query may."""
    duckdb.connect().execute(
        f"COPY (SELECT i, random() AS r, i::VARCHAR AS s FROM range(3000000) t(i)) TO '{inside}/big.parquet'"
    )
    (inside / "schema.sql").write_text("CREATE TABLE big (i BIGINT, r DOUBLE, s VARCHAR);")
    with Sandbox(inside, Limits(seconds=0.2, memory_mb=32)) as box:
        assert [r.rows for r in box.run(["SELECT max(i) FROM big"])] == [[[2999999]]]


def test_a_schema_that_is_no_text(inside: Path) -> None:
    (inside / "schema.sql").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"schema.sql cannot be run \('utf-8' codec"), Sandbox(inside, LIMITS):
        pass


def test_files_of_the_warehouse_are_out_of_reach_of_queries(inside: Path) -> None:
    """They could be read while the tables were loaded."""
    (inside / "schema.sql").write_text("CREATE TABLE t (x INTEGER);")
    with Sandbox(inside, LIMITS) as box:
        for query in (
            f"FROM read_csv('{inside}/t.csv')",
            f"FROM read_text('{inside}/t.csv')",
            f"FROM '{inside}/t.csv'",
        ):
            (result,) = box.run([query])
            assert result.status == "error", query
