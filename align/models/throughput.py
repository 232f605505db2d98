"""How much of a training's work was padding, how many tokens a second it did, and how much of the device that used."""

import time
from typing import Any

from align.models.flops import cost, peak
from align.models.packing import real_tokens

PADDING, SECOND, TRAINED, MFU = (
    f"process.{name}" for name in ("padding", "tokens_per_second", "trained_tokens_per_second", "mfu")
)
"""The measures. `process.` says that they are recorded with the attempt and told to trackers, and are in no artifact: a
training that went on from a checkpoint, or in smaller passes, has others and makes the same."""


class Throughput:
    """Counts what a trainer does, from when it is made: `entry` since the last entry, `total` since the start."""

    def __init__(self, trainer: Any):
        import torch

        self.trainer, self.cost = trainer, cost(trainer.model, _scores_reference(trainer))
        device = trainer.args.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        self.peak = peak(name, 16 if trainer.args.bf16 or trainer.args.fp16 else 32)
        self.since = self.start = time.monotonic()
        self.last = self.counts = torch.zeros(4, dtype=torch.float64, device=device)
        self.told = False  # whether batches tell which tokens are trained

    def see(self, inputs: dict[str, Any]) -> None:
        """Count a batch, without waiting for the device."""
        import torch

        if "completion_ids" in inputs:  # of grpo, whose prompts and responses come apart
            whole = {k: torch.cat([inputs[f"prompt_{n}"], inputs[f"completion_{n}"]], 1)
                     for k, n in (("input_ids", "ids"), ("attention_mask", "mask"))}  # fmt: skip
            inputs = whole | {"response": inputs["completion_mask"]}
        ids, positions = inputs["input_ids"], inputs.get("position_ids")
        if positions is not None:  # packed: the squared length of a row is the sum of 2 p + 1 over its positions p
            real = real_tokens(positions)
            squares = 2 * positions.sum() + real
        else:
            lengths = inputs["attention_mask"].sum(1)
            real, squares = lengths.sum(), (lengths**2).sum()
        trained, labels = torch.zeros((), device=ids.device), inputs.get("labels")
        chosen = labels != -100 if labels is not None and labels.shape == ids.shape else None
        for name in ("completion_mask", "response"):
            chosen = inputs[name] != 0 if name in inputs else chosen
        if chosen is not None:
            trained, self.told = chosen.sum(), True
        seen = torch.stack([torch.tensor(ids.numel(), device=ids.device), real, trained, squares])
        self.counts = self.counts + seen

    def entry(self) -> dict[str, float]:
        """The measures since the last entry."""
        now, counts = time.monotonic(), self.counts
        found = self._measures((counts - self.last).tolist(), now - self.since)
        self.since, self.last = now, counts
        return found

    def total(self) -> dict[str, float]:
        """The measures of the whole training in this process."""
        return self._measures(self.counts.tolist(), time.monotonic() - self.start)

    def _measures(self, counts: list[float], seconds: float) -> dict[str, float]:
        places, real, trained, squares = counts
        if not places:
            return {}
        found = {PADDING: 1 - real / places, SECOND: real / seconds}
        if self.told:
            found[TRAINED] = trained / seconds
        if self.cost and self.peak:
            found[MFU] = self.cost.of(real, squares) / seconds / self.peak
        return found


def _scores_reference(trainer: Any) -> bool:
    """Whether every step scores its rows under the reference too, instead of reading what was computed before."""
    return hasattr(trainer, "compute_ref_log_probs") and not getattr(trainer, "precompute_ref_logps", False)


def measure(trainer: Any) -> Throughput:
    """Count what `trainer` does from now on, and let it log that with its losses."""
    found, loss_of, log_of = Throughput(trainer), trainer.compute_loss, trainer.log

    def loss(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if model.training:
            found.see(inputs)
        return loss_of(model, inputs, *args, **kwargs)

    def log(logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        log_of(logs | found.entry() if "loss" in logs else logs, *args, **kwargs)

    trainer.compute_loss, trainer.log = loss, log
    return found
