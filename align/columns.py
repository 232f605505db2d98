"""What tables are described with: the kinds of columns, and a sentence for each table and column."""

import pyarrow as pa

TEXT, WHOLE, REAL, FLAG, INDEX = pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.int32()


def table(about: str, **columns: tuple[pa.DataType, str]) -> pa.Schema:
    """A schema whose columns are described by a type and a sentence."""
    fields = [pa.field(name, kind, metadata={"about": text}) for name, (kind, text) in columns.items()]
    return pa.schema(fields, metadata={"about": about})


def more(schema: pa.Schema, about: str, **columns: tuple[pa.DataType, str]) -> pa.Schema:
    """A schema with further columns."""
    return pa.schema([*schema, *table(about, **columns)], metadata={"about": about})
