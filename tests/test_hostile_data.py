"""Hostile files and no files: nothing is lost in silence, and what is refused or set aside has one sentence."""

import datetime
import json
import os
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile import BAD_LINES, BAD_ROWS, GOOD, READ_ANYWAY, REFUSED, refusal, through

from align.data.readers import expand, read_file
from align.data.streams import twofold
from align.errors import InputError, StageError
from tasks.ingest import IngestConfig, Source, ingest


@pytest.mark.parametrize("name", BAD_LINES)
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_hostile_line_is_set_aside_alone(tmp_path: Path, name: str, end: bytes) -> None:
    data, reason = BAD_LINES[name]
    path = tmp_path / "a.jsonl"
    path.write_bytes(end.join([GOOD] * 150 + [data] + [GOOD] * 50))
    rows, ((line, why),) = through(path)
    assert rows == 200 and line == 151 and reason in why


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_hostile_element_is_set_aside_alone(tmp_path: Path, name: str) -> None:
    data, reason = BAD_ROWS[name]
    path = tmp_path / "a.json"
    path.write_bytes(b"[\n" + b" ,\n".join([GOOD] * 150 + [data] + [GOOD] * 50) + b"\n]\n")
    rows, ((line, why),) = through(path)
    assert rows == 200 and line == 152 and reason in why


def test_only_hostile_rows_are_one_sentence(tmp_path: Path) -> None:
    """The first row of a file tells its shape, and may be the worst of it."""
    for name, (data, reason) in BAD_LINES.items():
        if name == "two rows":  # which are a run of JSON values
            continue
        (tmp_path / "a.jsonl").write_bytes(data + b"\n" + data)
        with pytest.raises(InputError) as e:
            through(tmp_path / "a.jsonl")
        assert str(e.value).isprintable() and len(str(e.value)) < 700, reason


@pytest.mark.parametrize("name", READ_ANYWAY)
def test_what_looks_hostile_and_is_not(tmp_path: Path, name: str) -> None:
    file, data, rows = READ_ANYWAY[name]
    (tmp_path / file).write_bytes(data)
    assert [line.row for line in read_file(tmp_path / file)] == rows


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_one_sentence(tmp_path: Path, name: str) -> None:
    file, data, sentence = REFUSED[name]
    (tmp_path / file).write_bytes(data)
    assert sentence in refusal(tmp_path / file)


def test_a_name_that_comes_twice_among_very_many(tmp_path: Path) -> None:
    """Of objects, of headers and of Parquet; a search through all names for each of them would take half an hour."""
    names = [f"k{i}" for i in range(200_000)]
    (tmp_path / "a.jsonl").write_text("{" + ",".join(f'"{name}":1' for name in [*names, names[-1]]) + "}\n{}")
    first, second = read_file(tmp_path / "a.jsonl")
    assert first.problem == "has the key 'k199999' twice" and second.row == {}
    (tmp_path / "a.csv").write_text(",".join([*names, names[-1]]) + "\n")
    assert "two columns have the same name in the header, 'k199999'" in refusal(tmp_path / "a.csv")
    assert twofold(names) is None and twofold(iter([*names, "k7"])) == "k7"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_whatever_the_first_rows_are_a_bad_row_is_set_aside_alone(tmp_path: Path, end: str) -> None:
    """Rows that end in CR, rows longer than what is looked at to tell the form, and rows all of which are bad."""
    path, good = tmp_path / "a.jsonl", GOOD.decode()
    long = f'{{"question": "{"x" * 3_000_000}", "answer": "y"}}'
    for lines, bad in (
        ([good] * 150 + ["{oops"] + [good] * 50, [151]),
        ([long] + [good] * 150 + ["{oops"] + [good] * 50, [152]),
        ([long + "}"] + [good] * 200, [1]),
        (["{a", '{"b', '{"c": [', "{d}", "{e"] + [good] * 600, [1, 2, 3, 4, 5]),
        (["{"] * 30 + [good] * 3000, list(range(1, 31))),
    ):
        path.write_bytes(end.join(lines).encode())
        rows, aside = through(path)
        assert rows == len(lines) - len(bad) and [line for line, _ in aside] == bad


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_objects_over_several_lines(tmp_path: Path, end: str) -> None:
    """Read as such, whatever stands in one of their lines; an error says in which line it is."""
    rows = [{"question": f"{i}?", "answer": "x", "more": [{}, {"a": []}, {"b": {}}]} for i in range(50)]
    for indent in (0, 1, 4):
        text = "\n".join(json.dumps(row, indent=indent) for row in rows)
        (tmp_path / "a.json").write_bytes(text.replace("\n", end).encode())
        assert [line.row for line in read_file(tmp_path / "a.json")] == rows
    at = text.index('"30?"') + 5
    (tmp_path / "a.json").write_bytes((text[:at] + "oops" + text[at:]).replace("\n", end).encode())
    assert f"a.json:{text.count(chr(10), 0, at) + 1}: not valid JSON" in refusal(tmp_path / "a.json")


def test_a_run_of_objects_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes((GOOD + b" ") * 60_000)
    assert [line.row for line in read_file(tmp_path / "a.json")] == [json.loads(GOOD)] * 60_000


def test_encodings_that_do_not_fit(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(GOOD + "\n답".encode())
    for encoding in ("ascii", "utf-16", "utf-32", "idna", "punycode", "utf-7", "unicode_escape", "cp949"):
        try:
            list(read_file(tmp_path / "a.jsonl", encoding))
        except InputError as e:
            assert "a.jsonl" in str(e)


def table(**columns: pa.Array) -> pa.Table:
    n = len(next(iter(columns.values())))
    return pa.table({"question": [f"{i}?" for i in range(n)], "answer": ["x"] * n, **columns})


def nested(n: int) -> pa.Table:
    value = pa.array([1] * 3)
    for _ in range(n):
        value = pa.StructArray.from_arrays([value], ["x"])
    return table(deep=value)


def lists(n: int) -> pa.DataType:
    return pa.list_(lists(n - 1)) if n else pa.int32()


def test_values_of_parquet_that_python_cannot_hold(tmp_path: Path) -> None:
    """A date beyond the year 9999, a nanosecond, bytes that are no text: the row is set aside, and no other."""
    path = tmp_path / "a.parquet"
    days = pa.array([0] * 250, pa.int32()).to_pylist()
    late = days[:137] + [2_932_897] + days[138:]  # the first day of the year 10000
    raw = pa.array([b"x"] * 137 + [b"\xff"] + [b"x"] * 112, pa.binary())
    text = pa.StringArray.from_buffers(250, raw.buffers()[1], raw.buffers()[2])
    for column in (
        pa.array(late, pa.int32()).cast(pa.date32()),
        pa.array([d * 86_400 for d in late], pa.timestamp("s")),
        pa.array([-d * 86_400_000_000 for d in late], pa.timestamp("us")),
        text,
    ):
        pq.write_table(table(extra=column), path)
        rows, ((line, why),) = through(path)
        assert rows == 249 and line == 138 and "holds a value that cannot be read" in why
    for value in (datetime.date.max, b"\xff", float("nan"), float("inf"), [(1, 2)], {"a": [float("nan")]}):
        pq.write_table(table(extra=pa.array([value] * 3)), path)
        assert through(path) == (3, [])
        (meta,) = set(pq.read_table(tmp_path / "out" / "rows.parquet")["meta"].to_pylist())
        json.loads(meta, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_parquet_of_strange_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(nested(90), path)
    assert through(path) == (3, [])
    for n in (50, 99, 300, 400):
        pq.write_table(nested(300) if n == 300 else table(deep=pa.nulls(3, lists(n))), path)
        sentence = refusal(path)
        assert "has columns nested deeper than is read" in sentence and "damaged" not in sentence
    twice = pa.table([pa.array(["a"]), pa.array(["b"])], names=["answer", "answer"])
    pq.write_table(twice, path)
    assert "two columns have the same name, 'answer'" in refusal(path)


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "gone")
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    os.mkfifo(tmp_path / "pipe.jsonl")
    for path, sentence in (
        (tmp_path / "folder.jsonl", "is a directory"),
        (tmp_path / "link.jsonl", "there is no file .*, which its link points to"),
        (tmp_path / "loop.jsonl", "cannot be looked for|there is no file"),
        (tmp_path / "pipe.jsonl", "is no regular file"),
        (tmp_path / "f*.jsonl", "is a directory"),
        (tmp_path / "li*", "which its link points to"),
        (tmp_path / "p*", "is no regular file"),
        (Path("/dev/null"), "is no regular file"),
        (tmp_path / ("x" * 5000), "cannot be looked for: File name too long"),
        (tmp_path / "x" / ("*" * 5000), "no file matches|cannot be looked for"),
        (tmp_path / "a**b" / "*", "cannot be looked for|no file matches"),
        (tmp_path / "a\0b", "there is no file|cannot be looked for"),
        (tmp_path / "a\0b*", "no file matches|cannot be looked for"),
    ):
        with pytest.raises(InputError, match=sentence):
            expand(path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.jsonl").write_bytes(GOOD)
    (tmp_path / "sub" / "folder").mkdir()
    assert expand(tmp_path / "sub" / "*") == [tmp_path / "sub" / "a.jsonl"]


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert "cannot be read: Is a directory" in refusal(tmp_path / "folder")
    assert "cannot be read: No such file" in refusal(tmp_path / "gone.jsonl")
    if Path("/proc/self/mem").exists():  # an error of the device itself, for root too
        (tmp_path / "mem.jsonl").symlink_to("/proc/self/mem")
        assert "cannot be read: Input/output error" in refusal(tmp_path / "mem.jsonl")
    if os.geteuid() != 0:
        (tmp_path / "secret.jsonl").write_bytes(GOOD)
        (tmp_path / "secret.jsonl").chmod(0)
        assert "cannot be read: Permission denied" in refusal(tmp_path / "secret.jsonl")


def test_a_name_that_is_no_unicode(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jsonl"))
    path.write_bytes((GOOD + b"\n") * 200 + b"{")
    rows, ((line, _),) = through(path)
    assert rows == 200 and line == 201


COLUMNS = ["prompt", "instruction", "input", "output", "response", "chosen", "rejected", "label", "messages", "history",
           "conversations", "system", "tools", "turns", "reference", "question", "answer", "query", "\ud800", "\0", "\x1b"]  # fmt: skip
ATOMS = ["null", "true", "7", "-0.0", "NaN", "1e999", '""', '"text"', '"\\u0000"', '"\\ud800"', "1" * 400, "1" * 5000,
         '"\\n\\nHuman: a\\n\\nAssistant: b"', "[" * 200 + "]" * 200, "[" * 3000 + "]" * 3000, '"a\x00b"']  # fmt: skip


def nonsense(rnd: random.Random, depth: int = 0) -> str:
    kind = rnd.randrange(3) if depth < 3 else 0
    if kind == 0:
        return rnd.choice(ATOMS)
    if kind == 1:
        return "[" + ",".join(nonsense(rnd, depth + 1) for _ in range(rnd.randrange(4))) + "]"
    keys = rnd.sample(["role", "from", "content", "value", "type", "text", "tool_calls"], rnd.randrange(4))
    roles = ['"user"', '"assistant"', '"tool"', '"text"']
    return "{" + ",".join(f'"{k}":{rnd.choice([nonsense(rnd, depth + 1), *roles])}' for k in keys) + "}"


@pytest.mark.parametrize("seed", range(8))
def test_nonsense_never_ends_in_a_traceback(tmp_path: Path, seed: int) -> None:
    """Random rows of every shape's columns, some with a byte too many: rows, rows set aside, or one sentence."""
    rnd = random.Random(seed)
    for _ in range(40):
        columns = rnd.sample(COLUMNS, rnd.randrange(1, 6))

        def row(columns: list[str] = columns) -> str:
            values = [nonsense(rnd) if rnd.random() < 0.4 else '"some text"' for _ in columns]
            return "{" + ",".join(f"{json.dumps(c)}:{v}" for c, v in zip(columns, values, strict=True)) + "}"

        rows = [row() for _ in range(20)]
        text = "\n".join(rows) if rnd.random() < 0.5 else "[" + " ,\n".join(rows) + "]"
        if rnd.random() < 0.3:
            at = rnd.randrange(len(text))
            text = text[:at] + rnd.choice(['"', "\\", "{", "]", "\ufeff", "\r"]) + text[at:]
        (tmp_path / "a.json").write_text(text, encoding="utf-8", newline="")
        (tmp_path / "out").mkdir(exist_ok=True)
        use = rnd.choice(["instructions", "prompts", "preferences", "evaluation"])
        source = Source.model_validate({"path": tmp_path / "a.json", "use": use})
        try:
            ingest(IngestConfig(sources={"s": source}, max_bad_share=1), tmp_path / "out")
        except (InputError, StageError) as e:
            assert str(e).isprintable()
