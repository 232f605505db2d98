"""A training that is killed, cancelled or out of memory goes on from its checkpoint, and ends as if nothing had been."""

import multiprocessing
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess as Process
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from test_grpo import asked
from test_grpo import settings as settings_of

from align.errors import StageError
from align.models import checkpoints as kept
from align.models.base import BaseConfig
from tasks.dpo import DpoConfig, dpo
from tasks.grpo import grpo
from tasks.reward import RewardConfig, reward
from tasks.sft import SftConfig, sft

SETTINGS: dict[str, Any] = {
    "num_train_epochs": 3, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "max_length": 128,
    "save_steps": 1,
}  # fmt: skip
STAGES = ["sft", "reward", "dpo", "grpo"]


def train(
    label: str,
    out: Path,
    base: BaseConfig,
    adapter: Path,
    checkpoints: Path | None,
    dropout: float = 0.1,
    rows: int = 40,
    **changes: Any,
) -> Any:
    """One of the training stages on a little data; the same data at every call."""
    out.mkdir(parents=True)
    settings = SETTINGS | changes
    if label == "sft":
        data = tiny.kept(out.parent / "kept.parquet", rows)
        lora = {"r": 8, "lora_dropout": dropout} if base.adapter == "lora" else None
        config: Any = SftConfig(**{"learning_rate": 1e-3, "lora": lora} | settings)
        return sft(config, out, base=base, rows=data, checkpoints=checkpoints)
    if label == "grpo":
        del settings["num_train_epochs"]
        config = settings_of(out.parent, **{"max_steps": 8} | settings)
        return grpo(config, out, base=base, rows=asked(out.parent / "rows.parquet", rows), adapter=adapter,
                    checkpoints=checkpoints)  # fmt: skip
    pairs = tiny.pairs(out.parent / "pairs.parquet", rows)
    if label == "dpo":
        config = DpoConfig(**{"learning_rate": 1e-3, "nll": 0.1} | settings)
        inputs = {"pairs": pairs, "adapter": adapter, "reference": tiny.reference(base, pairs, adapter)}
        return dpo(config, out, base=base, **inputs, checkpoints=checkpoints)
    return reward(RewardConfig(**settings), out, base=base, pairs=pairs, adapter=adapter, checkpoints=checkpoints)


FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["trl.trainer.dpo_trainer", "trl.trainer.grpo_trainer", "trl.trainer.reward_trainer", "trl.trainer.sft_trainer"]
)


def begun(label: str, out: Path, base: BaseConfig, adapter: Path, checkpoints: Path) -> Process:
    """The stage in a process of its own."""
    process = FORKS.Process(target=train, args=(label, out, base, adapter, checkpoints))
    process.start()
    return process


def wait(ready: Callable[[], bool], process: Process) -> None:
    deadline = time.monotonic() + 120
    while not ready():
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.005)


def whole(checkpoints: Path) -> list[int]:
    return sorted(int(p.parent.name.rpartition("-")[2]) for p in checkpoints.glob(f"checkpoint-*/{kept.WHOLE}"))


def outputs(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("label", STAGES)
def test_killed_at_several_steps_it_ends_as_if_undisturbed(
    label: str, base: BaseConfig, adapter: Path, tmp_path: Path
) -> None:
    """Weights and log, byte for byte: also in a later epoch, with dropout, and in the middle of an entry of the log."""
    metrics = train(label, tmp_path / "whole" / "out", base, adapter, None)
    where = tmp_path / "checkpoints"
    killed = []
    for n, least in enumerate((1, metrics["steps"] // 2, metrics["steps"] - 2)):
        process = begun(label, tmp_path / f"killed{n}" / "out", base, adapter, where)
        wait(lambda least=least: max(whole(where), default=0) >= least, process)  # type: ignore[misc]
        process.kill()
        process.join()
        killed.append(max(whole(where)))
        assert not (tmp_path / f"killed{n}" / "out" / "adapter").exists()
    again = train(label, tmp_path / "again" / "out", base, adapter, where)
    print(f"{label}: killed after steps {killed} of {metrics['steps']}")
    assert tiny.measured(again) == tiny.measured(metrics)
    assert outputs(tmp_path / "again" / "out") == outputs(tmp_path / "whole" / "out")


def test_sigterm_saves_first(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    where = tmp_path / "checkpoints"
    process = begun("dpo", tmp_path / "ended" / "out", base, adapter, where)
    wait(lambda: bool(whole(where)), process)
    process.terminate()
    process.join(30)
    assert process.exitcode == -signal.SIGTERM
    assert len(whole(where)) == 1


def test_what_is_not_whole_does_not_count(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    where = tmp_path / "checkpoints"
    train("sft", tmp_path / "a" / "out", base, adapter, where, num_train_epochs=1)
    (found,) = where.glob("checkpoint-*")
    assert kept.latest(where) == found
    file = found / "optimizer.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert kept.latest(where) is None and not found.exists()


@pytest.mark.parametrize("at", [0, 4])
def test_out_of_memory_goes_on_with_smaller_passes(
    at: int, base: BaseConfig, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """The device is played: a pass of more than four rows fails from some step on. What follows is the real trainer."""
    from trl import SFTTrainer

    step = SFTTrainer.training_step
    seen = []

    def full(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if len(inputs["input_ids"]) > 4 and self.state.global_step >= at:
            raise torch.OutOfMemoryError("CUDA out of memory")
        seen.append(len(inputs["input_ids"]))
        return step(self, model, inputs, *args, **kwargs)

    quiet = {"gradient_accumulation_steps": 1}
    plain = train("sft", tmp_path / "plain" / "out", base, adapter, None, **quiet)
    monkeypatch.setattr(SFTTrainer, "training_step", full)
    metrics = train("sft", tmp_path / "full" / "out", base, adapter, tmp_path / "checkpoints", **quiet)
    assert metrics["steps"] == plain["steps"] and metrics["loss.final"] == pytest.approx(plain["loss.final"], rel=0.02)
    assert max(seen[2 * at :]) <= 4
    assert "with 8 rows in a pass: it goes on with 4 rows and 2 passes a step" in caplog.text


def test_out_of_memory_for_one_row(
    base: BaseConfig, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl import SFTTrainer

    def full(*args: Any, **kwargs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(SFTTrainer, "training_step", full)
    with pytest.raises(StageError, match="out of GPU memory at step 1 with one row in a pass; lower max_length"):
        train("sft", tmp_path / "x" / "out", base, adapter, tmp_path / "checkpoints")


def test_a_full_disk_is_a_sentence(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    where = tmp_path / "checkpoints"
    where.mkdir()
    (where / "README.md").symlink_to(full)  # trl writes a model card there with every checkpoint
    with pytest.raises(StageError, match="disk is full: no checkpoint of sft"):
        train("sft", tmp_path / "x" / "out", base, adapter, where)
