"""Two schedulers start the same run at the same moment, on one machine, and on two that share a bucket."""

import os
import subprocess
from pathlib import Path
from typing import Any

import buckets
import pytest
from served import ALIGN, PATIENCE, TINY, own_environment

from flows.recipe import ROOT
from storage import places, runs, upkeep


@pytest.mark.parametrize("shared", [False, True], ids=["directory", "bucket"])
def test_each_stage_is_computed_once(shared: bool, tmp_path: Path, request: Any) -> None:
    where = request.getfixturevalue("url") if shared else str(tmp_path / "store")
    more = {name: os.environ[name] for name in buckets.environment("")} if shared else {}
    words = [*ALIGN, "run", str(TINY), "--select", "+filter", "--store", where]
    started = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        env = own_environment(**more, ALIGN_CACHE_DIR=str(tmp_path / name / "cache"), PYTHONPATH=str(ROOT))
        started.append(
            subprocess.Popen(words, cwd=tmp_path / name, env=env, stdout=-1, stderr=subprocess.STDOUT, text=True)
        )
    said = [process.communicate(timeout=PATIENCE)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    store = places.at(where)
    history = runs.history(store)
    assert [run["status"] for run in history] == ["done", "done"]
    one, two = ({s["stage"]: s for s in runs.stages(store, run["run_id"])} for run in history)
    for stage in ("ingest", "filter"):
        assert one[stage]["artifact"] == two[stage]["artifact"]
        assert sorted([one[stage]["status"], two[stage]["status"]]) == ["cached", "ran"]
    assert sorted(attempt.stage for attempt in store.attempts()) == ["filter", "ingest"]
    assert not [name for name, wrong in upkeep.verify(store) if wrong]
