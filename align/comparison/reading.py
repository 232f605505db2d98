"""Parquet files of two runs as views of one DuckDB connection, which reads the columns that a question names only."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.dataset as ds

Row = dict[str, Any]


def connect(**files: Path) -> duckdb.DuckDBPyConnection:
    """A connection in memory that opens no file itself. Each Parquet file is a view by its argument's name."""
    con = duckdb.connect(":memory:")
    for setting in ("python_enable_replacements", "enable_external_access", "autoinstall_known_extensions",
                    "autoload_known_extensions"):  # fmt: skip
        con.execute(f"SET {setting} = false")
    for name, path in files.items():
        con.register(name, ds.dataset(path, format="parquet"))
    return con


def rows(con: duckdb.DuckDBPyConnection, query: str, **parameters: Any) -> list[Row]:
    """The answer to a question as dicts."""
    cursor = con.execute(query, parameters) if parameters else con.execute(query)
    names = [column[0] for column in cursor.description or []]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def by_key(found: Sequence[Row], *keys: str) -> dict[tuple[Any, ...], Row]:
    """Rows by some of their columns, the first of several."""
    known: dict[tuple[Any, ...], Row] = {}
    for row in found:
        known.setdefault(tuple(row[k] for k in keys), row)
    return known
