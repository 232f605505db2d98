"""A bucket and its leases, on a real S3-compatible server and a stand-in for Google's."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gcs
import pytest
from proxies import Outage, between

from align.errors import AlignError, InputError
from storage import failures, leases
from storage.bucket import Bucket, Gone
from storage.leases import LeaseLost, hold

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def gs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a stand-in for Google's, with an account for it in the environment."""
    with gcs.serving() as address:
        gcs.known(address, tmp_path, monkeypatch)
        yield address


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
        ("AWS_ENDPOINT_URL", "localhost:9000", "s3://shared/x", "localhost:9000 is no address"),
        ("AWS_SKIP_SIGNATURE", "maybe", "s3://shared/x", "makes no sense"),
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


@pytest.mark.parametrize(
    ("account", "bucket", "says"),
    [
        ({}, "other", "there is no such bucket at http://127.0.0.1:"),
        ({"gcs_base_url": "http://127.0.0.1:9"}, "shared", "cannot be reached at http://127.0.0.1:9"),
        ({"gcs_base_url": "127.0.0.1:9"}, "shared", "127.0.0.1:9 is no address"),
        ({"disable_oauth": False, "private_key": "q9-secret"}, "shared", "the key in the environment cannot be read"),
        (None, "shared", "has no credentials for it; set GOOGLE_SERVICE_ACCOUNT"),
        ("none.json", "shared", "there is no file none.json; set GOOGLE_SERVICE_ACCOUNT"),
    ],
)
def test_what_is_wrong_with_a_store_of_google_is_one_sentence(gs, tmp_path, monkeypatch, account, bucket, says):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:9")  # no role of the machine in a cloud
    if isinstance(account, dict):
        path = Path(os.environ["GOOGLE_SERVICE_ACCOUNT"])
        path.write_text(json.dumps(json.loads(path.read_text()) | account))
    elif account:
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", account)
    else:
        monkeypatch.delenv("GOOGLE_SERVICE_ACCOUNT")
    for ask in (lambda b: b.names(""), lambda b: b.get("x"), lambda b: b.put("x", b"")):
        with pytest.raises(InputError) as told:
            ask(Bucket(f"gs://{bucket}/x"))
        assert says in str(told.value) and "\n" not in str(told.value) and "secret" not in str(told.value)


def test_a_bucket_of_google_that_fails_is_asked_again_and_named_where_it_goes_on(gs, tmp_path, monkeypatch):
    with between(gs) as proxy:
        gcs.known(proxy.address, tmp_path, monkeypatch)
        for mode, says in (("busy", "answers 503 Service Unavailable whenever"), ("half", "break off")):
            bucket, outage = Bucket(f"gs://shared/{mode}"), Outage(mode)
            assert bucket.put("a", b"1")
            proxy.outages[mode.encode()], outage.nth = outage, 1
            assert bucket.get("a") == b"1" and outage.seen == 2
            outage.for_good = True
            monkeypatch.setattr(failures, "_PATIENCE", 0.0)
            for ask in (
                lambda b: b.names(""),
                lambda b: b.get("a"),
                lambda b: list(b.below("")),
                lambda b: b.part("a", 0, 1),
            ):
                with pytest.raises(AlignError) as told:
                    ask(bucket)
                assert says in str(told.value) and "\n" not in str(told.value)


def test_google_lets_an_object_be_written_once_a_second_and_a_lease_waits_for_that(tmp_path, monkeypatch):
    decided: list[Any] = []
    with gcs.serving(seldom=1) as address:
        gcs.known(address, tmp_path, monkeypatch)
        bucket = Bucket("gs://shared/x")
        with hold(bucket, "leases/a", "one") as lease:
            lease.decide({"what": "a record"})
            with hold(bucket, "leases/a", "one", mine=True, carry_out=decided.append), pytest.raises(LeaseLost):
                lease.check()
        assert decided == [{"what": "a record"}] and bucket.names("leases") == []
    monkeypatch.setattr(failures, "_PATIENCE", 0.0)
    with gcs.serving(seldom=3600) as address:
        gcs.known(address, tmp_path, monkeypatch)
        bucket = Bucket("gs://shared/x")
        bucket.replace("a", b"1")
        with pytest.raises(AlignError, match=r"answers 429 Too Many Requests whenever asked; the same command resumes"):
            bucket.replace("a", b"2")


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
