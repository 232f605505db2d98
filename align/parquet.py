"""Reading and writing the tables of align/tables.py as Parquet: with one compression, no timestamps and in row order,
so that equal rows give equal bytes."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

TOOLS = ("tool_calls", "tool_call_id", "name", "tools")
"""What a turn may have of tools besides role and content, null in most. tool_calls and tools are JSON, as OpenAI's."""


def about(described: pa.Schema | pa.Field) -> str:
    """The sentence about a table or a column."""
    return (described.metadata or {}).get(b"about", b"").decode()


def bare(schema: pa.Schema) -> pa.Schema:
    """The schema without the sentences, which are not for files."""
    return pa.schema([(field.name, field.type) for field in schema])


def write(path: Path, rows: Iterable[Mapping[str, Any]] | pa.Table, schema: pa.Schema) -> int:
    """Write `rows` to a Parquet file with exactly `schema`; returns the number of rows. Missing keys are null."""
    plain = bare(schema)
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows), schema=plain)
    pq.write_table(
        table.select(plain.names).cast(plain).replace_schema_metadata(None), os.fspath(path), compression="zstd"
    )
    return table.num_rows


def read(path: Path, columns: list[str] | None = None, **equal: Any) -> list[dict[str, Any]]:
    """The rows of a Parquet file as dicts, where every column named in `equal` has that value.

    Columns that the file lacks are left out. Turns have what they have of tools, and no nulls.
    """
    filters = [(name, "=", value) for name, value in equal.items()] or None
    there = columns and [name for name in pq.read_schema(os.fspath(path)).names if name in columns]
    rows = pq.read_table(os.fspath(path), columns=there, filters=filters).to_pylist()
    for row in rows:
        if row.get("messages"):
            row["messages"] = [spoken(m) for m in row["messages"]]
    return rows


def spoken(turn: Mapping[str, Any]) -> dict[str, Any]:
    """A turn without the nulls of what it has not."""
    return {k: v for k, v in turn.items() if v is not None or k not in TOOLS}


def completed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with exactly the columns of a schema; those that it lacks, being of an older version, are null."""
    for field in schema:
        if field.name not in table.schema.names:
            table = table.append_column(field.name, pa.nulls(table.num_rows, field.type))
    return table.select(schema.names).cast(bare(schema))


def to_json(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, Unicode as it is."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
