"""Every write, fsync, link, rename and mkdir on the store fails in turn, once or from then on, or is where the process
is killed: nothing acknowledged is lost, nothing is half visible, and the next run completes with the same digests."""

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from preloaded import library, script

from storage import room, upkeep
from storage.store import Store


@pytest.fixture(scope="module")
def preloaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes operations fail."""
    return library("faults.c", tmp_path_factory.mktemp("faults"))


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is one: what is waited for here is the disk."""
    if not Path("/dev/shm").is_dir():
        yield tmp_path
        return
    with TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.mark.parametrize("mode", [1, 2, 3], ids=["once", "for good", "killed twice in a row"])
def test_at_every_operation(preloaded: Path, memory: Path, mode: int) -> None:
    done = script("faulty.py", memory, mode, preload=preloaded)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    assert found["operations"] > 100


def test_a_run_that_never_began_is_no_damage_and_gc_removes_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / "runs" / "20260101-000000-abcd").mkdir(parents=True)
    (tmp_path / "runs" / "20260101-000000-abcd" / "lock").touch()
    assert list(upkeep.verify(store)) == []
    room.collect(store)
    assert list((tmp_path / "runs").iterdir()) == []
