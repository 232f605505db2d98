"""A warehouse made on the spot, and limits, for tests of the sandbox."""

from pathlib import Path

import duckdb

from align.grading.sandbox import Limits

LIMITS = Limits(seconds=0.8, deadline=60, memory_mb=128, rows=500, result_kb=256, query_chars=5000)
ROWS = 2000


def build(folder: Path) -> Path:
    folder.mkdir()
    duckdb.connect().execute(
        f"COPY (SELECT i AS id, 'name ' || i AS name, i % 7 AS grp FROM range({ROWS}) t(i)) TO '{folder}/t.parquet'"
    )
    (folder / "city.csv").write_text("id,name\n1,서울\n2,Busan\n", encoding="utf-8")
    return folder
