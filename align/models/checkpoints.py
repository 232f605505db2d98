"""Checkpoints of a training: where it goes on after it was killed, cancelled, or ran out of memory.

They are kept outside the artifact, under the key of the stage, and are gone when it is published. One counts only with
the digests of its files, which are written last.
"""

import errno
import json
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from align.whole import replace, sha256

WHOLE = "whole.json"
LEAST = 2**20  # bytes: a disk with less is full
PATIENCE = 3.0  # seconds after SIGTERM in which a step has to end before the process does


def latest(folder: Path | None) -> Path | None:
    """The newest whole checkpoint in `folder`; what is not whole is removed."""
    found = None
    for path in sorted(folder.glob("checkpoint-*"), key=_step, reverse=True) if folder else ():
        if found is None and _whole(path):
            found = path
        else:
            shutil.rmtree(path, ignore_errors=True)
    return found


def clear(folder: Path | None) -> None:
    """Remove all."""
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


def is_full(error: Exception, folder: Path) -> bool:
    """Whether an error of a library that wrote to `folder` means that the disk is full; not all of them say so."""
    return getattr(error, "errno", None) == errno.ENOSPC or shutil.disk_usage(folder).free < LEAST


def _step(path: Path) -> int:
    number = path.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def _digests(path: Path) -> dict[str, str]:
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.name != WHOLE)
    return {file.relative_to(path).as_posix(): sha256(file) for file in files}


def _whole(path: Path) -> bool:
    try:
        return bool(json.loads((path / WHOLE).read_text())["files"] == _digests(path))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def attach(trainer: Any, folder: Path, minutes: float, steps: int | None) -> None:
    """Let a trainer save to `folder` every so many minutes and steps, and before it stops on `leaving`.

    What a trainer sums up between two entries of its log is saved too, so that the log of a training that was resumed
    is that of an undisturbed one.
    """
    from transformers import TrainerCallback

    folder.mkdir(parents=True, exist_ok=True)
    trainer.args.output_dir = str(folder)

    class Save(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.saved = time.monotonic()
            if state.global_step:
                _restore(trainer, json.loads((folder / f"checkpoint-{state.global_step}" / WHOLE).read_text())["sums"])

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            stop = _agreed(trainer, leaving.is_set())
            if state.global_step >= state.max_steps and not stop:
                return
            due = _agreed(trainer, 0 < minutes * 60 <= time.monotonic() - self.saved)
            control.should_save = stop or due or bool(steps and state.global_step % steps == 0)
            control.should_training_stop = stop

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            trainer.accelerator.wait_for_everyone()  # each process has its own random state
            if trainer.is_world_process_zero():
                path = folder / f"checkpoint-{state.global_step}"
                replace(path / WHOLE, {"files": _digests(path), "sums": _sums(trainer)}, durable=True)
                for old in folder.glob("checkpoint-*"):
                    if old != path:
                        shutil.rmtree(old, ignore_errors=True)
            self.saved = time.monotonic()

    trainer.add_callback(Save)


def _sums(trainer: Any) -> dict[str, Any]:
    return {
        "loss": float(trainer._tr_loss),
        "total": trainer._total_loss_scalar,
        "logged": trainer._globalstep_last_logged,
        "tokens": trainer._total_train_tokens,
        "metrics": {name: list(values) for name, values in trainer._metrics["train"].items()},
    }


def _restore(trainer: Any, sums: dict[str, Any]) -> None:
    trainer._tr_loss.fill_(sums["loss"])
    trainer._total_loss_scalar = sums["total"]
    trainer._globalstep_last_logged = sums["logged"]
    trainer._total_train_tokens = sums["tokens"]
    trainer._metrics["train"].clear()
    for name, values in sums["metrics"].items():
        trainer._metrics["train"][name].extend(values)


def _agreed(trainer: Any, wanted: bool) -> bool:
    """Whether any process of a training wants something: all of them save at one step, or none."""
    if trainer.args.world_size == 1:
        return wanted
    import torch

    votes = torch.tensor([float(wanted)], device=trainer.accelerator.device)
    return bool(trainer.accelerator.reduce(votes, "sum").item())


leaving = threading.Event()  # SIGTERM came: save at the end of this step, and go


@contextmanager
def listening() -> Iterator[None]:
    """While a training runs, SIGTERM waits for the end of the step; on the way out it ends the process.

    A step that takes longer than three seconds is not waited for.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: Any) -> None:
        leaving.set()
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)  # SIGALRM then ends the process

    leaving.clear()
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        if leaving.is_set():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTERM)
