"""Kahneman-Tversky optimisation (Ethayarajh et al., 2024): from labels of single responses, as DPO is from pairs.

The reference is a frozen copy of the adapter that training starts from. How far the policy as a whole has moved from it
is estimated in every batch on prompts with the responses of other prompts.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align import tables
from align.config import Metrics
from align.errors import StageError
from align.models import trainable, training
from align.models.arguments import Training, arguments
from align.models.base import BaseConfig, load_chat, load_model
from align.models.chat import Chat
from align.models.example import Example
from align.models.finite import is_finite
from align.models.trained import save_trained
from align.text import taken

LOG = logging.getLogger(__name__)
PROBE = 128  # labels on which log-probabilities are compared before and after
BALANCE = (1.0, 4 / 3)  # of the weighted counts of desirable and undesirable labels: equation 8 of the paper


@dataclass(frozen=True)
class Label:
    """A conversation up to its end-of-turn token, and whether its response is desirable."""

    label_id: str
    response: Example
    desirable: bool
    held_out: bool

    @property
    def prompt_ids(self) -> list[int]:
        return self.response.ids[: self.response.prompt]

    @property
    def completion_ids(self) -> list[int]:
        return self.response.ids[self.response.prompt :]


def kto(
    config: Training,
    out: Path,
    *,
    base: BaseConfig,
    labels: Path,
    adapter: Path,
    beta: float,
    weights: tuple[float, float],
    checkpoints: Path | None = None,
) -> Metrics:
    """Train the adapter of the artifact `adapter` on the labels (LABELS) that are not held out.

    `beta` and `weights` (of desirable and undesirable losses) are those of `config`. Writes adapter/ (the policy only),
    training_log.parquet and dropped.parquet. Before the first step the reference must give the policy's
    log-probabilities, so that the loss is half the mean weight; else StageError. In the metrics chosen stands for
    desirable, and accuracy is the share of (desirable, undesirable) pairs that the implicit reward tells apart.
    """
    chat = load_chat(base)
    chat.check()
    every, counts = encode(chat, tables.read(labels), config, out)
    train, held = [x for x in every if not x.held_out], [x for x in every if x.held_out]
    desirable = sum(x.desirable for x in train)
    ratio = weights[0] * desirable / (weights[1] * (len(train) - desirable))
    if not BALANCE[0] - 1e-6 <= ratio <= BALANCE[1] + 1e-6:
        LOG.warning(
            "Desirable labels weigh %.2f times what undesirable ones do; 1 to 1.33 is advised: set desirable_weight to "
            "%.3g, or undesirable_weight to %.3g.", ratio, weights[0] / ratio, weights[1] * ratio,
        )  # fmt: skip

    from datasets import Dataset

    with arguments(config, base, len(train)) as args:
        from trl import KTOTrainer

        class Trainer(KTOTrainer):
            """The dataset is tokenised already, with checks that trl does not make."""

            def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
                return dataset

        model = trainable.start(config, base, adapter)
        start = trainable.weights(model)
        trainer = Trainer(
            model=model,
            ref_model=load_model(base, trained=adapter) if base.adapter == "none" else None,
            args=args,
            train_dataset=Dataset.from_list(columns(train)),
            data_collator=Collator(chat.pad_id, config.max_length),
            processing_class=chat.tokenizer,
        )
        trainable.restore(model, start)
        initial = check_reference(trainer, train[:16], beta, weights)
        log = training.run(trainer, "kto", out, config, checkpoints)
        shifts = _shift(trainer, train[:PROBE], "train") | _shift(trainer, held[:PROBE], "held_out")
    save_trained(model, chat, base, out)
    return {
        "labels": len(train),
        "labels.desirable": desirable,
        "labels.undesirable": len(train) - desirable,
        "labels.held_out": len(held),
        "labels.balance": ratio,
        **counts,
        **training.facts(log),
        "loss.initial": initial,
        **shifts,
    }


def encode(
    chat: Chat, table: Sequence[dict[str, Any]], config: Training, out: Path
) -> tuple[list[Label], dict[str, int]]:
    """The labels of a LABELS table as tokens, and how many were read and dropped, as metrics.

    Labels of empty responses and those longer than max_length are dropped and counted (dropped.parquet). Raises
    StageError if too many are too long, if one side is left without a label, or if all have one prompt.
    """
    table = [table[at] for at in taken([r["label_id"] for r in table], config.limit, config.seed)]
    faults = [None if (r["response"] or "").strip() else "empty response" for r in table]
    faults = [fault or chat.lost(r["messages"], r["response"]) for r, fault in zip(table, faults, strict=True)]
    sound = [r for r, fault in zip(table, faults, strict=True) if not fault]
    faulty = [(r["label_id"], fault, None) for r, fault in zip(table, faults, strict=True) if fault]
    examples = chat.examples([r["messages"] for r in sound], [r["response"] for r in sound])
    ids = [r["label_id"] for r in sound]
    training.check_ends(chat, [e.ids[-1] for e in examples], ids)
    kept = training.within_length(ids, [len(e.ids) for e in examples], config, "labels", out, faulty)
    found = [Label(ids[i], examples[i], bool(sound[i]["desirable"]), bool(sound[i]["held_out"])) for i in kept]
    train = [x for x in found if not x.held_out]
    sides = {side: sum(x.desirable == (side == "desirable") for x in train) for side in ("desirable", "undesirable")}
    if lacking := [side for side, n in sides.items() if not n]:
        raise StageError(
            f"There are 0 {lacking[0]} labels to train on ({len(table)} were read); give ingest labelled rows with "
            "use: preferences, or grade samples that are both right and wrong."
        )
    if len({tuple(x.prompt_ids) for x in train}) == 1:
        raise StageError("All labels have the same prompt; KTO needs responses to other prompts beside it.")
    counts = {
        "labels.read": len(table),
        "labels.too_long": len(sound) - len(kept),
        "labels.faulty": len(faulty),
    }
    return found, counts


def columns(labels: Sequence[Label]) -> list[dict[str, Any]]:
    """Rows of a dataset. `other` is the response to another prompt, for where a batch holds none."""
    rows = []
    for i, x in enumerate(labels):
        others = (labels[(i + k) % len(labels)] for k in range(1, len(labels)))
        other = next((y.completion_ids for y in others if y.prompt_ids != x.prompt_ids), x.completion_ids)
        rows.append(
            {
                "prompt_ids": x.prompt_ids, "completion_ids": x.completion_ids, "label": x.desirable,
                "other": other, "length": len(x.response.ids),
            }
        )  # fmt: skip
    return rows


class Collator:
    """Batches as trl's trainer takes them, with each prompt's mismatched response (KL_completion_ids).

    trl lays the mismatched responses down before training, turned by one within batches of a fixed order; here they are
    turned within the batch that is drawn, past those of the same prompt, so that rows may be shuffled and batches cut.
    """

    def __init__(self, pad_id: int, max_length: int):
        from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

        self._pad, self._most = DataCollatorForUnpairedPreference(pad_token_id=pad_id), max_length

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        return dict(self._pad([row | {"KL_completion_ids": self._other(rows, i)} for i, row in enumerate(rows)]))

    def _other(self, rows: list[dict[str, Any]], i: int) -> list[int]:
        prompt = rows[i]["prompt_ids"]
        before = (rows[i - k] for k in range(1, len(rows)))
        found = next((row["completion_ids"] for row in before if row["prompt_ids"] != prompt), rows[i]["other"])
        return list(found[: self._most - len(prompt)])


def check_reference(trainer: Any, labels: Sequence[Label], beta: float, weights: tuple[float, float]) -> float:
    """The KTO loss before the first step. StageError unless the reference is the policy: it is half the mean weight."""
    import torch

    policy, reference = _logps(trainer, labels)
    worst = float((policy - reference).abs().max())
    sign = torch.tensor([1.0 if x.desirable else -1.0 for x in labels])
    weight = torch.tensor([weights[0] if x.desirable else weights[1] for x in labels])
    loss = float((weight * (1 - torch.sigmoid(sign * beta * (policy - reference)))).mean())
    half = float(weight.mean()) / 2
    tolerance = 1e-3 if next(trainer.model.parameters()).dtype == torch.float32 else 0.5
    same = worst <= tolerance * (1 + float(policy.abs().max()) / 100) and abs(loss - half) <= 1e-3 * max(weights)
    if not same or not math.isfinite(worst):
        raise StageError(
            f"The KTO reference is not the policy that training starts from: log-probabilities differ by {worst:.3g} "
            f"and the first loss is {loss:.4f} instead of {half:.4f}."
        )
    return loss


def _shift(trainer: Any, labels: Sequence[Label], name: str) -> dict[str, float]:
    """What training did to the log-probabilities of whole responses, relative to the reference."""
    if len({x.desirable for x in labels}) < 2:
        return {}
    policy, reference = _logps(trainer, labels)
    ratio = policy - reference
    if not is_finite(ratio):
        raise StageError(
            f"The trained policy gives labels ({name}) no finite log-probabilities; lower dpo.learning_rate."
        )
    good = ratio[[i for i, x in enumerate(labels) if x.desirable]]
    bad = ratio[[i for i, x in enumerate(labels) if not x.desirable]]
    gap = good[:, None] - bad[None, :]
    return {
        f"logps.chosen_shift.{name}": float(good.mean()),
        f"logps.rejected_shift.{name}": float(bad.mean()),
        f"accuracy.{name}": float(((gap > 0).float() + 0.5 * (gap == 0).float()).mean()),
    }


def _logps(trainer: Any, labels: Sequence[Label]) -> tuple[Any, Any]:
    """Summed log-probabilities of the responses, [N], under the policy and the reference."""
    import torch

    model, size, rows = trainer.model, trainer.args.per_device_train_batch_size, columns(labels)
    order = sorted(range(len(rows)), key=lambda i: rows[i]["length"])
    policy, reference = torch.zeros(len(rows)), torch.zeros(len(rows))
    with torch.no_grad():
        for at in range(0, len(order), size):
            batch = order[at : at + size]
            inputs = trainer._prepare_inputs(trainer.data_collator([rows[i] for i in batch]))
            targets = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
            with trainer.accelerator.autocast():
                output = model(
                    input_ids=inputs["input_ids"],
                    attention_mask=inputs["attention_mask"],
                    labels=targets,
                    use_cache=False,
                    fused_lm_head=True,
                )
            policy[batch] = output.log_probs.float().sum(1).cpu()
            reference[batch] = trainer.compute_ref_log_probs(model, inputs)[0].float().cpu()
    return policy, reference
