"""Fixtures that several test modules share: a tiny base model, an adapter of it, a sandbox, and a Prefect server."""

import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import buckets
import gcs
import pytest
import sandboxes
import tiny
import warm
from browser import Browser
from served import prefect

from align.grading.sandbox import Sandbox
from align.models.base import BaseConfig
from flows import processes, server

processes.spawn = warm.spawn
for _number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
    signal.signal(_number, signal.SIG_DFL)  # under nohup, or in the background, children would inherit them ignored
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


LONG = (
    "test_quickstart_run.py",
    "test_chain.py",
    "test_workers.py",
    "test_promoted.py",
    "test_ranks.py",
    "test_security.py",
    "test_prefect.py",
    "test_endings.py",
    "test_tutorial.py",
    "test_rounds.py",
    "test_beside.py",
    "test_outages.py",
    "test_moments.py",
    "test_benchmark_gpu.py",
)


def pytest_configure() -> None:
    """One process for what all workers of xdist fork: they have the environment of this one, which is configured first."""
    warm.begin()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take minutes begin first, so that no worker ends with one while the other has nothing to do."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseConfig:
    """A 2-layer Llama with NF4 quantisation."""
    return tiny.tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def adapter(base: BaseConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact directory of an SFT run on `base` that has learned to say 'It is <number>.'"""
    from tasks.sft import SftConfig, sft

    folder = tmp_path_factory.mktemp("sft")
    (folder / "out").mkdir()
    rows = tiny.kept(folder / "kept.parquet", 64)
    sft(
        SftConfig(learning_rate=5e-3, num_train_epochs=3, per_device_train_batch_size=16, max_length=128),
        folder / "out",
        base=base,
        rows=rows,
    )
    return folder / "out"


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sandboxes.build(tmp_path_factory.mktemp("sandbox") / "warehouse")


@pytest.fixture(scope="module")
def sandbox(warehouse: Path) -> Iterator[Sandbox]:
    with Sandbox(warehouse, sandboxes.LIMITS) as box:
        yield box


@pytest.fixture(scope="module")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[server.Server]:
    """A Prefect server, which every `align run` uses that the tests of the file start from then on."""
    with prefect(tmp_path_factory.mktemp("prefect")) as running:
        yield running


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A tab of a headless Chromium."""
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real S3-compatible server."""
    with buckets.serving(tmp_path_factory.mktemp("s3") / "log") as address:
        yield address


@pytest.fixture
def s3_url(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty place in its bucket; the environment has what it takes to use it, and a cache of this test's own."""
    for name, value in buckets.environment(s3).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ALIGN_CACHE_DIR", str(tmp_path / "cache"))
    return f"s3://{buckets.BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def url(s3_url: str) -> str:
    """The store of a test: tests/test_bucket.py and others have it in `any_url` too."""
    return s3_url


@pytest.fixture(params=["s3", "gs"])
def any_url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The same, and one in a stand-in for Google's."""
    if request.param == "s3":
        yield request.getfixturevalue("s3_url")
        return
    monkeypatch.setenv("ALIGN_CACHE_DIR", str(tmp_path / "cache"))
    with gcs.serving() as address:
        gcs.known(address, tmp_path, monkeypatch)
        yield f"gs://{gcs.BUCKET}/{uuid.uuid4().hex}"
