"""A store that machines share: a bucket on a real S3-compatible server, or a stand-in for Google's, and a cache directory
for each machine."""

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from test_store import Knob, consume, made, produce

from align.errors import StageError
from storage import build, index
from storage.bucket import Bucket
from storage.leases import LeaseLost
from storage.shared import SharedStore
from storage.store import Store
from storage.upkeep import verify
from storage.views import ask

SPAWN = multiprocessing.get_context("spawn")


def machine(url: str, root: Path, seconds: float = 30.0) -> SharedStore:
    """The store as a machine sees it whose cache is `root`."""
    return SharedStore(Bucket(url), root, seconds)


@pytest.fixture
def url(any_url: str) -> str:
    return any_url


@pytest.fixture
def one(url: str, tmp_path: Path) -> SharedStore:
    return machine(url, tmp_path / "one")


@pytest.fixture
def two(url: str, tmp_path: Path) -> SharedStore:
    return machine(url, tmp_path / "two")


def wrong(store: Store) -> list[str]:
    return [name for name, problem in verify(store) if problem]


def test_what_one_machine_made_another_hits_and_reads_lazily(one, two):
    first, ran = made(one, "a", produce, Knob(value=3))
    assert ran and not two.root.exists()
    hit, ran = made(two, "a", produce, Knob(value=3))
    assert not ran and hit == first
    assert not (two.root / "artifacts" / first.artifact / "rows.parquet").exists()
    made(two, "b", consume, Knob(), data=build.Output(first.artifact, "rows.parquet"))
    here = sorted(p.name for p in (two.root / "artifacts" / first.artifact).iterdir())
    assert here == ["manifest.json", "rows.parquet"]  # and not metrics.json, which no stage read
    assert not wrong(one)


@pytest.mark.parametrize("harm", ["delete", "change", "shorten", "no manifest"])
def test_a_damaged_artifact_is_made_again(one, two, harm):
    """`change` keeps the size: it is seen when the file is read, by its digest, and then the artifact is no hit."""
    attempt, _ = made(one, "a", produce, Knob(value=3))
    name = f"artifacts/{attempt.artifact}/{'manifest.json' if harm == 'no manifest' else 'rows.parquet'}"
    data = one.bucket.get(name)
    assert data is not None
    one.bucket.remove([name])
    if harm in ("change", "shorten"):
        one.bucket.replace(name, data[:-1] + (b"?" if harm == "change" else b""))
    if harm == "change":
        with pytest.raises(StageError, match=r"rows.parquet .* is not what was written"):
            two.fetch(attempt.artifact, "rows.parquet")
        assert not (two.root / "artifacts" / attempt.artifact / "rows.parquet").exists()
    hit, why = two.lookup(attempt.key)
    assert hit is None and why
    again, ran = made(two, "a", produce, Knob(value=3))
    assert ran and again.artifact == attempt.artifact and not wrong(one) and not wrong(two)
    assert two.lookup(attempt.key)[0] == again


def _publish(url: str, root: str, worker: int, n: int) -> None:
    store = machine(url, Path(root))
    for i in range(n):
        with store.draft("a") as out:
            (out / "x.txt").write_text(f"{i % 40}" if i % 2 else f"{worker} {i}")  # half of them by several
            artifact = store.publish("a", out)
            key = f"{worker:02}{i:04}"
            store.record(build.Attempt("a", key, artifact.id, {}, {}, {}, {}, {}, 0.0))


def test_eight_processes_publish_a_thousand_times_and_none_is_lost(s3_url, tmp_path):
    one = machine(s3_url, tmp_path / "one")
    workers = [SPAWN.Process(target=_publish, args=(s3_url, str(tmp_path / str(w)), w, 125)) for w in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(600)
    assert [w.exitcode for w in workers] == [0] * 8
    told = [a for part in index.table(one, index.ATTEMPTS) for a in _column(part, "key")]
    assert sorted(told) == [f"{w:02}{i:04}" for w in range(8) for i in range(125)]
    listed = one.bucket.names("attempts")
    assert listed == sorted(told)
    artifacts = [a for part in index.table(one, index.ARTIFACTS) for a in _column(part, "artifact")]
    assert sorted(artifacts) == one.bucket.names("artifacts") and len(artifacts) == 8 * 63 + 20
    other = machine(s3_url, tmp_path / "fresh")
    assert ask(other, "SELECT count(*) FROM attempts") == (["count_star()"], [(1000,)], [])


def _column(part: Any, name: str) -> list[Any]:
    found: list[Any] = (
        part.to_table(columns=[name])[name].to_pylist() if hasattr(part, "to_table") else part[name].to_pylist()
    )
    return found


def _slow(config: Knob, out: Path) -> dict[str, Any]:
    (out / "seen.txt").write_text("by the one that was paused" if os.environ.get("PAUSED") else "by the other")
    if os.environ.get("PAUSED"):
        Path(os.environ["PAUSED"], "computing").touch()
        while not Path(os.environ["PAUSED"], "go").exists():
            time.sleep(0.05)
    return {}


def _paused(url: str, folder: str, told: Any) -> None:
    os.environ["PAUSED"] = folder
    try:
        made(machine(url, Path(folder, "one"), 2.0), "a", _slow, Knob())
        told.put("published")
    except LeaseLost as error:
        told.put(str(error))


def test_a_holder_that_was_paused_past_its_lease_publishes_nothing(url, tmp_path):
    told, other = SPAWN.Queue(), machine(url, tmp_path / "two", 2.0)
    child = SPAWN.Process(target=_paused, args=(url, str(tmp_path), told))
    child.start()
    while not (tmp_path / "computing").exists():
        time.sleep(0.05)
    assert child.pid is not None
    begun = time.monotonic()
    os.kill(child.pid, signal.SIGSTOP)
    attempt, ran = made(other, "a", _slow, Knob())
    assert ran and time.monotonic() - begun > 1  # it waited until the lease had run out
    (tmp_path / "go").touch()
    os.kill(child.pid, signal.SIGCONT)
    assert "nothing was published" in told.get(timeout=60)
    child.join(60)
    assert [a.artifact for a in other.attempts(attempt.key)] == [attempt.artifact]
    assert [a.id for a in other.artifacts()] == [attempt.artifact]
    assert other.bucket.names("leases") == []


def _decides(url: str, root: str) -> None:
    store = machine(url, Path(root))
    store.carry_out = lambda decision: os._exit(9)  # type: ignore[method-assign]
    made(store, "a", produce, Knob())


def test_what_was_decided_and_not_done_is_done_by_whoever_comes_next(one, two, url):
    """One ends between its decision and the record: the attempt is neither lost nor computed again."""
    child = SPAWN.Process(target=_decides, args=(url, str(one.root)))
    child.start()
    child.join(60)
    asked = build.request(one, "a", produce, Knob(), {})
    assert child.exitcode == 9 and not one.attempts(asked.key) and one.bucket.names("leases/key") == [asked.key]
    attempt, ran = build.build(one, asked)
    assert not ran and two.lookup(asked.key)[0] == attempt
    assert ask(two, "SELECT key FROM attempts")[1] == [(asked.key,)]
