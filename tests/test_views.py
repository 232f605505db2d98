"""`align sql`: one run or all of them, reading only, and no faster growth than the answer's."""

import shutil
from pathlib import Path

import pytest
import warm
from test_records import record
from test_store import Knob, made, produce

from align.errors import InputError
from align.tables import TABLES, about
from flows.cli import main
from storage import index, records
from storage.record_views import OF_A_RUN, RECORDS
from storage.runs import Run, StageRun
from storage.store import Store
from storage.views import ask, connect


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "it's a store")


def one(store: Store, query: str, run_id: str | None = None):
    return ask(store, query, run_id)[1]


def test_a_view_shows_the_latest_run_or_the_one_that_is_asked_for(store):
    first, second = record(store, 2, recipe="x"), record(store, 3, recipe="y")
    assert one(store, "SELECT count(*) FROM rows") == [(3,)]
    assert one(store, "SELECT count(*) FROM rows", first) == [(2,)]
    assert one(store, "SELECT value FROM metrics WHERE name = 'rows'") == [(3,)]
    assert one(store, "SELECT run_id FROM stage_runs", first) == [(first,)]
    grouped = "SELECT recipe, run_id, count(*) FROM all_rows GROUP BY ALL ORDER BY ALL"
    assert one(store, grouped) == [("x", first, 2), ("y", second, 3)]
    averaged = "SELECT recipe, avg(value) FROM all_metrics WHERE name = 'rows' GROUP BY ALL ORDER BY ALL"
    assert one(store, averaged) == [("x", 2.0), ("y", 3.0)]
    again = record(store, 3, recipe="y")
    assert one(store, "SELECT count(*) FROM all_rows WHERE recipe = 'y'") == [(6,)]
    assert one(store, "SELECT count(*) FROM runs") == [(3,)] and again


def test_a_run_in_progress_is_shown_and_not_remembered(store):
    run = Run(store, "r", {})
    attempt, _ = made(store, "ingest", produce, Knob(value=2))
    run.stage(StageRun("ingest", attempt.key, attempt.artifact, "ran", 1.0, "", attempt.metrics))
    for query in ("SELECT count(*) FROM all_stage_runs", "SELECT count(*) FROM stage_runs"):
        assert one(store, query) == [(1,)]
    run.stage(StageRun("b", "k", None, "failed", 1.0, "no", {}))
    run.finish("failed")
    assert one(store, "SELECT count(*) FROM all_stage_runs") == [(2,)]
    assert one(store, "SELECT status FROM runs") == [("failed",)]


@pytest.mark.parametrize("empty", [True, False])
def test_every_view_has_the_same_columns_with_and_without_rows(store, empty):
    if not empty:
        record(store, 2)
    con = connect(store)
    for view in [*TABLES, *RECORDS, *(f"all_{v}" for v in [*TABLES, *OF_A_RUN])]:
        got = [row[0] for row in con.execute(f"DESCRIBE {view}").fetchall()]
        name = view.removeprefix("all_")
        if name in TABLES:
            ids = ["run_id", "recipe"] if view != name else []
            assert got == [*ids, "artifact", *TABLES[name].names]
            assert about(TABLES[name]) and all(about(field) for field in TABLES[name])
        elif view == name:
            assert got == list(RECORDS[name].columns)
        con.execute(f"FROM {view}").fetchall()
    listed = {row[0] for row in con.execute("SELECT name FROM (SHOW ALL TABLES)").fetchall()}
    assert {*TABLES, *RECORDS} <= listed


READING = [
    "SELECT 1", "FROM rows", "WITH a AS (FROM rows) FROM a", "DESCRIBE rows", "SUMMARIZE rows", "SHOW ALL TABLES",
    "PIVOT rows ON source USING count(*)", "VALUES (1)", "TABLE rows", "EXPLAIN SELECT * FROM rows", "SELECT 1;",
    "EXPLAIN ANALYZE SELECT * FROM rows", "-- a remark\nSELECT 1", "explain (format json) select 1",
]  # fmt: skip
WRITING = [
    "COPY rows TO '{file}'", "COPY (SELECT 1) TO '{file}' (FORMAT parquet)", "ATTACH '{file}' AS x", "EXPORT DATABASE '{file}'",
    "INSTALL httpfs", "LOAD httpfs", "SET memory_limit = '1GB'", "RESET memory_limit", "PRAGMA database_list; SELECT 1",
    "CREATE TABLE t AS SELECT 1", "CREATE TEMP TABLE t AS SELECT 1", "DROP VIEW rows", "INSERT INTO runs VALUES (1)",
    "DELETE FROM runs", "UPDATE runs SET recipe = 'x'", "CALL enable_logging()", "CHECKPOINT", "BEGIN", "USE temp",
    "EXPLAIN ANALYZE COPY rows TO '{file}'", "EXPLAIN COPY rows TO '{file}'", "SELECT 1; COPY rows TO '{file}'",
    "PIVOT rows ON source USING count(*); COPY rows TO '{file}'", "EXPLAIN EXPLAIN ANALYZE COPY rows TO '{file}'",
    "VACUUM", "CREATE SECRET s (TYPE s3)", "CREATE MACRO f() AS 1", "PREPARE p AS COPY rows TO '{file}'", "EXECUTE p",
    "IMPORT DATABASE '{file}'", "DETACH memory", "ALTER VIEW rows RENAME TO x", "COMMENT ON VIEW rows IS 'x'", "", " ", ";",
    "-- nothing", "SELEC 1",
]  # fmt: skip
OUTSIDE = [
    "FROM read_parquet('{file}')", "FROM '{file}'", "FROM read_text('{file}')", "FROM read_blob('{file}')",
    "FROM glob('{folder}/*')", "FROM read_csv('{file}')", "FROM read_json('{file}')", "FROM sniff_csv('{file}')",
    "FROM parquet_metadata('{file}')", "SELECT * FROM query('COPY rows TO ''{file}''')", "SELECT getenv('HOME')",
    "FROM duckdb_secrets() WHERE secret_string != '' OR 1 / 0 = 1 OR error('none')", "FROM sys", "FROM store",
]  # fmt: skip


@pytest.mark.parametrize("query", READING)
def test_one_reading_statement_is_answered(store, query):
    record(store, 2)
    ask(store, query)


@pytest.mark.parametrize("query", [*WRITING, *OUTSIDE])
def test_nothing_is_written_and_nothing_outside_is_read(store, query):
    record(store, 2)
    data = next(store.root.glob("artifacts/*/rows.parquet"))
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (store.root / "artifacts").rglob("*") if p.is_file()}
    for file in (data, data.with_name("new")):
        quoted = str(file).replace("'", "''")
        with pytest.raises(InputError) as raised:
            ask(store, query.replace("{file}", quoted).replace("{folder}", str(data.parent).replace("'", "''")))
        assert "\n" not in str(raised.value)
    after = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (store.root / "artifacts").rglob("*") if p.is_file()}
    assert before == after


def test_the_connection_itself_writes_nothing(store):
    """Whatever gets past the check of statements: there is no file that DuckDB may open."""
    import duckdb

    record(store, 2)
    con = connect(store)
    data = str(next(store.root.glob("artifacts/*/rows.parquet"))).replace("'", "''")
    for query in (f"COPY rows TO '{data}'", f"ATTACH '{data}2' AS x", f"EXPORT DATABASE '{data}3'",
                  "SET enable_external_access = true", "SET allowed_directories = ['/']", f"FROM '{data}'"):  # fmt: skip
        with pytest.raises(duckdb.Error):
            con.execute(query).fetchall()


def test_the_index_may_be_lost_damaged_or_behind(store):
    def counts() -> tuple:
        query = (
            "SELECT (SELECT count(*) FROM all_stage_runs), (SELECT count(*) FROM attempts), "
            "(SELECT count(*) FROM artifacts), (SELECT count(*) FROM lineage), (SELECT count(*) FROM runs)"
        )
        return one(store, query)[0]

    for value in range(1, 6):
        record(store, value)
    folder = store.root / "cache" / "index"
    expected = counts()
    assert expected == (5, 5, 5, 0, 5) == counts()
    there = [p for p in folder.rglob("*") if p.suffix in (".json", ".parquet")]
    assert there
    for path in there:
        if not path.exists():  # a segment that was merged into another when its units had settled
            continue
        data = bytearray(path.read_bytes())
        for harmed in (b"", data[: len(data) // 2], bytes(data[:-9]) + bytes([data[-9] ^ 1]) + bytes(data[-8:])):
            path.write_bytes(harmed)
            assert counts() == expected, path
    shutil.rmtree(folder)
    assert counts() == expected
    gone = next(store.root.glob("attempts/*"))
    record(store, 9)
    shutil.rmtree(gone)
    assert counts() == (6, 5, 6, 0, 6)


def test_another_attempt_of_a_known_key_is_seen_at_once(store):
    record(store, 1)
    for n in range(2, 5):
        made(store, "ingest", produce, Knob(value=1), refresh=True)
        assert one(store, "SELECT count(*) FROM attempts") == [(n,)]


def test_segments_are_few_and_lose_nothing(store, monkeypatch):
    monkeypatch.setattr(index, "_SETTLED", 0)
    for n in range(1, 40):
        key = f"{n:032x}"
        records.write(
            store.root / "attempts" / key / "t.json",
            {"stage": "s", "key": key, "artifact": f"s-{n}", "config": {}, "inputs": {}, "code": {}, "versions": {},
             "metrics": {}, "seconds": 1, "created_at": f"2026-01-01T00:00:{n:02}Z"},
        )  # fmt: skip
        assert one(store, "SELECT count(*), count(DISTINCT key) FROM attempts") == [(n, n)]
    assert len(list((store.root / "cache" / "index" / "attempts").glob("*.parquet"))) <= 7


def test_eight_processes_ask_while_the_index_is_made(store):
    for value in range(1, 6):
        record(store, value)
    query = (
        "SELECT (SELECT count(*) FROM all_metrics), (SELECT count(*) FROM attempts), (SELECT count(*) FROM artifacts)"
    )
    children = [warm.Command("sql", query, "--csv", "--store", str(store.root)) for _ in range(8)]
    answers = [child.communicate(timeout=120)[0].splitlines()[-1] for child in children]
    assert answers == ["5,5,5"] * 8


def test_the_command_line_takes_a_run(store, capsys):
    first, _ = record(store, 2), record(store, 3)
    main(["sql", "SELECT count(*) AS n FROM rows", "--run", first, "--csv", "--store", str(store.root)])
    assert capsys.readouterr().out == "n\n2\n"
    with pytest.raises(SystemExit) as ended:
        main(["sql", "FROM rows", "--run", "nope", "--store", str(store.root)])
    assert ended.value.code == 2 and "no such run" in capsys.readouterr().err
