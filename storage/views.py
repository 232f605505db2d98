"""DuckDB views over a store: artifacts, runs, lineage and the rows of every dataset, joined by their ids.

The database is in memory and made anew for every question; the store's own files are the only truth. Column names are
a contract; a view over files that no stage has written yet has the same columns and no rows.
"""

from pathlib import Path
from typing import Any

import duckdb

from storage import runs
from storage.store import Store

# view -> (file in an artifact, columns with types). A view reads that file in every artifact that has it.
DATASETS: dict[str, tuple[str, str]] = {
    "rows": (
        "ingest-*/rows.parquet",
        "row_id VARCHAR, source VARCHAR, use VARCHAR, split VARCHAR, messages STRUCT(role VARCHAR, content VARCHAR)[], "
        "prompt VARCHAR, response VARCHAR, chosen VARCHAR, rejected VARCHAR, reference VARCHAR, meta VARCHAR",
    ),
    "quarantine": (
        "ingest-*/quarantine.parquet",
        "source VARCHAR, file VARCHAR, line BIGINT, reason VARCHAR, text VARCHAR",
    ),
    "instructions": (
        "filter-*/rows.parquet",
        "row_id VARCHAR, source VARCHAR, split VARCHAR, prompt VARCHAR, response VARCHAR, kept BOOLEAN, "
        "reason VARCHAR, evidence VARCHAR, meta VARCHAR",
    ),
    "samples": (
        "*sample-*/samples.parquet",
        "prompt_id VARCHAR, sample_id VARCHAR, sample_index INTEGER, text VARCHAR, finish_reason VARCHAR, "
        "n_tokens INTEGER",
    ),
    "pairs": (
        "pairs-*/pairs.parquet",
        "pair_id VARCHAR, prompt_id VARCHAR, chosen_id VARCHAR, rejected_id VARCHAR, chosen VARCHAR, "
        "rejected VARCHAR, margin DOUBLE, judge VARCHAR, held_out BOOLEAN",
    ),
    "scores": (
        "*/scores.parquet",
        "sample_id VARCHAR, judge VARCHAR, score DOUBLE, status VARCHAR, detail VARCHAR",
    ),
    "selections": ("select-*/selection.parquet", "prompt_id VARCHAR, sample_id VARCHAR, arm VARCHAR"),
    "evaluations": (
        "evaluate-*/evaluations.parquet",
        "suite VARCHAR, item_id VARCHAR, model VARCHAR, mode VARCHAR, sample_index INTEGER, response VARCHAR, "
        "score DOUBLE, status VARCHAR, finish_reason VARCHAR, detail VARCHAR",
    ),
    "comparisons": (
        "evaluate-*/comparisons.parquet",
        "suite VARCHAR, metric VARCHAR, model VARCHAR, against VARCHAR, mean DOUBLE, n BIGINT, low DOUBLE, "
        "high DOUBLE, diff DOUBLE, diff_low DOUBLE, diff_high DOUBLE",
    ),
    "dropped": ("*/dropped.parquet", "row_id VARCHAR, reason VARCHAR, n_tokens BIGINT"),
    "training_log": ("*/training_log.parquet", "step BIGINT, name VARCHAR, value DOUBLE"),
}  # fmt: skip

RECORDS = {
    "runs": "run_id VARCHAR, recipe VARCHAR, status VARCHAR, started_at TIMESTAMP, finished_at TIMESTAMP",
    "stage_runs": "run_id VARCHAR, stage VARCHAR, key VARCHAR, artifact VARCHAR, status VARCHAR, seconds DOUBLE, "
    "reason VARCHAR, ended_at TIMESTAMP",
    "attempts": "stage VARCHAR, key VARCHAR, artifact VARCHAR, seconds DOUBLE, created_at TIMESTAMP, config JSON, "
    "versions JSON",
    "artifacts": "artifact VARCHAR, stage VARCHAR, kind VARCHAR, created_at TIMESTAMP, bytes BIGINT, rows BIGINT, "
    "path VARCHAR",
    "lineage": "child VARCHAR, parent VARCHAR, role VARCHAR",
    "metrics": "run_id VARCHAR, stage VARCHAR, artifact VARCHAR, name VARCHAR, value DOUBLE, text VARCHAR",
}


def connect(store: Store) -> duckdb.DuckDBPyConnection:
    """A connection that has the views, reads the store's directory and nothing else, and cannot be unlocked."""
    con = duckdb.connect(":memory:")
    for name, columns in RECORDS.items():
        _fill(con, name, columns, _records(store, name))
    for name, (pattern, columns) in DATASETS.items():
        _view(con, store.root / "artifacts", name, pattern, columns)
    con.execute("SET python_enable_replacements = false")
    con.execute(f"SET allowed_directories = ['{_quoted(store.root / 'artifacts')}/']")
    con.execute("SET enable_external_access = false")
    con.execute("SET autoinstall_known_extensions = false")
    con.execute("SET autoload_known_extensions = false")
    con.execute("SET lock_configuration = true")
    return con


def _records(store: Store, name: str) -> list[dict[str, Any]]:
    if name == "runs":
        return runs.history(store)
    if name in ("stage_runs", "metrics"):
        found = [s for run in runs.history(store) for s in runs.stages(store, run["run_id"])]
        if name == "stage_runs":
            return found
        return [
            {**s, "name": metric, **({"text": value} if isinstance(value, str) else {"value": value})}
            for s in found
            for metric, value in s["metrics"].items()
        ]
    if name == "attempts":
        return [vars(a) for a in store.attempts()]
    if name == "lineage":
        edges = {
            (a.artifact, item.get("artifact") or item["digest"], role)
            for a in store.attempts()
            for role, item in a.inputs.items()
        }
        return [{"child": c, "parent": p, "role": r} for c, p, r in sorted(edges)]
    return [
        {
            "artifact": a.id,
            "stage": a.stage,
            "kind": a.kind,
            "created_at": created,
            "bytes": sum(f["bytes"] for f in a.files.values()),
            "rows": sum(f["rows"] or 0 for f in a.files.values()),
            "path": str(a.path),
        }
        for a, created in store.manifests()
    ]


def _fill(con: duckdb.DuckDBPyConnection, name: str, columns: str, records: list[dict[str, Any]]) -> None:
    import json

    con.execute(f"CREATE TABLE {name} ({columns})")
    names = [column.split()[0] for column in columns.split(", ")]
    if not records:
        return
    values = [[_cell(record.get(n), json) for n in names] for record in records]
    con.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * len(names))})", values)


def _cell(value: Any, json: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def _view(con: duckdb.DuckDBPyConnection, root: Path, name: str, pattern: str, columns: str) -> None:
    empty = ", ".join(f"NULL::{column.split(maxsplit=1)[1]} AS {column.split()[0]}" for column in _split(columns))
    con.execute(f"CREATE TEMP TABLE _empty_{name} AS SELECT NULL::VARCHAR AS artifact, {empty} LIMIT 0")
    union = f"SELECT * FROM _empty_{name}"
    complete = [p for p in sorted(root.glob(pattern)) if (p.parent / "manifest.json").is_file()]
    if complete:
        files = ", ".join(f"'{_quoted(path)}'" for path in complete)
        union += (
            " UNION ALL BY NAME SELECT split_part(filename, '/', -2) AS artifact, * EXCLUDE (filename) "
            f"FROM read_parquet([{files}], filename = true, union_by_name = true)"
        )
    con.execute(f"CREATE TEMP VIEW {name} AS {union}")


def _split(columns: str) -> list[str]:
    """Split a column list at the commas that are not inside a STRUCT."""
    parts, depth = [""], 0
    for char in columns:
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts]


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
