"""The object store fails at every request of a run in turn, once or from then on: it answers 503, before or after it did
what it was asked, its answers break off, or are lost. Nothing acknowledged is lost, nothing is half visible, the cause
is one sentence, and the next run completes with the same digests."""

import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import buckets
import faulty
import pytest
from proxies import MODES, Outage, Proxy, between
from served import wait_for

from align.errors import AlignError, InputError, StageError
from storage import build, failures, upkeep
from storage.bucket import Bucket
from storage.shared import SharedStore

EVERY = os.environ.get("FAULTS") == "all"  # `make faults`: every way at every request
AT_ONCE = 4
CAUSES = dict(zip(MODES, ("503 Service", "503 Service", "break off", "cannot be reached"), strict=True))
Whole = tuple[int, set[str]]


@pytest.fixture(scope="module")
def proxy(s3: str) -> Iterator[Proxy]:
    with between(s3) as proxy, pytest.MonkeyPatch.context() as patch:
        for name, value in buckets.environment(proxy.address).items():
            patch.setenv(name, value)
        patch.setattr(failures, "_PATIENCE", 0.0)  # what fails for good would be asked for minutes
        yield proxy


def new(proxy: Proxy, **outage: object) -> tuple[str, Outage]:
    """An empty place in the bucket, and what happens to the requests about it."""
    name = uuid4().hex
    proxy.outages[name.encode()] = made = Outage(**outage)  # type: ignore[arg-type]
    return f"s3://{buckets.BUCKET}/{name}", made


def work(store: SharedStore) -> tuple[list[str], Exception | None]:
    """A run; what was acknowledged, and how it failed."""
    acknowledged: list[str] = []
    try:
        faulty.work(store, acknowledged.append)
    except Exception as error:
        return acknowledged, error
    return acknowledged, None


@pytest.fixture(scope="module")
def whole(proxy: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """How many requests a run sends, and the artifacts that it makes."""
    url, outage = new(proxy)
    store = SharedStore(Bucket(url), tmp_path_factory.mktemp("whole"))
    assert work(store)[1] is None
    return outage.seen, faulty.contents(store)


def trial(proxy: Proxy, folder: Path, whole: Whole, mode: str, nth: int, for_good: bool) -> list[str]:
    """A run whose nth request goes wrong, then one for which all is well; what is wrong with what came of them."""
    (requests, expected), (url, outage) = whole, new(proxy, mode=mode, nth=nth, for_good=for_good)
    here = folder / url.rpartition("/")[2]
    one, other = SharedStore(Bucket(url), here / "one"), SharedStore(Bucket(url), here / "other")
    acknowledged, error = work(one)
    outage.nth = 0
    wrong = [*faulty.lost(other, acknowledged), *faulty.half(other)]
    if (error is None) is (for_good and nth < requests):  # a lease need not be let go of, which is the last request
        wrong.append(f"it failed with {error!r}" if error else "it did not fail")
    if error and not (isinstance(error, AlignError) and re.fullmatch(f".*{url} .*{CAUSES[mode]}.*", str(error))):
        wrong.append(f"its cause is not one sentence: {error!r}")
    again, error = work(one)
    left = [f"{name} {bad}" for name, bad in upkeep.verify(SharedStore(Bucket(url), here / "third")) if bad]
    if error or left or faulty.contents(other) != expected:
        wrong.append(f"does not complete: {error!r} {again[-1:]} {left}")
    return [f"{mode} at {nth}{' and after' * for_good}: {what}" for what in wrong]


@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for good"])
def test_at_every_request(proxy: Proxy, whole: Whole, tmp_path: Path, for_good: bool) -> None:
    requests, _ = whole
    assert requests > 30
    plan = [(mode, n) for n in range(1, requests + 1) for i, mode in enumerate(MODES) if EVERY or (n + i) % 4 == 0]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(lambda at: trial(proxy, tmp_path, whole, at[0], at[1], for_good), plan))
    assert [what for wrong in found for what in wrong] == []


@pytest.mark.parametrize("mode", MODES[:2])
def test_a_run_waits_for_a_bucket_that_is_busy_for_seconds(
    proxy: Proxy, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(failures, "_PATIENCE", 60.0)  # a machine with other work may take long
    requests, expected = whole
    url, outage = new(proxy, mode=mode, nth=requests // 2, for_good=True)

    def ends() -> None:
        wait_for(lambda: outage.seen >= requests // 2)
        time.sleep(3)  # three times as long as obstore asks
        outage.nth = 0

    store = SharedStore(Bucket(url), tmp_path)
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(ends)
        assert work(store)[1] is None
        ended.result()
    assert outage.seen > requests + 5 and faulty.contents(store) == expected


def test_what_came_damaged_is_a_hit_again_once_it_is_made_again(proxy: Proxy, tmp_path: Path) -> None:
    """Though the bytes in the bucket, and so their tag, are what they were before."""
    url, proxy.outages[b"rows.parquet"] = f"s3://{buckets.BUCKET}/{uuid4().hex}", (outage := Outage("flipped", 1, True))
    one, two = (SharedStore(Bucket(url), tmp_path / name) for name in ("one", "two"))
    asked = build.request(one, "a", faulty.produce, faulty.Knob(), {})
    attempt, _ = build.build(one, asked)
    with pytest.raises(StageError, match=r"rows.parquet .* is not what was written"):
        two.fetch(attempt.artifact)
    outage.nth = 0
    assert two.lookup(asked.key)[0] is None
    again, ran = build.build(two, asked)
    assert ran and again.artifact == attempt.artifact and two.lookup(asked.key)[0] == again


def test_a_clock_that_the_object_store_refuses_is_named(proxy: Proxy, tmp_path: Path) -> None:
    """As S3 does where a request is dated 15 minutes off."""
    url, _ = new(proxy, mode="skewed", nth=1, for_good=True)
    _, error = work(SharedStore(Bucket(url), tmp_path))
    assert isinstance(error, InputError) and "clock" in str(error) and url in str(error)
