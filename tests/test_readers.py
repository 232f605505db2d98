"""Containers: what a file holds decides, not its name; and each way in which a file can be wrong."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from align.data import streams
from align.data.readers import expand, read_file
from align.errors import InputError

ROWS = [{"instruction": f"Frage {i} — 질문?", "output": 'a\nb, "c" 답'} for i in range(5)]
LINES = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in ROWS)
ARRAY = json.dumps(ROWS, ensure_ascii=False, indent=2)


def rows(path: Path, **options: str) -> list[dict]:
    return [line.row for line in read_file(path, **options)]  # type: ignore[misc]


@pytest.mark.parametrize(
    "name, data",
    [
        ("a.jsonl", LINES.encode()),
        ("a.json", ARRAY.encode()),
        ("array.jsonl", ARRAY.encode()),
        ("lines.json", LINES.encode()),
        ("bom.jsonl", b"\xef\xbb\xbf" + LINES.encode()),
        ("bom.json", b"\xef\xbb\xbf" + ARRAY.encode()),
        ("crlf.jsonl", LINES.replace("\n", "\r\n").encode()),
        ("blank.jsonl", LINES.replace("\n", "\n\n").encode()),
        ("noend.jsonl", LINES.strip().encode()),
        ("one_line.json", json.dumps(ROWS).encode()),
        ("pretty.jsonl", "\n".join(json.dumps(r, indent=1) for r in ROWS).encode()),
        ("a.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)),
        ("a.json.gz", gzip.compress(ARRAY.encode(), mtime=0)),
        ("a.jsonl.zst", zstandard.compress(LINES.encode())),
        ("two_frames.jsonl.zst", zstandard.compress(LINES[:50].encode()) + zstandard.compress(LINES[50:].encode())),
        ("unnamed", LINES.encode()),
    ],
)
def test_json(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    assert rows(tmp_path / name) == ROWS


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("name, comma", [("a.csv", ","), ("a.tsv", "\t"), ("a.csv.gz", ",")])
def test_csv(tmp_path: Path, name: str, comma: str, end: str) -> None:
    text = comma.join(["Q", "A"]) + end + "".join(f'q{i}{comma}"a, ""{i}""{end}b"{end}' for i in range(3))
    data = ("\ufeff" + text).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    found = list(read_file(tmp_path / name))
    assert [line.row for line in found] == [{"Q": f"q{i}", "A": f'a, "{i}"{end}b'} for i in range(3)]
    assert [line.number for line in found] == [2, 4, 6]


def test_parquet_and_line_numbers(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert rows(tmp_path / "a.parquet") == ROWS
    (tmp_path / "a.jsonl").write_text(LINES + "\n{broken\n[1]\n", encoding="utf-8")
    found = list(read_file(tmp_path / "a.jsonl"))
    assert [(line.number, line.problem) for line in found[5:]] == [
        (7, "is not valid JSON (Expecting property name enclosed in double quotes)"),
        (8, "is a JSON list, not an object"),
    ]
    (tmp_path / "a.json").write_text(ARRAY, encoding="utf-8")
    assert [line.number for line in read_file(tmp_path / "a.json")] == [2, 6, 10, 14, 18]


def test_csv_row_with_another_number_of_fields(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("q,a\nx,y\nx,y,z\n\nx,y\n")
    assert [line.problem for line in read_file(tmp_path / "a.csv")] == [
        None, "has 3 fields where the header has 2", None]  # fmt: skip


def test_other_encodings(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("질문,답변\n안녕,네\n".encode("cp949"))
    assert rows(tmp_path / "a.csv", encoding="cp949") == [{"질문": "안녕", "답변": "네"}]
    with pytest.raises(InputError, match="is not utf-8 text .*cp949"):
        rows(tmp_path / "a.csv")


def test_blocks_may_end_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elements of an array, escapes, numbers and literals that straddle the end of what was read."""
    data = [{"a": "x" * i + "\\u00e9\n", "n": 12345.5, "t": True, "z": None, "l": [1, {"k": "v"}]} for i in range(60)]
    (tmp_path / "a.json").write_text(json.dumps(data, indent=1))
    (tmp_path / "b.json").write_text("\n".join(json.dumps(d, indent=1) for d in data))
    (tmp_path / "c.jsonl").write_text("\n".join(json.dumps(d) for d in data))
    for block in (40, 64, 100, 1000):
        monkeypatch.setattr(streams, "BLOCK", block)
        for name in ("a.json", "b.json", "c.jsonl"):
            assert rows(tmp_path / name) == data, (block, name)


@pytest.mark.parametrize(
    "name, data, sentence",
    [
        ("a.jsonl", b"", "a.jsonl is empty"),
        ("a.jsonl", b"  \n\n", "is empty"),
        ("a.parquet", LINES.encode(), "is not a Parquet file, though its name says so"),
        ("a.parquet", b"PAR1 and nothing", "is a damaged Parquet file"),
        ("a.jsonl", b"PAR1....PAR1", "holds Parquet, though its name says JSON"),
        ("a.jsonl.gz", LINES.encode(), "is not gzip, though its name says so"),
        ("a.jsonl.zst", gzip.compress(b"{}", mtime=0), "is not zstd, though its name says so"),
        ("a.jsonl.gz", gzip.compress(LINES.encode() * 99, mtime=0)[:-30], "is damaged"),
        ("a.json", b"q,a\nx,y\n", "is not JSON: it begins with"),
        ("a.csv", LINES.encode(), "holds JSON, though its name says CSV"),
        ("a.csv", b"only\nx\n", "has one column"),
        ("a.csv", b"a,a\nx,y\n", "two columns have the same name"),
        ("a.txt", b"hello", "cannot tell what"),
        ("a.zip", b"PK\x03\x04....", "is a zip file"),
        ("a.jsonl", b"\x00\x01\x02{}", "is not text"),
        ("a.json", ARRAY.encode()[:-20], "a.json:"),
        ("a.json", b'[{"a": 1},\n {"a": oops}]', "a.json:2: not valid JSON"),
        ("a.json", b'[{"a": 1} {"a": 2}]', "comma or ] is missing"),
        ("a.json", b'[{"a": 1}] x', "text follows the end"),
    ],
)
def test_each_wrong_file_has_its_sentence(tmp_path: Path, name: str, data: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=".*".join(map(__import__("re").escape, sentence.split("*")))):
        rows(tmp_path / name)


def test_names(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "c.txt"):
        (tmp_path / name).write_text("{}")
    assert [p.name for p in expand(tmp_path / "*.jsonl")] == ["a.jsonl", "b.jsonl"]
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "z.jsonl").write_text("{}")
    assert [p.name for p in expand(tmp_path / "**" / "*.jsonl")] == ["a.jsonl", "b.jsonl", "z.jsonl"]
    for wrong, sentence in ((tmp_path / "none.json", "there is no file"), (tmp_path / "*.csv", "no file matches"),
                            (tmp_path, "is a directory")):  # fmt: skip
        with pytest.raises(InputError, match=sentence):
            expand(wrong)
