"""A bucket and its leases, on a real S3-compatible server and a stand-in for Google's."""

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import gcs
import pytest

from align.errors import InputError
from storage import leases
from storage.bucket import Bucket, Gone
from storage.leases import LeaseLost, hold

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def url(any_url: str) -> str:
    return any_url


@pytest.fixture
def bucket(url: str) -> Bucket:
    return Bucket(url)


def test_an_object_is_written_once_read_listed_and_swapped(bucket, tmp_path):
    tag = bucket.put("a/b/one", b"1")
    assert tag and bucket.put("a/b/one", b"2") is None and bucket.get("a/b/one") == b"1"
    assert bucket.get("a/b/none") is None and bucket.stat("a/none") is None
    after = bucket.swap("a/b/one", b"3", tag)
    with pytest.raises(Gone):
        bucket.swap("a/b/one", b"4", tag)
    with pytest.raises(Gone):
        bucket.swap("a/none", b"4", tag)
    assert bucket.see("a/b/one")[0].tag == after and bucket.get("a/b/one") == b"3"
    for i in range(12):
        bucket.put(f"a/{i:02}", b"")
    assert [found.name for found in bucket.below("a", after="a/09")] == ["a/10", "a/11", "a/b/one"]
    assert bucket.names("a") == [*(f"{i:02}" for i in range(12)), "b"] and bucket.names("z") == []
    bucket.remove(["a/none", *(f"a/{i:02}" for i in range(12))])
    assert bucket.names("a") == ["b"]


def test_a_file_in_several_parts_comes_back_as_it_was(bucket, tmp_path, monkeypatch):
    from align.whole import sha256

    monkeypatch.setattr("storage.bucket._PART", 5 << 20)
    (tmp_path / "large").write_bytes(os.urandom(12 << 20))
    bucket.upload("large", tmp_path / "large")
    assert bucket.download("large", tmp_path / "back") == sha256(tmp_path / "large") == sha256(tmp_path / "back")
    assert bucket.download("large", None) == sha256(tmp_path / "large")
    with pytest.raises(FileNotFoundError):
        bucket.download("none", tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("name", "value", "address", "says"),
    [
        ("AWS_REGION", "us-east-1", "s3://no-such-bucket/x", "no such bucket"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9", "s3://shared/x", "cannot be reached"),
        ("AWS_REGION", "us-east-1", "s3://id:secret@shared/x", "no store"),
        ("AWS_REGION", "us-east-1", "s3://", "no store"),
        ("AWS_REGION", "us-east-1", "s3://shared/../x", "no store"),
    ],
)
def test_what_is_wrong_with_a_store_is_one_sentence(s3_url, monkeypatch, name, value, address, says):
    monkeypatch.setenv(name, value)
    for ask in (lambda b: b.names(""), lambda b: b.get("x"), lambda b: b.put("x", b"")):
        with pytest.raises(InputError) as told:
            ask(Bucket(address))
        assert says in str(told.value) and "\n" not in str(told.value) and "secret" not in str(told.value)


def test_what_is_wrong_with_a_store_of_google_is_one_sentence(tmp_path, monkeypatch):
    with gcs.serving() as address:
        for where, name, says in (
            (address, "other", "no such bucket"),
            ("http://127.0.0.1:9", "shared", "cannot be reached"),
        ):
            monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", gcs.environment(where, tmp_path)["GOOGLE_SERVICE_ACCOUNT"])
            for ask in (lambda b: b.names(""), lambda b: b.get("x"), lambda b: b.put("x", b"")):
                with pytest.raises(InputError) as told:
                    ask(Bucket(f"gs://{name}/x"))
                assert says in str(told.value) and "\n" not in str(told.value)


def test_a_lease_excludes_until_it_is_released(bucket):
    with hold(bucket, "leases/a", "one") as lease:
        lease.check()
        with pytest.raises(BlockingIOError), hold(bucket, "leases/a", "two", wait=False):
            pass
        with hold(bucket, "leases/b", "two", wait=False):
            pass
    with hold(bucket, "leases/a", "two", wait=False):
        pass
    assert bucket.names("leases") == []


def test_a_lease_lives_as_long_as_its_holder_and_no_longer(bucket):
    decided: list[Any] = []
    with hold(bucket, "leases/a", "one", seconds=2) as lease:
        time.sleep(4)  # two lives of a lease, through which its heart beats
        with pytest.raises(BlockingIOError), hold(bucket, "leases/a", "two", wait=False, seconds=2):
            pass
        lease._ended.set()  # as if the holder had died
        lease._heart.join()
        with pytest.raises(BlockingIOError), hold(bucket, "leases/a", "two", mine=True, wait=False, seconds=2):
            pass
        lease.decide({"what": "a record"})
        begun = time.monotonic()
        with hold(bucket, "leases/a", "two", carry_out=decided.append, seconds=2):
            assert time.monotonic() - begun > 1 and decided == [{"what": "a record"}]
            with pytest.raises(LeaseLost):
                lease.decide({"what": "too late"})


def test_what_this_machine_left_behind_is_taken_at_once(bucket):
    with hold(bucket, "leases/a", "one") as lease:
        lease._ended.set()
        begun = time.monotonic()
        with hold(bucket, "leases/a", "one", mine=True):
            assert time.monotonic() - begun < leases.SECONDS / 3


def _paused(url: str, told: Any, folder: str) -> None:
    with hold(Bucket(url), "leases/a", "one", seconds=2) as lease:
        Path(folder, "held").touch()
        while not Path(folder, "go").exists():
            time.sleep(0.05)
        try:
            lease.decide({"what": "a record"})
            told.put("decided")
        except LeaseLost as error:
            told.put(str(error))


def test_a_holder_that_was_paused_past_its_lease_decides_nothing(bucket, tmp_path):
    told = SPAWN.Queue()
    child = SPAWN.Process(target=_paused, args=(bucket.url, told, str(tmp_path)))
    child.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.05)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGSTOP)
    (tmp_path / "go").touch()
    with hold(bucket, "leases/a", "two", seconds=2) as lease:
        os.kill(child.pid, signal.SIGCONT)
        assert "nothing was published" in told.get(timeout=60)
        child.join(60)
        lease.check()  # and it has not taken the lease away when it ended
    assert bucket.names("leases") == []
