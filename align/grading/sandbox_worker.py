"""The child process that runs untrusted SQL: loads a warehouse, locks itself up, then answers one query per line.

Started by sandbox.py as a plain script in isolated mode with an empty environment: it imports nothing of this
repository. DuckDB's settings are defence in depth, not a sandbox (its own words), so after loading the operating system
takes away what the engine might be talked into: no new file descriptor (no file, no socket), no written byte, no new
process, an address space that ends a little above what is in use, and two timers that kill the process by default.
A warehouse's schema.sql is as little trusted as a query: it runs under the same limits, before the data are loaded.

Protocol: one JSON object per line in ({"sql", "order"}), frames of a 4-byte length and JSON out.
"""

import json
import os
import re
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

SETTINGS: dict[str, Any] = {
    "python_enable_replacements": False,  # a table name never reads a Python variable
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "allow_persistent_secrets": False,
    "TimeZone": "UTC",
    "threads": 1,
    "temp_directory": "",
    "max_temp_directory_size": "0 bytes",
    "enable_external_access": False,
    "lock_configuration": True,  # last: nothing can be set after it
}

# Compared after each query: a SELECT can call table functions that change more than their own connection.
_PROBE = "SELECT current_setting('enable_logging')"


def _literal(value: Any) -> str:
    return json.dumps(value) if isinstance(value, (bool, int)) else "'" + str(value).replace("'", "''") + "'"


class SchemaError(Exception):
    """What is wrong with schema.sql."""


def data_files(warehouse: Path) -> dict[str, Path]:
    """The files <table>.parquet and <table>.csv by table."""
    files = {p.stem: p for p in sorted(warehouse.iterdir()) if p.suffix in (".parquet", ".csv")}
    if not files:
        raise ValueError("holds no <table>.parquet or <table>.csv")
    return files


def shut(con: Any, files: dict[str, Path]) -> None:
    """Turn off what reaches outside, but for the data files. Nothing of this can be turned on again."""
    con.execute(f"SET allowed_paths = [{', '.join(_literal(str(p)) for p in files.values())}]")
    for name, value in SETTINGS.items():
        if name not in ("threads", "lock_configuration"):  # loading may use all cores, and memory_limit still changes
            con.execute(f"SET {name} = {_literal(value)}")


def define(con: Any, schema: Path, limits: dict[str, Any]) -> None:
    """Run schema.sql under the limits of a query. Raises SchemaError unless it only creates tables, views and types.

    The timers kill the process, as they do for a query.
    """
    before, memory = con.execute(_PROBE).fetchone(), con.execute("SELECT current_setting('memory_limit')").fetchone()[0]
    con.execute(f"SET memory_limit = '{limits['memory_mb']} MiB'")
    try:
        text = schema.read_text(encoding="utf-8")
        with held(limits), con.cursor() as cursor:
            statements = cursor.extract_statements(text)
            for number, statement in enumerate(statements, 1):
                check_statement(statement, number)
            for statement in statements:
                cursor.execute(statement)
    except Exception as error:
        much = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryException"
        detail = f"takes more than {limits['memory_mb']} MiB of memory" if much else " ".join(str(error).split())[:300]
        raise SchemaError(detail) from error
    if con.execute(_PROBE).fetchone() != before:
        raise SchemaError("changes the state of the engine")
    con.execute(f"SET memory_limit = '{memory}'")


def check_statement(statement: Any, number: int) -> None:
    """SchemaError unless a statement is a CREATE, by the engine's own parser, of what may be created, by its tokens."""
    import duckdb

    kind, raw = statement.type.name, statement.query.encode()
    if statement.type == duckdb.StatementType.CREATE:
        starts = [at for at, _ in duckdb.tokenize(statement.query)[:4]]
        words = [re.split(rb"\W", raw[at:], maxsplit=1)[0].decode().upper() for at in starts]
        kind = " ".join([word for word in words if word not in ("OR", "REPLACE")][:2])
    if kind not in ("CREATE TABLE", "CREATE VIEW", "CREATE TYPE"):
        raise SchemaError(f"statement {number} is of the kind {kind}")


def timers(seconds: float, deadline: float) -> None:
    """End the process after so many seconds of CPU time or on the clock; 0 for never."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, deadline)


@contextmanager
def held(limits: dict[str, Any]) -> Iterator[None]:
    """The operating system's limits of a query, for a while: they can be lifted as long as they are soft ones."""
    wanted = os_limits(limits["memory_mb"])
    before = {limit: resource.getrlimit(limit) for limit in wanted}
    for limit, (_, hard) in before.items():
        resource.setrlimit(limit, (wanted[limit], hard))
    timers(limits["seconds"], limits["deadline"])
    try:
        yield
    finally:
        timers(0, 0)
        for limit, pair in before.items():
            resource.setrlimit(limit, pair)


def load(con: Any, files: dict[str, Path]) -> None:
    """Load the files into tables: into the declared ones first, in the order of their declaration."""
    declared = [t for (t,) in con.execute("SELECT table_name FROM duckdb_tables() ORDER BY table_oid").fetchall()]
    for name in [n for n in declared if n in files] + [n for n in files if n not in declared]:
        reader = "read_parquet" if files[name].suffix == ".parquet" else "read_csv"
        table = '"' + name.replace('"', '""') + '"'
        verb = f"INSERT INTO {table} BY NAME" if name in declared else f"CREATE TABLE {table} AS"
        con.execute(f"{verb} SELECT * FROM {reader}(?)", [str(files[name])])


def lock(con: Any, memory_mb: int) -> None:
    """Turn off what reaches outside, then read every setting back. Memory counts from what the tables already use."""
    con.execute("SET disabled_filesystems = 'LocalFileSystem'")  # always reads back empty: tried out below instead
    used = con.execute("SELECT sum(memory_usage_bytes) FROM duckdb_memory()").fetchone()[0]
    limit = f"{(int(used) >> 20) + memory_mb} MiB"
    for name, value in {"memory_limit": limit, **SETTINGS}.items():
        if con.execute("SELECT current_setting(?)", [name]).fetchone()[0] != value:  # some can be set only once
            con.execute(f"SET {name} = {_literal(value)}")
    for name, value in {"memory_limit": limit, **SETTINGS}.items():
        got = con.execute("SELECT current_setting(?)", [name]).fetchone()[0]
        if not (_similar(got, value) if name == "memory_limit" else got == value):
            raise RuntimeError(f"setting {name} is {got!r}, not {value!r}")
    try:
        con.execute("SELECT * FROM read_text(?)", [__file__]).fetchall()
    except Exception as error:
        if "disabled by configuration" in str(error):
            return
        raise
    raise RuntimeError("files can be read")


def _similar(size: str, other: str) -> bool:
    """Whether two sizes agree as closely as the engine prints them: 1500 MiB reads back as 1.4 GiB."""
    units = {"KiB": 1, "MiB": 2, "GiB": 3, "TiB": 4}
    a, b = (float(number) * 1024 ** units[unit] for number, unit in (text.split() for text in (size, other)))
    return abs(a - b) < 0.1 * b


def confine(memory_mb: int) -> None:
    """Give up, for good, what running a query never needs. Open pipes stay usable; nothing new can be opened."""
    for limit, value in os_limits(memory_mb).items():
        resource.setrlimit(limit, (value, value))


def os_limits(memory_mb: int) -> dict[int, int]:
    """What the operating system still grants: an address space a little above what is in use, and nothing else."""
    nothing = (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC, resource.RLIMIT_NOFILE)
    if sys.platform != "linux":  # the address space cannot be limited; memory_limit and the timers remain
        return dict.fromkeys(nothing, 0)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    return {resource.RLIMIT_AS: used + (2 * memory_mb << 20), **dict.fromkeys(nothing, 0)}


def plain(value: Any) -> Any:
    """A value as JSON can carry it. Midnight timestamps become dates, as DuckDB itself compares the two."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime):
        return str(value).removesuffix("+00:00").removesuffix(" 00:00:00")
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    if isinstance(value, (list, tuple)):
        return json.dumps([plain(v) for v in value], ensure_ascii=False)
    if isinstance(value, dict):
        return json.dumps({str(k): plain(v) for k, v in value.items()}, ensure_ascii=False)
    return str(value)


def is_ordered(con: Any, sql: str) -> bool:
    """Whether the statement has an ORDER BY at its top level, by the engine's own parse tree."""
    tree = json.loads(con.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchone()[0])
    if tree.get("error"):
        return False
    return any(m["type"] == "ORDER_MODIFIER" for m in tree["statements"][0]["node"].get("modifiers", []))


def answer(con: Any, sql: str, order: bool, limits: dict[str, Any]) -> dict[str, Any]:
    """Run one statement in a connection of its own, inside a read-only transaction that is rolled back."""
    import duckdb

    cursor, statements = con.cursor(), None
    try:
        statements = cursor.extract_statements(sql)
        if len(statements) != 1:
            told = f"{len(statements)} statements instead of one"
            return {"status": "refused" if statements else "unparsable", "detail": told}
        if statements[0].type != duckdb.StatementType.SELECT:
            return {"status": "refused", "detail": f"a {statements[0].type.name} statement is not a query"}
        cursor.execute("BEGIN TRANSACTION READ ONLY")
        cursor.execute("SELECT setseed(0)").fetchall()
        rows = cursor.execute(statements[0]).fetchmany(limits["rows"] + 1)
        if len(rows) > limits["rows"]:
            return {"status": "too_large", "detail": f"more than {limits['rows']} rows"}
        result = {"status": "ok", "rows": [[plain(v) for v in row] for row in rows]}
        if len(json.dumps(result)) > limits["result_kb"] << 10:
            return {"status": "too_large", "detail": f"a result of more than {limits['result_kb']} KiB"}
        return {**result, "ordered": is_ordered(con, sql)} if order else result
    except (MemoryError, duckdb.OutOfMemoryException):
        return {"status": "memory", "detail": f"more than {limits['memory_mb']} MiB of memory"}
    except Exception as error:
        fatal = isinstance(error, (duckdb.FatalException, duckdb.InternalException))
        status = "unparsable" if statements is None and isinstance(error, duckdb.ParserException) else "error"
        return {"status": status, "detail": " ".join(str(error).split())[:300] or type(error).__name__, "last": fatal}
    finally:
        cursor.close()  # rolls back


def serve(con: Any, limits: dict[str, Any], out: int) -> None:
    """Answer queries until the input ends, or until one leaves the engine in another state than it found."""
    before = con.execute(_PROBE).fetchone()
    for line in sys.stdin.buffer:
        query = json.loads(line)
        timers(limits["seconds"], limits["deadline"])
        reply = answer(con, query["sql"], query["order"], limits)
        timers(0, 0)
        try:
            if con.execute(_PROBE).fetchone() != before:
                reply = {"status": "refused", "detail": "changes the state of the engine", "last": True}
        except Exception:
            reply["last"] = True
        send(out, reply)
        if reply.get("last"):
            return


def send(out: int, reply: dict[str, Any]) -> None:
    """Write one frame."""
    data = json.dumps(reply).encode()
    data = len(data).to_bytes(4, "big") + data
    while data:
        data = data[os.write(out, data) :]


def main() -> None:
    """Shut, define, load, lock, confine, report ready, serve. Standard output goes nowhere: the engine may print."""
    warehouse, limits = Path(sys.argv[1]), json.loads(sys.argv[2])
    out, null = os.dup(1), os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    try:
        import duckdb

        files, schema = data_files(warehouse), warehouse / "schema.sql"
        con = duckdb.connect(":memory:")
        # Every type once, so that whatever Python modules the engine imports for them are imported by now.
        con.execute(
            "SELECT uuid(), INTERVAL 1 DAY, DATE '2020-01-01', TIME '10:00', TIMESTAMP '2020-01-01', 1.5::DECIMAL(9,2),"
            " 1::HUGEINT, {'a': 1}, MAP {'a': 1}, [1], 'x'::BLOB, '1'::BIT"
        ).fetchall()
        try:
            con.execute("SET TimeZone = 'UTC'")
            con.execute("SELECT TIMESTAMPTZ '2020-01-01'").fetchall()
        except duckdb.Error:
            pass  # without pytz a time stamp with a zone cannot be fetched: that query then fails, with this reason
        is_ordered(con, "SELECT 1")
        shut(con, files)
        if schema.exists():
            define(con, schema, limits)
        load(con, files)
        lock(con, limits["memory_mb"])
        confine(limits["memory_mb"])
    except Exception as error:
        status = "schema" if isinstance(error, SchemaError) else "failed"
        send(out, {"status": status, "detail": " ".join(str(error).split())[:500]})
        return
    send(out, {"status": "ready"})
    serve(con, limits, out)


if __name__ == "__main__":
    main()
