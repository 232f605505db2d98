"""Digests of large files: read once, and again whenever the file may be another."""

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny

from align import digests
from align.config import Config
from align.models.base import BaseConfig, identity
from flows.processes import Processes
from storage import build
from storage.store import Store
from tasks.sample import SampleConfig, sample
from tasks.sft import SftConfig, sft

MEGABYTE = 1_000_000


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """Bytes that were hashed, by the file's name, while the real hashing goes on."""
    seen: dict[str, int] = {}
    real = hashlib.file_digest

    def counted(file: Any, *args: Any) -> Any:
        path = Path(file.name)
        seen[path.name] = seen.get(path.name, 0) + path.stat().st_size
        return real(file, *args)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    digests._known.clear()
    yield seen
    digests._known.clear()


def settle() -> None:
    time.sleep(digests.SETTLED + 0.1)


def heavy(folder: Path, size: int = 8 * MEGABYTE) -> BaseConfig:
    """What identity reads of a base: config.json and weight files, of real random bytes."""
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(os.urandom(size))
    return BaseConfig(path=folder)


def plain(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_run_hashes_the_base_once(hashed: dict[str, int], tmp_path: Path) -> None:
    """Its stages in turn, each as in a process of its own, which remembers nothing."""
    base, store = tiny.tiny_base(tmp_path / "base"), Store(tmp_path / "store")
    settle()
    rows = tiny.kept(tmp_path / "rows.parquet", 16)
    train = SftConfig(max_length=128, per_device_train_batch_size=8)

    def run(function: Any, config: Any, out: Path, inputs: dict[str, Any]) -> dict[str, Any]:
        return dict(function(config, out, rows=rows, **inputs))

    policy = None
    for name, function, config in (
        ("sft", sft, train),
        ("sft_rs", sft, train),
        ("sample", sample, SampleConfig(n=1, max_new_tokens=2, split="sft")),
    ):
        digests._known.clear()
        request = build.request(store, name, function, config, {"base": base, "adapter": policy})
        policy = build.Output(build.build(store, request, call=run)[0].artifact)
    assert base.path
    weights = base.path / "model.safetensors"
    assert hashed[weights.name] == weights.stat().st_size, "the weights were hashed more than once"


class Ask(Config):
    """No settings."""


def ask(config: Ask, out: Path, *, base: BaseConfig) -> dict[str, int | str]:
    """A stage that asks twice what a base is, and tells the bytes that its process read meanwhile."""
    before = _read_so_far()
    weights = [identity(base)["weights"] for _ in range(2)]
    assert weights[0] == weights[1]
    return {"weights": weights[0], "read": _read_so_far() - before}


def _read_so_far() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not count what a process reads")
def test_processes_share_what_is_known(tmp_path: Path) -> None:
    base, store = heavy(tmp_path / "base"), Store(tmp_path / "store")
    settle()
    with Processes() as running:

        def stage(name: str) -> dict[str, Any]:
            request = build.request(store, name, ask, Ask(), {})
            return build.build(store, request, call=lambda f, c, out, inputs: running.run(f, c, out, {"base": base}))[
                0
            ].metrics

        one, two = stage("one"), stage("two")
        assert 8 * MEGABYTE < one["read"] < 9 * MEGABYTE, "once within a process"
        assert two["read"] < MEGABYTE, "and not again in the next"
        assert base.path
        data = bytearray((base.path / "model.safetensors").read_bytes())
        data[1000] ^= 1
        (base.path / "model.safetensors").write_bytes(data)
        three = stage("three")
    assert one["weights"] == two["weights"] != three["weights"]


def test_a_changed_file_whose_time_was_set_back(hashed: dict[str, int], tmp_path: Path) -> None:
    file, store = tmp_path / "weights", Store(tmp_path / "store")
    file.write_bytes(b"a" * 1000)
    settle()
    first = store.file_digest(file)
    assert store.file_digest(file) == first == plain(file) and hashed == {"weights": 1000}
    before = file.stat()
    file.write_bytes(b"b" * 1000)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    now = file.stat()
    assert (now.st_size, now.st_mtime_ns, now.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    assert store.file_digest(file) == plain(file) != first


def test_a_file_that_was_just_written_is_not_trusted(hashed: dict[str, int], tmp_path: Path) -> None:
    """Two writes within one tick of the file system's clock look alike."""
    file, store = tmp_path / "weights", Store(tmp_path / "store")
    for letter in (b"a", b"b"):
        file.write_bytes(letter * 1000)
        assert store.file_digest(file) == plain(file)
    assert store.file_digest(file) == plain(file) and hashed["weights"] == 3000
    assert not store.digests.exists()


DAMAGE = {
    "cut": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "no JSON": lambda text: "\0" * len(text),
    "a list": lambda text: "[]",
    "another digest": lambda text: json.dumps(json.loads(text) | {"sha256": "0" * 64}),
    "an older version": lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "check"}),
    "no digest": lambda text: json.dumps({"check": 1}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_memory_is_made_again(damage: str, hashed: dict[str, int], tmp_path: Path, settled: Path) -> None:
    store = Store(tmp_path / "store")
    right = store.file_digest(settled)
    (memo,) = store.digests.iterdir()
    sound = memo.read_text()
    memo.write_text(DAMAGE[damage](sound))
    digests._known.clear()
    assert store.file_digest(settled) == right == plain(settled)
    assert memo.read_text() == sound and list(store.digests.iterdir()) == [memo]


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("settled") / "weights"
    file.write_bytes(os.urandom(1000))
    settle()
    return file


def test_many_that_write_at_once(settled: Path, tmp_path: Path) -> None:
    store, found = Store(tmp_path / "store"), []

    def look() -> None:
        for _ in range(20):
            digests._known.clear()
            found.append(store.file_digest(settled))

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) == {plain(settled)} and len(found) == 160
    (memo,) = store.digests.iterdir()
    digests._known.clear()
    assert json.loads(memo.read_text())["sha256"] == found[0]


def test_a_directory_that_cannot_be_written(settled: Path, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    digests._known.clear()
    with digests.kept_in(tmp_path / "store"):
        assert digests.file_digest(settled) == plain(settled)
