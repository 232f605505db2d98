"""The folder that a sandbox loads: its tables, their types, and the errors of a bad one."""

from pathlib import Path

import pytest
from sandboxes import build

from align.errors import InputError
from align.grading.sandbox import Sandbox


def test_a_relative_path_is_the_callers(warehouse: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(warehouse.parent)
    with Sandbox(Path(warehouse.name)) as box:
        assert [r.rows for r in box.run(["SELECT count(*) FROM city"])] == [[[2]]]


def test_schema_sql_shapes_the_tables(tmp_path: Path) -> None:
    folder = build(tmp_path / "w")
    (folder / "city.csv").write_text("name,id\nSeoul,01\nBusan,02\n")
    (folder / "schema.sql").write_text(
        "CREATE TABLE city (id VARCHAR PRIMARY KEY, name VARCHAR NOT NULL);\n"
        "CREATE TABLE t (id BIGINT, grp INTEGER, name VARCHAR);"
    )
    with Sandbox(folder) as box:
        city, t = box.run(["SELECT * FROM city ORDER BY id", "SELECT * FROM t WHERE id = 8"])
    assert city.rows == [["01", "Seoul"], ["02", "Busan"]]
    assert t.rows == [[8, 1, "name 8"]]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "holds no <table>.parquet"),
        ({"a.parquet": "not Parquet"}, "cannot be loaded"),
        ({"a.csv": "x\n1\n", "schema.sql": "CREATE TABLE a (y INTEGER);"}, "cannot be loaded"),
        ({"a.csv": "x\n1\n", "schema.sql": "CREATE TABEL a"}, "schema.sql cannot be run"),
    ],
)
def test_a_bad_warehouse_is_an_input_error(tmp_path: Path, files: dict[str, str], reason: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=reason), Sandbox(tmp_path):
        pass


def test_a_missing_warehouse_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such warehouse"):
        Sandbox(tmp_path / "none")
