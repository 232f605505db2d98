"""Runs, champions, tags and gc of a shared store, seen from two machines."""

import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
from test_records import record
from test_shared import machine
from test_store import Knob, made

from align import tables
from storage import champions, journal, runs, tags
from storage.runs import Run, StageRun
from storage.shared import SharedStore
from storage.views import ask

SPAWN = multiprocessing.get_context("spawn")


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
