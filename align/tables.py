"""The tables that stages hand to each other: their columns, and reading and writing them.

Parquet is written with one compression, no timestamps and in row order, so that equal rows give equal bytes.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))

ROWS = pa.schema([
    ("row_id", pa.string()),       # hash of content: the same row from two files is the same row
    ("source", pa.string()),       # the name that the recipe gives the source
    ("use", pa.string()),          # instructions, prompts, preferences, evaluation
    ("split", pa.string()),        # sft, preference, rejection, evaluation: by hash of the normalised prompt
    ("messages", MESSAGES),        # the turns before the response: system, user, assistant, ..., user
    ("prompt", pa.string()),       # those turns as one text (the user's words where there is one turn)
    ("response", pa.string()),     # the final assistant turn; null for prompts and preferences
    ("chosen", pa.string()),       # preferences only
    ("rejected", pa.string()),
    ("reference", pa.string()),    # what a grader compares with; null where there is none
    ("meta", pa.string()),         # JSON object of the columns that no shape knows
])  # fmt: skip

QUARANTINE = pa.schema([(n, pa.string()) for n in ("source", "file")] + [("line", pa.int64())]
                       + [(n, pa.string()) for n in ("reason", "text")])  # fmt: skip

KEPT = pa.schema([f for f in ROWS if f.name not in ("chosen", "rejected", "reference", "meta")])

FILTERED = pa.schema([*ROWS, ("kept", pa.bool_()), ("reason", pa.string()), ("evidence", pa.string())])

SAMPLES = pa.schema([
    ("prompt_id", pa.string()),    # the row_id of the prompt
    ("sample_id", pa.string()),
    ("sample_index", pa.int32()),
    ("text", pa.string()),
    ("finish_reason", pa.string()),  # stop (the end-of-turn token was drawn) or length
    ("n_tokens", pa.int32()),
])  # fmt: skip

SCORES = pa.schema([
    ("sample_id", pa.string()),
    ("judge", pa.string()),        # the grader's or judge's name, or "reward"
    ("score", pa.float64()),       # null where ungraded
    ("status", pa.string()),       # correct, wrong, ungraded, or scored
    ("detail", pa.string()),       # why, in words
])  # fmt: skip

PAIRS = pa.schema([
    ("pair_id", pa.string()),
    ("prompt_id", pa.string()),
    ("chosen_id", pa.string()),    # sample ids; null for imported pairs
    ("rejected_id", pa.string()),
    ("messages", MESSAGES),
    ("chosen", pa.string()),
    ("rejected", pa.string()),
    ("margin", pa.float64()),
    ("judge", pa.string()),
    ("held_out", pa.bool_()),      # kept from reward training, by hash of the prompt
])  # fmt: skip

EVALUATIONS = pa.schema([
    ("suite", pa.string()),
    ("item_id", pa.string()),      # the row_id of the question
    ("model", pa.string()),
    ("mode", pa.string()),         # greedy or sampled
    ("sample_index", pa.int32()),
    ("response", pa.string()),
    ("score", pa.float64()),       # null where ungraded
    ("status", pa.string()),       # correct, wrong, ungraded
    ("finish_reason", pa.string()),
    ("detail", pa.string()),
])  # fmt: skip

DROPPED = pa.schema([("row_id", pa.string()), ("reason", pa.string()), ("n_tokens", pa.int64())])

HELD_OUT = pa.schema([("pair_id", pa.string())]
                     + [(f"{side}_score", pa.float64()) for side in ("chosen", "rejected")]
                     + [(f"{side}_tokens", pa.int64()) for side in ("chosen", "rejected")])  # fmt: skip

SELECTION = pa.schema([("prompt_id", pa.string()), ("sample_id", pa.string()), ("arm", pa.string())])

COMPARISONS = pa.schema(
    [(n, pa.string()) for n in ("suite", "metric", "model", "against")]  # metric: greedy or sampled
    + [("n", pa.int64())]  # items graded for the model, or for both; against is null where the model stands alone
    + [(n, pa.float64()) for n in ("mean", "low", "high", "diff", "diff_low", "diff_high")]
)  # fmt: skip

TRAINING_LOG = pa.schema([("step", pa.int64()), ("name", pa.string()), ("value", pa.float64())])


def write(path: Path, rows: Iterable[Mapping[str, Any]] | pa.Table, schema: pa.Schema) -> int:
    """Write `rows` to a Parquet file with exactly `schema`; returns the number of rows. Missing keys are null."""
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows), schema=schema)
    table = table.select(schema.names).cast(schema)
    pq.write_table(table.replace_schema_metadata(None), os.fspath(path), compression="zstd")
    return table.num_rows


def read(path: Path, columns: list[str] | None = None, **equal: Any) -> list[dict[str, Any]]:
    """The rows of a Parquet file as dicts, where every column named in `equal` has that value."""
    filters = [(name, "=", value) for name, value in equal.items()] or None
    return pq.read_table(os.fspath(path), columns=columns, filters=filters).to_pylist()


def to_json(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, Unicode as it is."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
