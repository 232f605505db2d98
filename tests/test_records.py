"""Records: read leniently, checked by `verify`, and no single one stops the others from being used."""

import json
import os
from pathlib import Path

import pytest
from test_store import Knob, made, produce

from storage import build, champions, records, runs
from storage.runs import Run, StageRun
from storage.store import Store
from storage.upkeep import verify
from storage.views import ask


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with one finished run of one stage, which made a champion."""
    store = Store(tmp_path / "store")
    run = record(store)
    made = runs.stages(store, run)[0]["artifact"]
    champions.crown(store, "r", 0, run_id=run, model="ingest", artifact=made, base={}, verdict="", decision=None)
    return store


def record(store: Store, value: int = 1, status: str = "done", recipe: str = "r") -> str:
    """Run the stage `a` as a run of its own; the run's id."""
    run = Run(store, recipe, {"name": recipe})
    attempt, _ = made(store, "ingest", produce, Knob(value=value))
    run.stage(StageRun("ingest", attempt.key, attempt.artifact, "ran", 1.0, "", attempt.metrics))
    run.finish(status)
    return run.id


def files(store: Store) -> dict[str, Path]:
    root = store.root
    return {
        "attempt": next(root.glob("attempts/*/*.json")), "run": next(root.glob("runs/*/run.json")),
        "stage": next(root.glob("runs/*/stages/*.json")), "finished": next(root.glob("runs/*/finished.json")),
        "manifest": next(root.glob("artifacts/*/manifest.json")),
        "champion": next(root.glob("champions/*/*.json")),
    }  # fmt: skip


def use(store: Store) -> None:
    """Everything that reads records, and a new run."""
    record(store, value=7)
    assert ask(store, "SELECT count(*) FROM runs")[1][0][0] >= 1
    for view in ("all_stage_runs", "all_metrics", "attempts", "artifacts", "lineage", "champions", "rows",
                 "all_rows"):  # fmt: skip
        ask(store, f"FROM {view}")
    assert runs.history(store)


def wrong(store: Store) -> list[str]:
    return [name for name, problem in verify(store) if problem]


@pytest.mark.parametrize("kind", records.KINDS)
def test_fields_of_a_later_version_stay_and_harm_nobody(store, kind):
    path = files(store)[kind]
    value = records.read(path, kind)
    assert value is not None and value["format"] == records.FORMAT
    path.unlink()
    records.write(path, value | {"format": 2, "later": {"a": [1]}})
    use(store)
    later = records.read(path, kind)
    assert later is not None and later["later"] == {"a": [1]} and not wrong(store)
    _, ran = made(store, "ingest", produce, Knob(value=1))
    assert not ran


@pytest.mark.parametrize("kind", records.KINDS)
@pytest.mark.parametrize("harm", ["field", "list", "empty", "half", "bit", "null", "deep"])
def test_a_malformed_record_is_named_and_skipped(store, kind, harm):
    path = files(store)[kind]
    text = path.read_text()
    value = json.loads(text)
    lost = {k: v for k, v in value.items() if k not in ("stage", "status", "recipe", "check")}
    path.write_text({
        "field": json.dumps(lost), "list": "[1]", "empty": "", "half": text[: len(text) // 2],
        "bit": text.replace("2", "3"), "null": "null", "deep": "[" * 100_000,
    }[harm])  # fmt: skip
    use(store)
    assert path.relative_to(store.root).as_posix() in wrong(store) or path.parent.name in wrong(store)


def test_records_of_the_first_version_have_no_checksum_and_are_read(store):
    for kind, path in files(store).items():
        value = records.read(path, kind)
        assert value is not None
        path.write_text(json.dumps({k: v for k, v in value.items() if k != "format"}))
    use(store)
    assert not wrong(store)


def test_verify_names_what_is_missing_extra_or_does_not_belong(store):
    folder = files(store)["manifest"].parent
    assert not wrong(store)
    (folder / "more.txt").write_text("x")
    (store.root / "artifacts" / "stray.txt").write_text("x")
    (store.root / "artifacts" / "a-0000").mkdir()
    assert sorted(wrong(store)) == sorted([folder.name, "stray.txt", "a-0000"])
    for path in [*folder.iterdir()]:
        path.unlink()
    folder.rmdir()
    assert dict(verify(store))[folder.name] == f"missing, though run {runs.history(store)[0]['run_id']} used it"


@pytest.mark.parametrize("harm", ["directory", "unreadable", "truncated", "flipped", "dangling"])
def test_one_bad_file_is_named_and_everything_else_goes_on(store, harm):
    """Plan (a lookup), run, verify and sql, with a file of an artifact that cannot be read."""
    data = files(store)["manifest"].parent / "rows.parquet"
    bytes_ = bytearray(data.read_bytes())
    data.unlink()
    if harm == "directory":
        data.mkdir()
    elif harm == "unreadable":
        data.symlink_to(data)  # root reads everything else
    elif harm == "truncated":
        data.write_bytes(bytes_[: len(bytes_) // 2])
    elif harm == "flipped":
        bytes_[6] ^= 255
        data.write_bytes(bytes_)
    else:
        data.symlink_to("/nonexistent/file")
    key = files(store)["attempt"].parent.name
    hit, why = store.lookup(key)
    assert hit is None and why and "rows.parquet" in why
    _, _, left_out = ask(store, "SELECT * FROM rows")
    assert left_out and "rows.parquet" in left_out[0]
    assert wrong(store) == [data.parent.name]
    attempt, ran = build.build(store, build.request(store, "ingest", produce, Knob(value=1), {}))
    assert ran and not wrong(store)


@pytest.mark.parametrize("how", ["read-only", "full"])
def test_verify_plan_and_sql_work_where_nothing_can_be_written(store, tmp_path, how):
    """In a child: as a user who may not write, or with a limit of 0 bytes on every file that it writes."""
    import resource
    import shutil
    import tempfile

    place = Path(tempfile.mkdtemp())  # where another user gets to, unlike pytest's folders
    root = Path(shutil.copytree(store.root, place / "store"))
    shutil.rmtree(root / "cache", ignore_errors=True)
    for path in [place, *place.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    pid = os.fork()
    if pid == 0:
        try:
            if how == "full":
                resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
            elif os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            there = Store(root)
            assert not wrong(there)
            assert there.lookup(next(p.name for p in (root / "attempts").iterdir()))[0]
            assert ask(there, "SELECT count(*) FROM all_metrics JOIN attempts USING (artifact)")[1] == [(1,)]
            assert ask(there, "SELECT count(*) FROM rows")[1] == [(1,)]
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    for path in [place, *place.rglob("*")]:
        path.chmod(0o755)
    shutil.rmtree(place)
    assert status == 0
