"""Packed files and Parquet that are cut off or have a flipped bit: an error with line and byte, never fewer rows."""

import gzip
import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hostile import GOOD, refusal

from align.data.readers import read_file
from align.errors import InputError
from tasks.ingest import IngestConfig, Source, ingest


def jsonl(n: int) -> bytes:
    """Rows that pack badly, so that a quarter of a packed file is some quarter of the rows."""
    rnd = random.Random(0)
    return b"".join(json.dumps({"q": f"{i}?", "a": f"{rnd.getrandbits(256):x}"}).encode() + b"\n" for i in range(n))


def frames(data: bytes, n: int) -> bytes:
    size = -(-len(data) // n)
    return b"".join(zstandard.compress(data[i : i + size]) for i in range(0, len(data), size))


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "one.zst": zstandard.compress,
    "many.zst": lambda data: frames(data, 7),
    "checked.zst": zstandard.ZstdCompressor(write_checksum=True).compress,
    "skip.zst": lambda data: b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + zstandard.compress(data),
    "one.gz": gzip.compress,
    "many.gz": lambda data: gzip.compress(data[:999]) + gzip.compress(data[999:]),
}


@pytest.mark.parametrize("name", PACKED)
def test_a_packed_file_that_is_cut_off_is_an_error_with_line_and_byte(tmp_path: Path, name: str) -> None:
    """A quarter of 20,000 rows; and a glob that finds the file between two whole ones."""
    data = jsonl(20_000)
    packed = PACKED[name](data)
    path = tmp_path / f"b.jsonl.{name}"
    path.write_bytes(packed)
    assert sum(line.row is not None for line in read_file(path)) == 20_000
    path.write_bytes(packed[: len(packed) // 4])
    sentence = refusal(path)
    found = re.search(r"b\.jsonl\.\w+\.\w+:(\d+): the (zstd|gzip) data is damaged or cut off at byte (\d+)", sentence)
    assert found and 3000 < int(found[1]) < 6000 and int(found[3]) == len(packed) // 4
    for other in "ac":
        (tmp_path / f"{other}.jsonl").write_bytes(GOOD)
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match=re.escape(sentence)):
        ingest(IngestConfig(sources={"s": Source(path=tmp_path / "*.jsonl*")}), tmp_path / "out")


@pytest.mark.parametrize("name", PACKED)
def test_a_packed_file_is_never_short_wherever_it_is_cut(tmp_path: Path, name: str) -> None:
    """Cut at every byte: refused, but where a whole frame ends there, which no reader could know."""
    data = jsonl(40)
    packed = PACKED[name](data)
    ends = {len(gzip.compress(data[:999]))} if name == "many.gz" else set()
    if name == "many.zst":
        size = -(-len(data) // 7)
        ends = {len(frames(data[: size * k], k)) for k in range(1, 7)}
    silent = set()
    for n in range(1, len(packed)):
        (tmp_path / f"a.jsonl.{name}").write_bytes(packed[:n])
        try:
            list(read_file(tmp_path / f"a.jsonl.{name}"))
            silent.add(n)
        except InputError:
            continue
    assert silent <= ends


@pytest.mark.parametrize("name", ["checked.zst", "one.gz", "many.gz"])
def test_a_flipped_bit_of_data_with_a_checksum_is_found(tmp_path: Path, name: str) -> None:
    data = jsonl(60)
    packed = PACKED[name](data)
    path = tmp_path / f"a.jsonl.{name}"
    path.write_bytes(packed)
    whole = [line.row for line in read_file(path)]
    for at in range(0, len(packed), 5):
        path.write_bytes(packed[:at] + bytes([packed[at] ^ 1 << at % 8]) + packed[at + 1 :])
        try:
            assert [line.row for line in read_file(path)] == whole  # such as the time in a gzip header
        except InputError as e:
            assert "damaged" in str(e) or "though its name says so" in str(e) or "cut off" in str(e)


@pytest.mark.parametrize("compression", ["none", "zstd", "snappy", "gzip"])
def test_damaged_parquet(tmp_path: Path, compression: str) -> None:
    """Cut anywhere it is refused; with the checksums that the format has, so is a flipped bit of its pages."""
    table = pa.Table.from_pylist([{"q": f"{i}?", "a": f"{i * 7919 % 1000}", "n": i} for i in range(3000)])
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, compression=compression, row_group_size=500, write_page_checksum=True)
    data, whole = path.read_bytes(), table.to_pylist()
    assert [line.row for line in read_file(path)] == whole
    for n in range(4, len(data), len(data) // 50):
        path.write_bytes(data[:n])
        assert "is a damaged Parquet file" in refusal(path)
    rnd = random.Random(0)
    for at in (rnd.randrange(len(data)) for _ in range(150)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << rnd.randrange(8)]) + data[at + 1 :])
        try:
            assert [line.row for line in read_file(path)] == whole
        except InputError:
            continue
