"""The labels file: what becomes of verdicts, of several writers, and of files that are none; and what is asked."""

import re
from multiprocessing import get_context
from pathlib import Path

import pytest
from labelling import PROMPTS, run_of, said
from served import PATIENCE

from align.errors import InputError
from align.labelling.contests import Asked, left_of, pairs
from align.labelling.labels import Labels
from flows.cli import main
from flows.label import samples_of
from storage.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("labelled") / "store")
    run_of(store, stages=("sample",))  # as where ingest was cached and not selected
    return store


@pytest.fixture(scope="module")
def asked(store: Store) -> list[Asked]:
    return pairs(*samples_of(store, None), PROMPTS, 0)


def test_the_last_verdict_counts_and_a_majority_decides(tmp_path: Path, asked: list[Asked]) -> None:
    labels = Labels(tmp_path / "labels.jsonl")
    for winner in ("first", "second", "tie"):
        labels.put(asked[0], "ann", winner, "first")
    (line,) = labels.read().values()
    assert [v.winner for v in line.verdicts] == ["tie"] and line.chosen is None
    for who, winner in [("bo", "second"), ("cy", "second"), ("di", "first"), ("em", "skip")]:
        labels.put(asked[0], who, winner, "first")  # type: ignore[arg-type]
    assert labels.read()[asked[0].pair_id].chosen is None  # two of four are no majority
    labels.put(asked[0], "ann", "second", "second")
    line = labels.read()[asked[0].pair_id]
    assert line.chosen == [{"role": "assistant", "content": asked[0].responses[1]}]
    assert line.rejected == [{"role": "assistant", "content": asked[0].responses[0]}]
    for who in ("ann", "bo", "cy", "di", "em"):
        labels.take_back(asked[0].pair_id, who)
    assert labels.path.read_bytes() == b""


def write_many(path: Path, asked: list[Asked], by: str) -> None:
    labels = Labels(path)
    for pair in asked:
        labels.put(pair, by, "first", "first")


def test_people_who_write_at_once_lose_nothing(tmp_path: Path, asked: list[Asked]) -> None:
    file = tmp_path / "labels.jsonl"
    people = [get_context("spawn").Process(target=write_many, args=(file, asked, f"p{i}")) for i in range(3)]
    for process in people:
        process.start()
    for process in people:
        process.join(PATIENCE)
    assert [process.exitcode for process in people] == [0, 0, 0]
    found = Labels(file).read()
    assert len(found) == PROMPTS and all({v.by for v in line.verdicts} == {"p0", "p1", "p2"} for line in found.values())


def test_a_file_that_is_cut_off_joined_or_has_leftovers(
    tmp_path: Path, asked: list[Asked], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "labels.jsonl"
    write_many(file, asked[:3], "ann")
    whole = file.read_bytes()
    other = tmp_path / "other.jsonl"
    write_many(other, asked[1:4], "bo")
    leftover = tmp_path / f".labels.jsonl.{'a' * 32}"
    leftover.write_text("half")
    file.write_bytes(whole[:-30])
    main(["label", "--to", str(file), "--agreement"])
    assert "the last line of" in capsys.readouterr().err and not leftover.exists()
    assert file.read_bytes() == b"".join(whole.splitlines(keepends=True)[:2])
    file.write_bytes(whole + other.read_bytes().rstrip(b"\n"))
    labels = Labels(file)
    assert not labels.cut_off and len(said(file)) == 4  # one line for each pair
    assert [len(line["verdicts"]) for line in said(file)] == [1, 2, 2, 1]
    main(["label", "--to", str(file), "--agreement"])
    assert re.search(r"ann\s+bo\s+2\s+1\.0000", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("hello", "1 is no line"), ('{"a": 1}\n', "1 is no line"), ("{}\n\n", "no line"), ("\n", "1 is no line")],
)
def test_another_file_is_refused_and_left_as_it_is(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "notes.jsonl"
    file.write_text(text)
    with pytest.raises(InputError, match=reason):
        Labels(file)
    assert file.read_text() == text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "no such run"),
        (["--as", "a/b"], "--as 'a/b'"),
        (["--as", "x" * 65], "a name is up to 64"),
        (["--n", "0"], "--n is a number"),
        (["--seed", "-1"], "--seed"),
        (["--language", "fr"], "fr"),
        (["--port", "70000"], "no such port"),
        (["--json"], "--json goes with --agreement"),
        (["--to", "labels.csv"], "ends with .jsonl"),
        (["--agreement"], "no such labels file"),
        (["--store", "nowhere"], "no store"),
        (["same"], "raise sample.n"),
        (["rows"], "did not finish sample"),
    ],
)
def test_bad_usage_is_one_sentence(
    store: Store,
    tmp_path: Path,
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if words == ["same"]:
        store = Store(tmp_path / "other")
        words = [run_of(store, value=0)]
    elif words == ["rows"]:
        words = [run_of(store, stages=("ingest",))]
    given = ["--to", "labels.jsonl", "--store", str(store.root)]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["label", *(w for pair in zip(given[::2], given[1::2], strict=True) if pair[0] not in words for w in pair), *words])  # fmt: skip
    told = capsys.readouterr()
    assert ended.value.code == 2 and message in told.err and not told.out and len(told.err.splitlines()) == 1, told
    assert not (tmp_path / "labels.jsonl").exists()


def test_pairs_and_sides_are_the_same_each_time_and_more_of_them_keep_the_first(
    store: Store, asked: list[Asked]
) -> None:
    where = samples_of(store, None)
    assert pairs(*where, 5, 0) == asked[:5] and pairs(*where, PROMPTS, 1) != asked
    assert all(text.startswith(("Yes", "No")) for pair in asked for text in pair.responses)  # none is cut off
    sides = {who: [left_of(f"{i:016x}", who, 0) for i in range(400)] for who in ("ann", "bo")}
    assert all(160 < side.count("first") < 240 for side in sides.values()) and sides["ann"] != sides["bo"]
