"""Runs, champions, tags and gc of a shared store, seen from two machines."""

import multiprocessing
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from test_records import record
from test_shared import machine
from test_store import Knob, consume, made, produce

from align import tables
from storage import build, champions, journal, room, runs, tags
from storage.leases import LeaseLost
from storage.runs import Run, StageRun
from storage.shared import SharedStore
from storage.upkeep import verify
from storage.views import ask

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def url(any_url: str) -> str:
    return any_url


@pytest.fixture
def one(url: str, tmp_path: Path) -> SharedStore:
    return machine(url, tmp_path / "one", 3.0)


@pytest.fixture
def two(url: str, tmp_path: Path) -> SharedStore:
    return machine(url, tmp_path / "two", 3.0)


def _dies(url: str, root: str) -> None:
    Run(machine(url, Path(root), 3.0), "r", {}).stage(StageRun("a", "k", "a-1", "ran", 1.0, "", {"n": 1}))
    os._exit(9)


def test_runs_are_seen_by_all_and_known_by_how_they_ended(one, two, url):
    done = record(one, 2)
    going = Run(one, "r", {})
    child = SPAWN.Process(target=_dies, args=(url, str(one.root)))
    child.start()
    child.join(60)
    assert [r["status"] for r in runs.history(one)] == ["done", "running", "interrupted"]
    assert [r["status"] for r in runs.history(two)] == ["done", "running", "interrupted"]
    assert [s["stage"] for s in runs.stages(two, done)] == ["ingest"]
    going.finish("failed")
    assert [r["status"] for r in runs.history(two)] == ["done", "failed", "interrupted"]
    rows = ask(two, "SELECT run_id, stage FROM all_stage_runs ORDER BY 1")[1]
    assert rows == [(done, "ingest"), (runs.history(two)[2]["run_id"], "a")]
    assert ask(two, "SELECT count(*) FROM rows", done)[1] == [(2,)]


def test_a_champion_follows_one_and_tags_are_for_all(one, two):
    run = record(one, 1)
    made_ = runs.stages(one, run)[0]["artifact"]
    facts: dict[str, Any] = dict(run_id=run, model="a", artifact=made_, base={}, verdict="", decision=None)
    assert champions.crown(one, "r", 0, **facts) and champions.crown(two, "r", 0, **facts) is None
    found = champions.current(two, "r")
    assert found is not None and found.number == 1 and champions.latest(two) == found
    tags.put(one, "best", run)
    assert tags.names(two) == {"best": run, "champion:r": run} and tags.meant(two, "best") == run
    assert tags.remove(two, "best") and not tags.remove(one, "best") and tags.tags(one) == {}


def test_segments_are_made_of_many_entries_and_say_the_same(one, url, tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "MANY", 4)
    for value in range(1, 8):
        record(one, value)
        runs.history(one)  # whoever looks makes them
    assert len(one.bucket.names("index/000000000000")) >= 8
    fresh = machine(url, tmp_path / "fresh")
    assert runs.history(fresh) == runs.history(one) and len(runs.history(one)) == 7
    for query in ("SELECT count(*), count(DISTINCT key) FROM attempts", "SELECT sum(rows) FROM artifacts",
                  "SELECT count(*) FROM all_stage_runs", "SELECT count(*) FROM lineage"):  # fmt: skip
        assert ask(fresh, query) == ask(one, query)
    assert ask(fresh, "SELECT count(*), count(DISTINCT key) FROM attempts")[1] == [(7, 7)]
    state = fresh.journal.sync()
    assert len(state.segments) <= 3 and len(state.entries) < 4


def test_sql_reads_the_columns_that_it_needs_and_copies_no_artifact(one, two, monkeypatch):
    from storage import remote

    def wide(config: Knob, out: Path) -> dict[str, Any]:
        long = [f"{i} {os.urandom(600).hex()}" for i in range(4000)]
        tables.write(
            out / "rows.parquet", [{"row_id": str(i), "prompt": text} for i, text in enumerate(long)], tables.ROWS
        )
        return {}

    run = Run(one, "r", {})
    attempt, _ = made(one, "ingest", wide, Knob())
    run.stage(StageRun("ingest", attempt.key, attempt.artifact, "ran", 1.0, "", {}))
    run.finish("done")
    artifact = two.artifact(attempt.artifact)
    assert artifact is not None and artifact.files["rows.parquet"]["bytes"] > 2_000_000
    read: list[int] = []
    inner = remote.Ranges.read

    def counted(self: remote.Ranges, size: int = -1) -> bytes:
        read.append(size)
        return inner(self, size)

    monkeypatch.setattr(remote.Ranges, "read", counted)
    assert ask(two, "SELECT count(DISTINCT row_id) FROM rows") == (["count(DISTINCT row_id)"], [(4000,)], [])
    assert 0 < sum(read) < artifact.files["rows.parquet"]["bytes"] / 4
    assert not (two.root / "artifacts" / attempt.artifact / "rows.parquet").exists()
    assert ask(two, "SELECT prompt FROM rows WHERE row_id = '7'")[1][0][0].startswith("7 ")


def test_gc_removes_what_no_run_needs_and_the_index_forgets_it(one, two, monkeypatch):
    monkeypatch.setattr(journal, "MANY", 4)
    old, kept = record(one, 1), record(one, 2)
    unused, _ = made(one, "b", produce, Knob(value=3))
    unfinished = one.bucket.put("artifacts/b-0000000000000000/half.txt", b"x")
    listed = room.collect(two, dry_run=True)
    assert unfinished and {p.name for p, _ in listed.paths} >= {unused.artifact, "b-0000000000000000"}
    room.collect(two)
    assert one.lookup(unused.key)[0] is None and not one.bucket.names(f"attempts/{unused.key}")
    room.collect(two, keep_runs=1)
    assert [r["run_id"] for r in runs.history(one)] == [r["run_id"] for r in runs.history(two)] == [kept]
    used = [s["artifact"] for s in runs.stages(one, kept)]
    assert one.bucket.names("artifacts") == used and one.bucket.names("runs") == [kept]
    for store in (one, two):
        assert ask(store, "SELECT artifact FROM artifacts")[1] == [(used[0],)]
        assert ask(store, "SELECT run_id FROM all_stage_runs")[1] == [(kept,)]
        assert not [name for name, wrong in verify(store) if wrong]
    assert len(one.bucket.names("index")) == 1 and not one.bucket.names("leases")
    sizes = {(by, name): n for by, name, n, _ in room.usage(two)}
    assert sizes["stage", "ingest"] == sizes["recipe", "r"] == 1 and old not in str(sizes)


def _works(url: str, root: str, begun: Any, go: Any) -> None:
    store = machine(url, Path(root), 3.0)
    run = Run(store, "r", {})
    first, _ = made(store, "a", produce, Knob(value=5))
    begun.set()
    go.wait(60)
    second, _ = made(store, "b", consume, Knob(), data=build.Output(first.artifact, "rows.parquet"))
    for attempt in (first, second):
        run.stage(StageRun(attempt.stage, attempt.key, attempt.artifact, "ran", 1.0, "", {}))
    run.finish("done")


def test_gc_leaves_alone_what_a_run_on_another_machine_may_need(two, url, tmp_path):
    begun, go = SPAWN.Event(), SPAWN.Event()
    child = SPAWN.Process(target=_works, args=(url, str(tmp_path / "one"), begun, go))
    child.start()
    assert begun.wait(60)
    done = room.collect(two)
    assert done.busy and not done.paths
    go.set()
    child.join(60)
    assert child.exitcode == 0 and not room.collect(two).busy
    assert sorted(a.stage for a in two.artifacts()) == ["a", "b"]


def test_a_run_waits_while_gc_removes(one, two):
    began = threading.Event()

    def work() -> None:
        with one.in_use("r1"):
            began.set()

    with two.in_use(alone=True):
        thread = threading.Thread(target=work)
        thread.start()
        assert not began.wait(2)
        two.still_alone()
    assert began.wait(10)
    thread.join(10)
    with one.in_use(), pytest.raises(BlockingIOError), two.in_use(alone=True):
        pass


def test_a_run_that_was_away_while_gc_removed_says_so(url, tmp_path, two):
    one = machine(url, tmp_path / "one", 1.0)
    run = Run(one, "r", {})
    attempt, _ = made(one, "a", produce, Knob())
    lease = one._held[run.id]
    lease._ended.set()  # as if its machine had been stopped
    lease._heart.join()
    assert room.collect(two).busy
    time.sleep(5)
    assert attempt.artifact in {path.name for path, _ in room.collect(two).paths}
    with pytest.raises(LeaseLost, match="the same command resumes"):
        run.stage(StageRun("a", attempt.key, attempt.artifact, "cached", 0.0, "", {}))
    run.finish("failed")
    assert not [name for name, wrong in verify(two) if wrong]
