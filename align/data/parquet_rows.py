"""Rows of Parquet files."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from align.data.streams import Line, twofold
from align.errors import InputError

BATCH = 1024  # rows made into Python objects at a time


def rows(path: Path) -> Iterator[Line]:
    """The rows of a file. InputError if it is damaged: cut off, or other than its checksums where it has them."""
    number = 0
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        if (twice := twofold(file.schema_arrow.names)) is not None:
            raise InputError(f"{path}: two columns have the same name, {twice[:40]!r}")
        for batch in file.iter_batches(batch_size=BATCH):
            yield from _lines(batch, number)
            number += len(batch)
    except (pa.ArrowException, OSError) as e:
        if "too deeply nested" in str(e):
            raise InputError(f"{path} has columns nested deeper than is read (some 50 lists): make them flat") from e
        why = " ".join(str(e).split())[:300]
        raise InputError(f"{path} is a damaged Parquet file, of which {number:,} rows could be read ({why})") from e


def _lines(batch: pa.RecordBatch, before: int) -> Iterator[Line]:
    try:
        rows = batch.to_pylist()
    except Exception as e:  # many unrelated types, for values that Python cannot hold
        if len(batch) > 1:
            half = len(batch) // 2
            yield from _lines(batch.slice(0, half), before)
            yield from _lines(batch.slice(half), before + half)
        else:
            yield Line(before + 1, None, f"holds a value that cannot be read ({' '.join(str(e).split())[:200]})")
        return
    yield from (Line(number, row) for number, row in enumerate(rows, before + 1))
