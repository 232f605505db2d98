"""Removing and measuring: `align gc` beside runs, what policies keep, tags, and `align du`."""

import multiprocessing
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_records import record
from test_store import Knob, consume, made, produce

from flows.cli import main
from storage import build, files, records, room, runs, tags
from storage.runs import Run, StageRun
from storage.store import Store
from storage.upkeep import verify


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def removed(done: room.Collected) -> list[str]:
    return sorted(path.name for path, _ in done.paths)


def age(store: Store, run_id: str, days: float) -> None:
    """Make a run older than it is."""
    path = store.root / "runs" / run_id / "run.json"
    value = records.read(path, "run")
    assert value is not None
    path.unlink()
    records.write(path, value | {"started_at": (datetime.now(UTC) - timedelta(days=days)).isoformat()})
    (store.root / "cache" / "index" / "runs.json").unlink(missing_ok=True)


def test_gc_removes_what_no_run_refers_to(store):
    used = record(store, 1)
    unused, _ = made(store, "a", produce, Knob(value=2))
    listed = room.collect(store, dry_run=True)
    assert unused.artifact in removed(listed) and not listed.busy
    room.collect(store)
    assert [a.id for a in store.artifacts()] == [s["artifact"] for s in runs.stages(store, used)]
    assert not store.attempts(unused.key) and not [n for n, wrong in verify(store) if wrong]
    again = room.collect(store)
    assert not again.paths and again.before == room.collect(store).before


def test_gc_leaves_everything_alone_while_a_run_is_going_on(store):
    run = Run(store, "r", {})
    unused, _ = made(store, "a", produce, Knob(value=2))
    done = room.collect(store)
    assert done.busy and not done.paths and store.artifact(unused.artifact)
    run.finish("done")
    assert unused.artifact in removed(room.collect(store))


def _pipeline(root: Path, seed: int, over) -> None:
    """Runs of two stages, one after the other, whose artifacts are used by none but them; each is whole at its end."""
    store, n = Store(root), 0
    while not over.is_set():
        n += 1
        run = Run(store, f"r{seed}", {})
        first, _ = made(store, "a", produce, Knob(value=1 + (seed * 1000 + n) % 7))
        run.stage(StageRun("a", first.key, first.artifact, "ran", 0.0, "", {}))
        second, _ = made(store, "b", consume, Knob(value=n), data=build.Output(first.artifact, "rows.parquet"))
        run.stage(StageRun("b", second.key, second.artifact, "ran", 0.0, "", {}))
        run.finish("done")
        for attempt in (first, second):
            artifact = store.artifact(attempt.artifact)
            assert artifact and not store.damage(artifact), attempt.artifact
        time.sleep(0.03 * (n % 4))


def _collector(root: Path, over, worked) -> None:
    """Collects beside the runs until it has done so a hundred times, at least ten of them between runs."""
    rounds, until = 0, time.time() + 200
    while (rounds < 100 or worked.value < 10 or len(runs.history(Store(root))) < 10) and time.time() < until:
        done = room.collect(Store(root))
        rounds += 1
        worked.value += not done.busy
    over.set()


def test_gc_beside_running_pipelines_takes_nothing_that_they_use(store):
    spawn = multiprocessing.get_context("spawn")
    over, worked = spawn.Event(), spawn.Value("i", 0)
    store.root.mkdir()
    workers = [spawn.Process(target=_pipeline, args=(store.root, seed, over)) for seed in (1, 2)]
    collector = spawn.Process(target=_collector, args=(store.root, over, worked))
    for process in [*workers, collector]:
        process.start()
    for process in [*workers, collector]:
        process.join(300)
    assert [p.exitcode for p in [*workers, collector]] == [0, 0, 0]
    assert worked.value >= 10
    assert not [name for name, wrong in verify(store) if wrong]
    assert {r["status"] for r in runs.history(store)} == {"done"}


def test_a_draft_that_begins_while_gc_is_looking_keeps_its_lock(store):
    """Its lock was once removed as nobody's, and the draft itself by the next gc, under the stage at work in it."""
    looked_at = files.size
    begun = store.draft("sft")
    lock = store.root / "tmp" / "sft-0123456789ab.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()  # as it is between being made and being locked

    def begins(path: Path) -> int:
        if path == lock and not begun_in:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("storage.store.uuid.uuid4", lambda: SimpleNamespace(hex="0123456789ab"))
                begun_in.append(begun.__enter__())
        return looked_at(path)

    begun_in: list[Path] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "size", begins)
        room.collect(store)
    assert begun_in and lock.exists()
    room.collect(store)
    assert begun_in[0].is_dir()
    begun.__exit__(None, None, None)
    assert not lock.exists()


def test_a_collector_that_was_waited_for_sees_what_the_run_used(store):
    """What is used was once read before what was busy: a run that ended in between lost its artifacts."""
    run = Run(store, "r", {})
    attempt, _ = made(store, "a", produce, Knob())
    original = runs.history

    def ends_meanwhile(store: Store):
        found = original(store)
        if not (run.path / "finished.json").exists():
            run.stage(StageRun("a", attempt.key, attempt.artifact, "ran", 0.0, "", {}))
            run.finish("done")
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "history", ends_meanwhile)
        room.collect(store)
    runs.history(store)
    assert store.artifact(attempt.artifact)


def test_keep_runs_keeps_the_newest_finished_of_each_recipe_what_failed_since_and_tags(store):
    old = [record(store, value, recipe="r") for value in (1, 2, 3)]
    failed_before = record(store, 4, "failed")
    newest = record(store, 5)
    failed_since = record(store, 6, "failed")
    other = record(store, 1, recipe="other")
    for i, run_id in enumerate([*old, failed_before, newest, failed_since, other]):
        age(store, run_id, 100 - i)
    tags.put(store, "baseline", old[1])
    done = room.collect(store, keep_runs=1)
    assert {r["run_id"] for r in runs.history(store)} == {old[1], newest, failed_since, other}
    left = {a.id for a in store.artifacts()}
    assert left == {s["artifact"] for r in runs.history(store) for s in runs.stages(store, r["run_id"])}
    assert done.bytes > 0 and not [n for n, wrong in verify(store) if wrong]


def test_fourteen_failed_runs_give_their_room_back(store):
    for value in range(14):
        record(store, 1000 + value, "failed")
    record(store, 1)
    assert not [p for p in removed(room.collect(store)) if p.startswith("ingest")]
    done = room.collect(store, keep_runs=1)
    assert len(runs.history(store)) == 1 and len(list(store.artifacts())) == 1
    assert len([p for p in removed(done) if p.startswith("ingest")]) == 14


def test_keep_days_removes_older_runs_and_row_caches_not_used_since(store):
    old, new = record(store, 1), record(store, 2)
    age(store, old, 10)
    cached = [store.root / "cache" / "rows" / "losses" / name for name in ("old", "new")]
    cached[0].parent.mkdir(parents=True)
    for path, days in zip(cached, (10, 1), strict=True):
        path.write_text("x")
        os.utime(path, (time.time() - days * 86400,) * 2)
    room.collect(store, keep_days=5)
    assert [r["run_id"] for r in runs.history(store)] == [new]
    assert [p.name for p in cached if p.exists()] == ["new"]


def test_gc_removes_what_killed_processes_left(store):
    run_id = record(store, 1)
    artifact = next(store.artifacts())
    leftovers = [
        store.root / "tmp" / "sft-0123456789ab" / "half.txt", store.root / "tmp" / "damaged-ff" / "x",
        store.root / "runs" / run_id / f".run.json.{'a' * 32}", artifact.path / f".manifest.json.{'b' * 32}",
        store.root / "cache" / "verified" / f".x.json.{'c' * 32}", store.root / "cache" / "verified" / "a-0.json",
        store.root / "cache" / "digests" / "0.json", store.root / "artifacts" / "stray.txt",
        store.root / "locks" / "key-0", store.root / "checkpoints" / "sft-00" / "checkpoint-3" / "x",
    ]  # fmt: skip
    for path in leftovers:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
        os.utime(path, (0, 0))
        os.utime(path.parent, (0, 0))
    os.utime(store.root / "checkpoints" / "sft-00", (0, 0))
    resumed = store.root / "checkpoints" / "sft-11" / "checkpoint-3" / "x"
    resumed.parent.mkdir(parents=True)
    resumed.touch()
    with store.draft("sft") as alive, store.computing("k"):
        room.collect(store)
        assert alive.exists() and (store.root / "locks" / "key-k").exists()
    assert not [p for p in leftovers if p.exists()] and resumed.exists()
    assert not [n for n, wrong in verify(store) if wrong]


def test_a_lock_whose_file_was_removed_still_excludes(store):
    """One waits for a lock, its file goes: whoever comes next must not get in beside the one who waited."""
    with store.computing("k"):
        room.collect(store)
    with store.computing("k"):
        pid = os.fork()
        if pid == 0:
            from storage import files

            try:
                with files.locked(store.root / "locks" / "key-k", wait=False):
                    os._exit(1)
            except BlockingIOError:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_du_counts_by_stage_recipe_and_age(store):
    record(store, 1, recipe="r")
    record(store, 1, recipe="s")
    made(store, "b", produce, Knob(value=3))
    found = {(by, name): (n, size) for by, name, n, size in room.usage(store)}
    assert found["stage", "ingest"][0] == found["recipe", "r"][0] == found["recipe", "s"][0] == 1
    assert found["recipe", "(no run)"][0] == found["stage", "b"][0] == 1
    assert found["age", "< 1 day"][0] == 2
    assert found["store", str(store.root)][1] >= sum(size for (by, _), (_, size) in found.items() if by == "stage")


def test_tags_name_runs_for_every_verb(store, capsys):
    run_id = record(store, 1)
    at = ["--store", str(store.root)]
    main(["tag", run_id, "baseline", *at])
    main(["show", "baseline", *at])
    assert run_id in capsys.readouterr().out
    main(["sql", "SELECT count(*) FROM rows", "--run", "baseline", "--csv", *at])
    main(["runs", *at])
    assert "baseline" in capsys.readouterr().out
    main(["tag", "--remove", "baseline", *at])
    for words in (["tag", "--remove", "baseline"], ["tag", run_id, "../x"], ["tag", run_id], ["tag", "nope", "x"]):
        with pytest.raises(SystemExit) as ended:
            main([*words, *at])
        assert ended.value.code == 2
    for words in (["gc", "--keep-runs", "-1"], ["gc", "--keep-days", "nan"], ["gc", "--keep-days", "-1"]):
        with pytest.raises(SystemExit) as ended:
            main([*words, *at])
        assert ended.value.code == 2
    assert len(runs.history(store)) == 1
