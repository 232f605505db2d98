"""Trackers get the losses while they come; what a stage makes, and its key, do not depend on them."""

import filecmp
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import tiny
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from align.models import tracking
from align.models.arguments import LoraSettings
from align.models.base import BaseConfig
from flows.check import problems
from flows.processes import Processes
from flows.recipe import load
from storage.build import request
from storage.store import Store
from tasks.sft import SftConfig, sft

VARIABLES = tracking._variables(Path("/"), "", "", {})


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process sets them for itself: here they end with the test."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_tensorboard_gets_the_losses_of_a_stage(base: BaseConfig, tmp_path: Path) -> None:
    rows = tiny.kept(tmp_path / "kept.parquet", 16)
    config = SftConfig(max_length=128, per_device_train_batch_size=4, report_to=("tensorboard",))
    environment = tracking.place(tmp_path / "tracking", "quickstart-1", "sft_rs")
    (tmp_path / "told").mkdir()
    with Processes() as processes:
        told = processes.run(sft, config, tmp_path / "told", {"base": base, "rows": rows}, environment)
    events = EventAccumulator(str(tmp_path / "tracking" / "tensorboard" / "quickstart-1" / "sft_rs"))
    events.Reload()
    assert {"train/loss", "train/process.padding", "train/process.tokens_per_second"} <= set(events.Tags()["scalars"])
    assert [e.step for e in events.Scalars("train/loss")] == [1, 2, 3, 4]
    assert events.Scalars("train/loss")[0].value == pytest.approx(told["loss.first"], abs=1e-4)


def test_what_is_made_does_not_depend_on_trackers(
    base: BaseConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, store = tiny.kept(tmp_path / "kept.parquet", 16), Store(tmp_path / "store")
    monkeypatch.setenv(tracking.FOLDER, str(tmp_path / "tracking"))
    keys = set()
    runs: list[tuple[str, tuple[tracking.Tracker, ...]]] = [("plain", ()), ("told", ("tensorboard",))]
    for name, trackers in runs:
        (tmp_path / name).mkdir()
        config = SftConfig(max_length=128, lora=LoraSettings(lora_dropout=0.1), report_to=trackers)
        sft(config, tmp_path / name, base=base, rows=rows)
        keys.add(request(store, "sft", sft, config, {"base": base}).key)
    files = sorted(str(p.relative_to(tmp_path / "plain")) for p in (tmp_path / "plain").rglob("*") if p.is_file())
    assert filecmp.cmpfiles(tmp_path / "plain", tmp_path / "told", files, shallow=False)[0] == files
    assert len(keys) == 1 and any((tmp_path / "tracking").rglob("events.*"))


def test_trackio(base: BaseConfig, tmp_path: Path) -> None:
    pytest.importorskip("trackio", reason="the extra tracking is not installed")
    rows = tiny.kept(tmp_path / "kept.parquet", 16)
    config = SftConfig(max_length=128, per_device_train_batch_size=4, report_to=("trackio",))
    (tmp_path / "told").mkdir()
    with Processes() as processes:
        environment = tracking.place(tmp_path / "tracking", "quickstart-1", "sft")
        processes.run(sft, config, tmp_path / "told", {"base": base, "rows": rows}, environment)
    assert any(p.stat().st_size for p in (tmp_path / "tracking" / "trackio").rglob("*.db"))


def test_a_missing_tracker_is_told_before_anything_runs() -> None:
    away: Any = [n for n in ("trackio", "wandb", "mlflow") if importlib.util.find_spec(n) is None]
    if not away:
        pytest.skip("all trackers are installed")
    found = list(problems(load("quickstart", [f"sft.report_to=[{away[0]}]"])))
    assert len(found) == 1 and found[0].startswith(f"sft.report_to: {away[0]} is not installed; pip install ")
    assert next(tracking.missing(["trackio"]), "[tracking]").count("[tracking]") == 1
    assert not list(problems(load("quickstart", ["sft.report_to=[tensorboard]"])))


def test_nothing_is_sent_unless_the_user_set_it_up(tmp_path: Path) -> None:
    assert tracking._variables(tmp_path, "r", "s", {})["WANDB_MODE"] == "offline"
    assert tracking._variables(tmp_path, "r", "s", {"WANDB_API_KEY": "k"})["WANDB_MODE"] == "online"
    assert tracking.arguments(()) == {"report_to": []}
