"""Hostile files by what is wrong with them, what becomes of each, and the sentence of a refusal."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import zstandard

from align.data.readers import read_file
from align.errors import InputError
from tasks.ingest import IngestConfig, Source, ingest

GOOD = b'{"question": "What?", "answer": "That."}'
ROW = json.loads(GOOD)


def refusal(path: Path, **options: Any) -> str:
    """The one sentence with which a file is refused."""
    with pytest.raises(InputError) as e:
        list(read_file(path, **options))
    sentence = str(e.value)
    assert sentence.isprintable() and len(sentence) < 600, sentence
    return sentence


def wide(log: int) -> bytes:
    """Rows in a zstd frame with a window of 2 ** `log` bytes."""
    asked = zstandard.ZstdCompressionParameters(window_log=log, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=asked).compressobj()  # which does not know how little comes
    return packer.compress((GOOD + b"\n") * 100) + packer.flush()


def through(path: Path, share: float = 0.01, **options: Any) -> tuple[int, list[tuple[int, str]]]:
    """How many rows ingest makes of a file, and which lines it sets aside for which reason; `share` may be bad."""
    out = path.parent / "out"
    out.mkdir(exist_ok=True)
    ingest(IngestConfig(sources={"s": Source(path=path, **options)}, max_bad_share=share), out)
    bad = pq.read_table(out / "quarantine.parquet").to_pylist()
    assert all(b["reason"].isprintable() and len(b["reason"]) <= 300 and len(b["text"]) <= 2000 for b in bad)
    return pq.read_metadata(out / "rows.parquet").num_rows, [(b["line"], b["reason"]) for b in bad]


def deep(n: int) -> bytes:
    return b'{"question": ' + b"[" * n + b"]" * n + b', "answer": "x"}'


BAD_ROWS: dict[str, tuple[bytes, str]] = {
    "3,000 brackets": (deep(3000), "is nested more than 100 deep"),
    "3,000 objects": (b'{"question": ' * 3000 + b"1" + b"}" * 3000, "is nested more than 100 deep"),
    "100,000 brackets": (deep(100_000), "is nested more than 100 deep"),
    "120 brackets": (deep(120), "is nested more than 100 deep"),
    "brackets in a text": (b'{"answer": 5, "question": ' + b'["]]}}\\"",' * 3000 + b"1" + b"]" * 3000 + b"}", "nested"),
    "5,000 digits": (b'{"question": ' + b"7" * 5000 + b', "answer": "x"}', "integer of more than 4,300 digits"),
    "5,000 digits below": (b'{"question": "x", "a": [{"b": -' + b"7" * 5000 + b"}]}", "integer of more than 4,300"),
    "a key twice": (b'{"question": "x", "answer": "y", "answer": "z"}', "has the key 'answer' twice"),
    "a key twice below": (b'{"question": "x", "answer": "y", "m": [{"k": 1, "k": 1}]}', "has the key 'k' twice"),
    "a lone surrogate": (b'{"question": "a\\ud800", "answer": "y"}', "question holds a lone surrogate"),
    "half a pair": (b'{"question": "a", "answer": "\\udc00\\ud83d"}', "answer holds a lone surrogate"),
    "a surrogate in a key": (b'{"question": "a", "answer": "y", "\\ud800": 1}', "holds a lone surrogate"),
    "an escaped NUL": (b'{"question": "a\\u0000b", "answer": "y"}', "question holds a NUL character"),
    "a NUL": (b'{"question": "a\0b", "answer": "y"}', "question holds a NUL character"),
    "null": (b'{"question": null, "answer": "y"}', "question is null"),
    "NaN": (b'{"question": NaN, "answer": "y"}', "question is null"),
    "an infinite number": (b'{"question": 1e999, "answer": "y"}', "question is infinite"),
    "bytes": (b"{\"question\": [1], \"answer\": \"y\"}", "question is a list"),
    "a list": (b"[1]", "is a JSON list"),
    "a number": (b"12", "is a JSON int"),
    "nothing": (b"null", "is a JSON NoneType"),
}  # fmt: skip
BAD_LINES = BAD_ROWS | {
    "half a row": (b'{"question": "a', "is not valid JSON"),
    "an open bracket": (b'{"question": [[[1', "is not valid JSON"),
    "open objects": (b'{"a":' * 3000, "is nested more than 100 deep"),
    "NULs": (b"\0" * 80, "is not valid JSON"),
    "two rows": (GOOD + b" " + GOOD, "is not valid JSON (Extra data)"),
    "no JSON": (b"\x1b[31m<html>", "is not valid JSON"),
}


READ_ANYWAY: dict[str, tuple[str, bytes, list[Any]]] = {
    "marks at the start": ("a.jsonl", b"\xef\xbb\xbf\xef\xbb\xbf" + GOOD, [ROW]),
    "a mark before each line": ("a.jsonl", (b"\xef\xbb\xbf" + GOOD + b"\n") * 3, [ROW] * 3),
    "CR ends, JSONL": ("a.jsonl", GOOD + b"\r" + GOOD, [ROW] * 2),
    "CR ends, CSV": ("a.csv", b'q,a\r1,"x\ry"\r2,z\r', [{"q": "1", "a": "x\ny"}, {"q": "2", "a": "z"}]),
    "blank lines before a header": ("a.csv", b"\n\r\n,\nq,a\n1,2\n", [{"q": "1", "a": "2"}]),
    "a mark before a header": ("a.csv", b"\xef\xbb\xbfq,a\n1,2\n", [{"q": "1", "a": "2"}]),
    "tabs and lines in a string": ("a.json", b'[{"q": "a\tb\n"}]', [{"q": "a\tb\n"}]),
    "NaN": ("a.json", b'[{"q": NaN, "a": -Infinity}]', [{"q": None, "a": None}]),
    "4,300 digits": ("a.json", b"[{}]".replace(b"{}", b'{"q": ' + b"7" * 4300 + b"}"), [{"q": int("7" * 4300)}]),
    "99 brackets": ("a.jsonl", deep(98), [json.loads(deep(98))]),
    "a huge line": ("a.jsonl", b'{"q": "' + b"x" * 20_000_000 + b'"}\n{}', [{"q": "x" * 20_000_000}, {}]),
    "a huge field": ("a.csv", b'q,a\n1,"' + b"x\n" * 5_000_000 + b'"\n', [{"q": "1", "a": "x\n" * 5_000_000}]),
    "a window of 128 MiB": ("a.jsonl.zst", wide(27), [ROW] * 100),
    "a comma apart": ("a.json", b"[" + GOOD + b" " * 2_000_000 + b"," + b"\n" * 2_000_000 + GOOD + b"]", [ROW] * 2),
}


REFUSED: dict[str, tuple[str, bytes, str]] = {
    "an opening quote": ("a.csv", b'"', "a.csv:1: the header is not valid CSV"),
    "opening quotes": ("a.csv", b'"' * 99, "the header is not valid CSV"),
    "a header that is not closed": ("a.csv", b'q,"a\n1,2\n' * 9, "the header is not valid CSV"),
    "commas": ("a.csv", b",,,\n,\n", "holds no header"),
    "a twofold column": ("a.csv", b"q,a,q\n1,2,3\n", "two columns have the same name in the header, 'q'"),
    "a wild header": ("a.csv", b"\x1b[2J" + b"x" * 5000 + b"\n1\n", "has one column ('\\x1b[2J"),
    "no row is CSV": ("a.csv", b'q,a\n' + b'"a" b,"c" "d"\n' * 300, "a.csv:2: the row is not valid CSV"),
    "UTF-16": ("a.jsonl", GOOD.decode().encode("utf-16"), "set `encoding`, for example to utf-16"),
    "UTF-16 without a mark": ("a.jsonl", GOOD.decode().encode("utf-16-le"), "is not text: it holds NUL bytes"),
    "a byte that is no text": ("a.jsonl", (GOOD + b"\n") * 30_000 + b'{"q": "\xff"}', "a.jsonl:30001: the file is not utf-8"),
    "half a character": ("a.jsonl", GOOD[:-3] + "답".encode()[:2], "the file is not utf-8 text"),
    "brackets only": ("a.jsonl", b"[" * 3000, "a.jsonl:1: not valid JSON (brackets that are never closed)"),
    "an open array": ("a.json", b"[\n" + GOOD + b",\n" + GOOD, "ends inside its JSON array, at line 3"),
    "an array and more": ("a.json", b"[" + GOOD + b"]" + b" " * 2_000_000 + b"]", "text follows the end of the JSON array"),
    "no comma": ("a.json", b"[" + GOOD + b" " * 2_000_000 + GOOD + b"]", "a comma or ] is missing"),
    "NULs": ("a.jsonl", b"\0" * 4096, "is not text: it holds NUL bytes"),
    "white space": ("a.jsonl", b" \n\t\r\n" * 999, "is empty"),
    "a mark only": ("a.jsonl", b"\xef\xbb\xbf", "is empty"),
    "packed nothing": ("a.jsonl.zst", zstandard.compress(b""), "is empty"),
    "twice packed": ("a.jsonl.gz", gzip.compress(gzip.compress(GOOD * 9, mtime=0), mtime=0), "the file is not utf-8 text"),
    "garbage after a frame": ("a.jsonl.zst", zstandard.compress(GOOD) + b"garbage", "data is damaged or cut off"),
    "packed Parquet": ("a.parquet.gz", gzip.compress(b"PAR1", mtime=0), "is Parquet packed once more, which is not read"),
    "two bytes of zstd": ("a.jsonl.zst", b"\x28\xb5", "is cut off at byte 2"),
    "three bytes of zstd": ("a.jsonl.zst", b"\x28\xb5\x2f", "is cut off at byte 3"),
    "a byte of gzip": ("a.jsonl.gz", b"\x1f", "is cut off at byte 1"),
    "three bytes of Parquet": ("a.parquet", b"PAR", "is cut off at byte 3"),
    "three bytes that are not zstd": ("a.jsonl.zst", b"abc", "is not zstd, though its name says so"),
    "a window of 256 MiB": ("a.jsonl.zst", wide(28), "is zstd with a window of more than 128 MiB, which is not read"),
    "bzip2": ("a.jsonl", b"BZh91AY&SY", "is a bzip2 file, which is not read"),
    "xz": ("a.jsonl", b"\xfd7zXZ\0", "is a xz file, which is not read"),
    "four bytes of Parquet": ("a.parquet", b"PAR1", "is a damaged Parquet file"),
    "Parquet of a huge footer": ("a.parquet", b"PAR1\xff\xff\xff\x7fPAR1", "is a damaged Parquet file"),
}  # fmt: skip
