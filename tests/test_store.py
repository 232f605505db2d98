"""The store: publishing, hits, damage, concurrency, upkeep. Stages here are plain functions that write small files."""

import multiprocessing
import os
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from align import tables as rows
from align.config import Config
from align.errors import StageError
from storage import build, runs
from storage.build import Output, request
from storage.runs import Run, StageRun
from storage.store import Store


class Knob(Config):
    value: int = 1
    source: Path | None = None


def produce(config: Knob, out: Path) -> dict:
    rows.write(out / "rows.parquet", [{"row_id": str(i)} for i in range(config.value)], rows.ROWS)
    with (out.parent.parent / "log").open("a") as log:
        log.write("produce\n")
    time.sleep(0.05)
    return {"rows": config.value}


def consume(config: Knob, out: Path, *, data: Path) -> dict:
    (out / "seen.txt").write_text(str(len(rows.read(data))))
    return {}


def explode(config: Knob, out: Path) -> dict:
    (out / "half.txt").write_text("half")
    raise RuntimeError("no")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def made(store: Store, stage, function, config, refresh=False, **inputs):
    return build.build(store, request(store, stage, function, config, inputs), refresh)


def test_hit_after_build_and_same_contents_same_artifact(store):
    first, ran = made(store, "a", produce, Knob())
    again, ran_again = made(store, "a", produce, Knob())
    assert (ran, ran_again) == (True, False)
    assert first == again


def score(config: Knob, out: Path, cache: Path | None = None) -> dict:
    (out / "where.txt").write_text(str(cache))
    return {}


def test_work_per_row_is_kept_in_the_store(store):
    attempt, _ = made(store, "s", score, Knob())
    where = (store.root / "artifacts" / attempt.artifact / "where.txt").read_text()
    assert where == str(store.root / "cache" / "rows")


def halting(config: Knob, out: Path, checkpoints: Path) -> dict:
    checkpoints.mkdir(parents=True, exist_ok=True)
    (checkpoints / str(len(list(checkpoints.iterdir())))).touch()
    if len(list(checkpoints.iterdir())) < 3:
        raise StageError("halt")
    return {"begun": len(list(checkpoints.iterdir()))}


def test_checkpoints_stay_until_the_artifact_is_there(store):
    for begun in (1, 2):
        with pytest.raises(StageError):
            made(store, "s", halting, Knob())
        (folder,) = (store.root / "checkpoints").iterdir()
        assert len(list(folder.iterdir())) == begun
    assert made(store, "s", halting, Knob())[0].metrics["begun"] == 3 and not folder.exists()


def test_a_changed_filter_scores_only_what_is_new(store):
    """The pipeline's own way: another threshold, then another row, and no loss is computed twice."""
    from pools import row

    from align.models.base import BaseConfig
    from flows.recipe import ROOT
    from tasks.filter import FilterConfig, filter

    def losses(prompts: list[str], limit: float) -> list[int]:
        file = store.root.with_name(f"{len(prompts)}.parquet")
        rows.write(file, [row(p, "SELECT 1;") for p in prompts], rows.ROWS)
        source, _ = made(store, "ingest", adopt, Knob(source=file))
        config = FilterConfig.model_validate({"rules": [{"rule": "ifd", "max": limit}]})
        base = BaseConfig(path=ROOT / "quickstart" / "base")
        made(store, "filter", filter, config, rows=Output(source.artifact, "rows.parquet"), base=base)
        found = (store.root / "cache" / "rows" / "losses").rglob("*.parquet")
        return sorted(pq.read_metadata(f).num_rows for f in found)

    assert losses(["One?", "Two?"], 50) == [1, 2]  # after prompts, and the one response alone
    assert losses(["One?", "Two?"], 60) == [1, 2]
    assert losses(["One?", "Two?", "Three?"], 60) == [1, 1, 2]


def adopt(config: Knob, out: Path) -> dict:
    assert config.source is not None
    (out / "rows.parquet").write_bytes(config.source.read_bytes())
    return {}


def test_opening_and_looking_creates_nothing(store):
    assert store.lookup("nothing") == (None, None)
    assert not list(store.artifacts())
    assert not store.root.exists()


def test_key_follows_contents_not_paths(store, tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.txt").write_text("same")
    keys = {request(store, "s", produce, Knob(source=tmp_path / n / "data.txt"), {}).key for n in "ab"}
    assert len(keys) == 1
    (tmp_path / "a" / "data.txt").write_text("other")
    assert request(store, "s", produce, Knob(source=tmp_path / "a" / "data.txt"), {}).key not in keys


def test_early_cut_off_by_file(store):
    one, _ = made(store, "a", produce, Knob(value=2))
    consumer = request(store, "b", consume, Knob(), {"data": Output(one.artifact, "rows.parquet")})
    build.build(store, consumer)
    # Another artifact with the same rows.parquet but another metrics.json is the same input.
    folder = store.root / "other"
    folder.mkdir()
    rows.write(folder / "rows.parquet", [{"row_id": str(i)} for i in range(2)], rows.ROWS)
    (folder / "note.txt").write_text("differs")
    other = store.publish("a", folder)
    assert other.id != one.artifact
    assert request(store, "b", consume, Knob(), {"data": Output(other.id, "rows.parquet")}).key == consumer.key


def test_refresh_keeps_both_attempts(store):
    made(store, "a", produce, Knob())
    _, ran = made(store, "a", produce, Knob(), refresh=True)
    key = request(store, "a", produce, Knob(), {}).key
    assert ran and len(store.attempts(key)) == 2


@pytest.mark.parametrize("harm", ["delete", "change", "no manifest"])
def test_a_hit_on_a_damaged_artifact_is_a_miss(store, harm):
    attempt, _ = made(store, "a", produce, Knob())
    folder = store.root / "artifacts" / attempt.artifact
    if harm == "delete":
        (folder / "rows.parquet").unlink()
    elif harm == "change":
        data = bytearray((folder / "rows.parquet").read_bytes())
        data[10] ^= 1
        (folder / "rows.parquet").write_bytes(data)
    else:
        (folder / "manifest.json").unlink()
    hit, wrong = store.lookup(attempt.key)
    assert hit is None and wrong
    again, ran = made(store, "a", produce, Knob())
    assert ran and again.artifact == attempt.artifact
    assert store.lookup(attempt.key)[0] is not None


def test_failure_leaves_nothing(store):
    with pytest.raises(RuntimeError):
        made(store, "x", explode, Knob())
    assert not list(store.artifacts()) and not (store.root / "attempts").exists()
    assert not [p for p in (store.root / "tmp").iterdir()]


def _build(root: Path) -> None:
    made(Store(root), "a", produce, Knob(value=3))


def test_two_processes_compute_a_key_once(store):
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_build, args=(store.root,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [w.exitcode for w in workers] == [0] * 4
    assert (store.root / "log").read_text() == "produce\n"
    assert len(list((store.root / "attempts").glob("*/*.json"))) == 1


def test_a_killed_holder_blocks_nobody(store):
    store.root.mkdir()
    pid = os.fork()
    if pid == 0:
        with store.computing("k"):
            os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    with store.computing("k"):
        pass


def test_reasons_name_field_input_and_code(store, tmp_path):
    source = tmp_path / "s.txt"
    source.write_text("1")
    before, _ = made(store, "a", produce, Knob(source=source))
    source.write_text("2")
    after = request(store, "a", produce, Knob(value=5, source=source), {})
    assert build.differences(after.canonical, after.described, after.code, before) == [
        "value 1 → 5",
        "source has other contents",
    ]


def test_runs_know_how_they_ended(store):
    done, failed = Run(store, "r", {}), Run(store, "r", {})
    done.stage(StageRun("a", "k", "a-1", "ran", 1.0, "never ran", {"n": 1}))
    done.finish("done")
    failed.finish("failed")
    pid = os.fork()
    if pid == 0:
        Run(store, "r", {})
        os._exit(9)
    os.waitpid(pid, 0)
    alive = Run(store, "r", {})
    assert sorted(r["status"] for r in runs.history(store)) == ["done", "failed", "interrupted", "running"]
    alive.finish("done")
