"""What sft, reward and dpo share beside their settings: the adapter, the log, and the checks."""

import gc
import logging
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

from align import tables
from align.errors import StageError
from align.models import checkpoints, order
from align.models.arguments import Training
from align.models.finite import check_end, watch
from align.models.reader import Reader
from align.models.shards import local, reshard
from align.models.throughput import SECOND, measure
from align.models.trainable import weights
from align.progress import Progress

LOG = logging.getLogger(__name__)

Dropped = tuple[str, str, int | None]  # row or pair id, reason, tokens


class Lengths(Protocol):
    """The settings that decide which rows are used, of a training stage and of one that scores for it."""

    @property
    def max_length(self) -> int: ...
    @property
    def max_truncated_share(self) -> float: ...
    @property
    def limit(self) -> int | None: ...
    @property
    def seed(self) -> int: ...


def within_length(
    ids: Sequence[str],
    lengths: Sequence[int],
    config: Lengths,
    what: str,
    out: Path,
    faulty: Sequence[Dropped] = (),
) -> list[int]:
    """Positions of the rows that are at most `max_length` tokens long; the others go to dropped.parquet.

    So do `faulty` rows. Raises StageError if more than `max_truncated_share` of the rows are longer.
    """
    kept = [i for i, n in enumerate(lengths) if n <= config.max_length]
    long = [i for i, n in enumerate(lengths) if n > config.max_length]
    write_dropped(out, [*faulty, *((ids[i], "too long", lengths[i]) for i in long)])
    share = len(long) / max(1, len(lengths))
    if share > config.max_truncated_share:
        raise StageError(
            f"{len(long)} of {len(lengths)} {what} ({share:.0%}) are longer than max_length = {config.max_length} "
            f"tokens, more than max_truncated_share = {config.max_truncated_share:.0%} allows; raise one of them."
        )
    return kept


def write_dropped(out: Path, dropped: Sequence[Dropped]) -> int:
    """Write dropped.parquet."""
    return tables.write(
        out / "dropped.parquet",
        ({"row_id": i, "reason": reason, "n_tokens": n} for i, reason, n in dropped),
        tables.DROPPED,
    )


def run(
    trainer: Any, label: str, out: Path, config: Training, checkpoints_in: Path | None = None
) -> list[dict[str, float]]:
    """Train; writes training_log.parquet and returns the log, one dict per entry; the last has the measures of all.

    With a directory `checkpoints_in` it goes on from the newest checkpoint there, and keeps some as `config` says.
    Raises StageError on 0 steps, and where the loss, a gradient or a weight is not finite (models.finite).
    """
    from transformers import PrinterCallback, TrainerCallback

    class Bar(TrainerCallback):
        progress: Progress

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.progress = Progress(state.max_steps, label, state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.progress.advance()

        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            logs = kwargs["logs"]
            shown = {"loss": "loss", "reward": "reward", SECOND: "tokens_per_second"}
            self.progress.facts |= {name: logs[key] for key, name in shown.items() if key in logs}

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.progress.close()

    reshard(trainer.model)
    if checkpoints_in and any(p.requires_grad and local(p) is not p for p in trainer.model.parameters()):
        LOG.warning("%s keeps no checkpoints: its weights are split, and transformers cannot go on from parts.", label)
        checkpoints_in = None
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Bar)
    order.install(trainer)
    if checkpoints_in:
        checkpoints.attach(trainer, checkpoints_in, config.save_minutes, config.save_steps)
    watch(trainer, label)
    throughput = measure(trainer)
    with checkpoints.listening() if checkpoints_in else nullcontext():
        _train(trainer, label, checkpoints_in)
    total = throughput.total()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    if trainer.state.global_step == 0 or not log:
        raise StageError("The trainer made 0 steps.")
    check_end(trainer, label)
    tables.write(
        out / "training_log.parquet",
        (
            {"step": entry["step"], "name": name, "value": float(value)}
            for entry in log
            for name, value in sorted(entry.items())
            if name not in ("step", "epoch") and not name.startswith("process.") and isinstance(value, int | float)
        ),
        tables.TRAINING_LOG,
    )
    return [*log[:-1], log[-1] | total]


def _train(trainer: Any, label: str, checkpoints_in: Path | None) -> None:
    """Train to the end, in smaller passes where memory runs out. Raises StageError where it does for one row, too."""
    import torch

    args, first = trainer.args, {name: local(p).to("cpu", copy=True) for name, p in weights(trainer.model).items()}
    while True:
        start = checkpoints.latest(checkpoints_in)
        at = int(start.name.rpartition("-")[2]) if start else 0
        if start:
            LOG.warning("%s goes on from step %d.", label, at)
        try:
            trainer.train(resume_from_checkpoint=str(start) if start else None)
            return
        except torch.OutOfMemoryError:
            rows, done = args.per_device_train_batch_size, trainer.state.global_step
        except StageError:
            checkpoints.clear(checkpoints_in)  # the same again would end at the same step
            raise
        except Exception as error:
            if checkpoints_in and checkpoints.is_full(error, checkpoints_in):
                raise StageError(
                    f"The disk is full: no checkpoint of {label} could be written to {checkpoints_in}; make room."
                ) from error
            raise
        if rows == 1:
            raise StageError(
                f"{label} ran out of GPU memory at step {done + 1} with one row in a pass; lower max_length or lora.r, "
                "set gradient_checkpointing to true, or take a smaller base."
            )
        smaller(trainer)
        LOG.warning(
            "%s ran out of GPU memory at step %d with %d rows in a pass: it goes on with %d rows and %d passes a step.",
            label, done + 1, rows, args.per_device_train_batch_size, args.gradient_accumulation_steps,
        )  # fmt: skip
        if checkpoints.latest(checkpoints_in) is None:
            with torch.no_grad():
                for name, parameter in trainer.model.named_parameters():
                    if name in first:
                        local(parameter).copy_(first[name])


def smaller(trainer: Any) -> None:
    """Half as many rows in a pass, and twice as many passes to a step; the optimiser starts anew."""
    import torch

    args = trainer.args
    rows = args.per_device_train_batch_size * args.gradient_accumulation_steps
    args.per_device_train_batch_size = next(
        n for n in range(args.per_device_train_batch_size // 2, 0, -1) if rows % n == 0
    )
    args.gradient_accumulation_steps = rows // args.per_device_train_batch_size
    getattr(trainer, "resized", lambda: None)()
    trainer._train_batch_size = args.train_batch_size
    trainer.accelerator.gradient_accumulation_steps = args.gradient_accumulation_steps
    trainer.optimizer = trainer.lr_scheduler = None
    trainer.model.zero_grad(set_to_none=True)
    gc.collect()
    torch.cuda.empty_cache()


def facts(log: list[dict[str, float]]) -> dict[str, float | int]:
    """The metrics that every training stage reports."""
    tail = [entry["loss"] for entry in log[-max(1, len(log) // 10) :]]
    return {
        "steps": int(log[-1]["step"]),
        "loss.first": float(log[0]["loss"]),
        "loss.final": sum(tail) / len(tail),
        "tokens": int(log[-1].get("num_tokens", 0)),
        **{name: value for name, value in log[-1].items() if name.startswith("process.")},
    }


def check_ends(chat: Reader, last: Sequence[int], ids: Sequence[str], calls: Collection[str] = ()) -> None:
    """StageError unless every row's last trained token is the end-of-turn token; of the rows `calls`, a control token,
    since templates may end tool calls with another one."""
    wrong = [i for i, token in zip(ids, last, strict=True)
             if token != chat.end_id and not (i in calls and token in chat.control.ids)]  # fmt: skip
    if wrong:
        raise StageError(f"The end-of-turn token of {len(wrong)} rows is not trained on, such as {wrong[0]}.")
