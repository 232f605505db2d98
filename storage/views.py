"""DuckDB views over a store: artifacts, runs, lineage and the rows of every dataset, joined by their ids.

A view shows one run: the latest, or the one that is asked for; `all_NAME` shows every run, with its id and recipe. The
database is in memory and made anew for every question, from the records and Parquet files that the question names. It
is handed Arrow datasets and opens no file itself: with external access off, no query reads or writes anything else.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs
import pyarrow.parquet as pq

from align import tables
from align.errors import InputError
from storage import champions, index, runs
from storage.record_views import OF_A_RUN, OF_THE_STORE
from storage.store import Store

_RUNS = pa.schema([(n, pa.string()) for n in ("run_id", "recipe", "status", "started_at", "finished_at")])
_CHAMPIONS = pa.schema([
    ("recipe", pa.string()), ("number", pa.int64()),
    *((n, pa.string()) for n in ("run_id", "model", "artifact", "decision", "verdict", "promoted_at")),
])  # fmt: skip
_USES = pa.schema([(n, pa.string()) for n in ("run_id", "recipe", "artifact")])


def ask(store: Store, query: str, run_id: str | None = None) -> tuple[list[str], list[tuple[Any, ...]], list[str]]:
    """Column names and rows of one reading statement, and the artifacts that had to be left out, with the reason.

    Raises InputError for anything but one SELECT-like statement, and for what DuckDB cannot answer.
    """
    _reads_only(query)
    left_out: dict[str, str] = {}
    for _ in range(2):
        try:
            cursor = connect(store, query, run_id, left_out).execute(query)
            names = [column[0] for column in cursor.description or []]
            return names, cursor.fetchall(), list(left_out.values())
        except duckdb.Error as error:
            harmed = _harmed(store, query, run_id) if "IOError" in str(error) or "OSError" in str(error) else {}
            if not harmed.keys() - left_out.keys():
                raise InputError(f"{' '.join(str(error).split())}") from None
            left_out |= harmed
    raise InputError("A file of the store changed while it was read; ask again.")


def _reads_only(query: str) -> None:
    try:
        found = duckdb.extract_statements(query)
    except duckdb.Error as error:
        raise InputError(f"{' '.join(str(error).split())}") from None
    kinds = duckdb.StatementType
    # PIVOT is split by DuckDB into the type of its columns and a SELECT, both without a text of their own.
    written = [s for s in found if s.query or s.type not in (kinds.CREATE, kinds.SELECT)] or found[-1:]
    if not written:
        raise InputError('The query is empty; `align sql "SHOW ALL TABLES"` lists the views.')
    if len(written) == 1 and written[0].type == kinds.EXPLAIN:
        return _reads_only(re.sub(r"(?is)^.*?\bexplain\b(\s+analyze\b)?(\s*\([^)]*\))?", "", query, count=1))
    if len(written) > 1 or written[0].type != kinds.SELECT:
        raise InputError(
            "align sql takes one statement that only reads: SELECT, FROM, WITH, DESCRIBE, SUMMARIZE or SHOW."
        )


def connect(
    store: Store, text: str | None = None, run_id: str | None = None, left_out: Mapping[str, str] | None = None
) -> duckdb.DuckDBPyConnection:
    """A connection with the views that `text` names filled (all where it is None) and the others empty.

    `run_id` is the run that views show; None: the latest. Artifacts whose files are not whole are left out, and added
    to `left_out`, artifact to reason. The connection cannot be unlocked.
    """
    con = duckdb.connect(":memory:")
    for setting in ("python_enable_replacements", "enable_external_access", "autoinstall_known_extensions",
                    "autoload_known_extensions"):  # fmt: skip
        con.execute(f"SET {setting} = false")
    _fill(con, store, text, run_id, left_out if left_out is not None else {})
    con.execute("SET lock_configuration = true")
    return con


def _fill(con: duckdb.DuckDBPyConnection, store: Store, text: str | None, run_id: str | None, left_out: Any) -> None:
    def asked(*views: str) -> bool:
        return text is None or any(re.search(rf"(?i)\b{view}\b", text) for view in views)

    shown = _shown(store, run_id) if asked(*tables.TABLES, *OF_A_RUN) else None
    every = any(asked(f"all_{name}") for name in (*tables.TABLES, *OF_A_RUN))
    history = runs.history(store) if every or asked("runs") else []
    recorded = index.table(store, index.STAGE_RUNS) if every else []
    recorded = recorded or [index.STAGE_RUNS.schema.empty_table()]
    _register(con, "_runs", [pa.Table.from_pylist(history, schema=_RUNS)], _RUNS)
    crowned = [{n: getattr(c, n) for n in _CHAMPIONS.names} for c in champions.all_of(store)]
    _register(con, "_champions", [pa.Table.from_pylist(crowned, schema=_CHAMPIONS)], _CHAMPIONS)
    _register(con, "_all_stage_runs", recorded, index.STAGE_RUNS.schema)
    _register(con, "_stage_runs", [shown.table] if shown else [], index.STAGE_RUNS.schema)
    for needed, kept in ((("attempts", "lineage"), index.ATTEMPTS), (("artifacts",), index.ARTIFACTS)):
        _register(con, f"_{kept.name}", index.table(store, kept) if asked(*needed) else [], kept.schema)
    for name, view in OF_A_RUN.items():
        con.execute(f"CREATE TEMP VIEW {name} AS {view.select}")
        past = view.select.replace("_stage_runs", "_all_stage_runs")
        con.execute(f"CREATE TEMP VIEW all_{name} AS SELECT r.recipe, v.* FROM ({past}) v JOIN _runs r USING (run_id)")
    root = store.where.replace("'", "''")
    for name, view in OF_THE_STORE.items():
        con.execute(f"CREATE TEMP VIEW {name} AS {view.select.replace('{root}', root)}")

    uses = _uses(con) if every else _USES.empty_table()
    con.register("_uses", uses)
    for name, schema in tables.TABLES.items():
        here = _files(store, name, shown.artifacts, left_out) if shown and asked(name) else {}
        con.register(name, _dataset(here, _with_scores(store, schema, here), store.disk()))
        past_names = uses["artifact"].unique().to_pylist() if asked(f"all_{name}") else []
        con.register(f"_all_{name}", _dataset(_files(store, name, past_names, left_out), schema, store.disk()))
        con.execute(
            f"CREATE TEMP VIEW all_{name} AS SELECT u.run_id, u.recipe, d.* "
            f"FROM _uses u JOIN _all_{name} d USING (artifact)"
        )


@dataclass(frozen=True)
class _Shown:
    """The run that views are about."""

    table: pa.Table
    artifacts: list[str]


def _shown(store: Store, run_id: str | None) -> _Shown | None:
    """The run of that id (its beginning is enough), else the latest. Raises InputError for an id that no run has."""
    if run_id is None:
        latest = runs.latest(store)
        if latest is None:
            return None
        run_id = latest["run_id"]
    found = runs.stages(store, run_id)
    records = [{**s, "metrics": index.metrics_of(s["metrics"])} for s in found]
    names = index.STAGE_RUNS.schema.names
    table = pa.Table.from_pylist([{n: r.get(n) for n in names} for r in records], schema=index.STAGE_RUNS.schema)
    return _Shown(table, list(dict.fromkeys(s["artifact"] for s in found if s["artifact"])))


def _uses(con: duckdb.DuckDBPyConnection) -> pa.Table:
    """Which run used which artifact."""
    query = (
        "SELECT DISTINCT run_id, recipe, artifact FROM _all_stage_runs JOIN _runs USING (run_id) "
        "WHERE artifact IS NOT NULL"
    )
    return con.execute(query).to_arrow_table()


def _register(con: duckdb.DuckDBPyConnection, name: str, parts: Iterable[Any], schema: pa.Schema) -> None:
    """Arrow tables and datasets of one schema as one view."""
    found = list(parts) or [schema.empty_table()]
    for i, part in enumerate(found):
        con.register(f"{name}_{i}", part)
    union = " UNION ALL ".join(f"SELECT * FROM {name}_{i}" for i in range(len(found)))
    con.execute(f"CREATE TEMP VIEW {name} AS {union}")


def _files(store: Store, table: str, artifacts: Iterable[str], left_out: dict[str, str]) -> dict[str, str]:
    """The file of a table in each artifact that has it, artifact to its path in the store's file system."""
    file = f"{table}.parquet"

    def look(name: str) -> tuple[str | None, str | None]:
        """Its path, or what is wrong with it."""
        artifact = store.artifact(name)
        if not artifact or file not in artifact.files:
            return None, None
        wrong = store.damage(artifact, file)
        return (None, wrong) if wrong else (store.path_on_disk(artifact, file), None)

    asked = [name for name in artifacts if name not in left_out]
    looked = dict(zip(asked, store.each(look, asked), strict=True))
    left_out |= {name: wrong for name, (_, wrong) in looked.items() if wrong}
    return {name: path for name, (path, _) in looked.items() if path}


def _with_scores(store: Store, schema: pa.Schema, found: Mapping[str, str]) -> pa.Schema:
    """The schema and the columns that the files have besides: a score for each rule of the filter that gives one."""
    more: dict[str, pa.DataType] = {}
    disk = store.disk()
    for path in found.values():
        try:
            there = pq.read_schema(path, filesystem=disk)
            more |= {f.name: f.type for f in there if f.name not in schema.names}
        except (OSError, pa.ArrowException):
            continue  # it is named when it is read
    return pa.schema([*schema, *more.items()])


def _dataset(found: Mapping[str, str], schema: pa.Schema, disk: Any = None) -> pa.Table | ds.Dataset:
    """The files as one dataset with the column `artifact`, by which it is pruned. They are opened when it is read."""
    schema = pa.schema([("artifact", pa.string()), *schema])
    if not found:
        return schema.empty_table()
    form, disk = ds.ParquetFileFormat(), disk or pa.fs.LocalFileSystem()
    fragments = [
        form.make_fragment(path, disk, partition_expression=ds.field("artifact") == name)
        for name, path in found.items()
    ]
    return ds.FileSystemDataset(fragments, schema, form, disk)


def _harmed(store: Store, query: str, run_id: str | None) -> dict[str, str]:
    """Artifacts that cannot be read, though they have the right size, of those that a query may have read."""
    shown = _shown(store, run_id)
    names = shown.artifacts if shown else []
    if re.search(r"(?i)\ball_", query):
        names = sorted({s["artifact"] for run in runs.history(store) for s in runs.stages(store, run["run_id"])
                        if s["artifact"]})  # fmt: skip
    found = {}
    for name in names:
        artifact = store.artifact(name)
        if artifact and (wrong := store.damage(artifact, thorough=True)):
            found[name] = wrong
    return found
