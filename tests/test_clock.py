"""The clock goes back an hour and ahead a day while runs are at work, alone and on two machines with one bucket."""

import json
from pathlib import Path
from typing import Any

import pytest
from preloaded import library, script


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that is a clock which jumps."""
    return library("clock.c", tmp_path_factory.mktemp("clock"))


@pytest.mark.parametrize("shared", [False, True], ids=["directory", "bucket"])
def test_runs_stay_in_order_and_nothing_is_lost(clock: Path, shared: bool, tmp_path: Path, request: Any) -> None:
    url = [request.getfixturevalue("url")] if shared else []
    done = script("clocks.py", tmp_path / "store", *url, preload=clock)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
