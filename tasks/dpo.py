"""Direct preference optimisation (Rafailov et al., 2023) against the policy it starts from."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from unittest import mock

from pydantic import Field

from align import tables
from align.config import Metrics
from align.errors import InputError, StageError
from align.models import reference as references
from align.models import trainable, training
from align.models.arguments import Training, arguments
from align.models.base import BaseConfig, compute_dtype, load_chat
from align.models.chat import Chat
from align.models.finite import is_finite
from align.models.kto import kto
from align.models.logps import logps
from align.models.pairs import Pair, encode
from align.models.trained import save_trained

if TYPE_CHECKING:
    import torch

BETA = 0.1  # of the losses that compare whole responses (Rafailov et al., 2023)
PROBE = 128  # pairs on which log-probabilities are compared before and after
REFERENCE = {"precompute_ref_log_probs": False, "sync_ref_model": False, "ld_alpha": None}
"""trl's arguments by which the reference's log-probabilities would be others: those of the artifact are plain sums."""


class DpoConfig(Training):
    """Settings of dpo."""

    TRL: ClassVar[str] = "DPOConfig"

    learning_rate: float = Field(default=5e-6, gt=0)
    """Peak learning rate."""
    beta: float = Field(default=BETA, gt=0)
    """How strongly the policy is held to the reference; 5 with sigmoid_norm, as in Tülu 3. With ipo the margin aimed at
    is 1 / (2 beta) nats per token, and 0.1 is refused."""
    loss_type: Literal["sigmoid", "sigmoid_norm", "ipo", "hinge", "robust", "kto"] = "sigmoid"
    """The preference loss; sigmoid_norm divides log-probabilities by the response's length; kto
    (Ethayarajh et al., 2024) trains on labels of single responses instead of pairs."""
    nll: float = Field(default=0.0, ge=0)
    """Weight of the chosen responses' NLL beside the loss, against falling likelihoods (Pang et al., 2024)."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """Assumed share of flipped labels; of loss_type robust, the only loss here that reads it."""

    desirable_weight: float = Field(default=1.0, gt=0)
    """Weight of the loss of desirable responses; of loss_type kto."""
    undesirable_weight: float = Field(default=1.0, gt=0)
    """Weight of the loss of undesirable responses; of loss_type kto."""

    @property
    def unpaired(self) -> bool:
        """Whether labels are trained on instead of pairs."""
        return self.loss_type == "kto"

    @property
    def trl(self) -> str:
        return "KTOConfig" if self.unpaired else self.TRL

    def contradictions(self) -> Iterator[str]:
        if self.loss_type != "robust" and self.label_smoothing:
            yield f"label_smoothing: has no effect with loss_type {self.loss_type}; choose robust, or leave it out."
        if self.loss_type == "robust" and not self.label_smoothing:
            yield "label_smoothing: is 0, with which robust is sigmoid; give the share of flipped labels."
        # Recipes write out the beta of sigmoid, so that it was given does not say that it was meant for another loss.
        if self.loss_type == "ipo" and self.beta == BETA:
            yield (
                f"beta: {BETA:g} is the default of losses of whole responses; that of ipo sets the margin aimed at, "
                f"1 / (2 beta) nats per token (here {1 / (2 * BETA):g}); give the one that you mean."
            )
        for name in self.changed("nll") if self.unpaired else self.changed("desirable_weight", "undesirable_weight"):
            yield f"{name}: has no effect with loss_type {self.loss_type}; leave it out."
        if self.unpaired and self.per_device_train_batch_size == 1:
            yield "per_device_train_batch_size: is 1, but kto compares the responses of a batch; give at least 2."
        if self.loss_type == "sigmoid_norm" and self.beta < 1:
            yield (
                f"beta: {self.beta:g} is too small for sigmoid_norm, whose log-probabilities are means per token; "
                "it was published with 2 to 10 (5 in Tülu 3)."
            )

    def own(self) -> dict[str, Any]:
        if self.unpaired:
            weights = {"desirable_weight": self.desirable_weight, "undesirable_weight": self.undesirable_weight}
            return {"beta": self.beta, "loss_type": "kto", **weights}
        losses: list[str] = [self.loss_type] + (["sft"] if self.nll else [])
        shares = [1.0, self.nll] if self.nll else None
        return {
            "beta": self.beta, "label_smoothing": self.label_smoothing, "loss_type": losses, "loss_weights": shares,
            **REFERENCE,
        }  # fmt: skip


def dpo(
    config: DpoConfig,
    out: Path,
    *,
    base: BaseConfig,
    adapter: Path,
    pairs: Path | None = None,
    reference: Path | None = None,
    labels: Path | None = None,
    checkpoints: Path | None = None,
) -> Metrics:
    """Train the policy of the artifact `adapter` further, on the pairs (PAIRS) that are not held out; with loss_type
    kto on the labels (LABELS).

    `reference` is the artifact of the stage reference on this adapter and these pairs. Writes adapter/,
    training_log.parquet and dropped.parquet. Before the first step the policy must give the reference's
    log-probabilities, so that the loss is ln 2; else StageError, as where the reference is of something else.
    """
    import torch

    config.check()
    if config.unpaired and labels is not None:
        weights = (config.desirable_weight, config.undesirable_weight)
        return kto(config, out, base=base, labels=labels, adapter=adapter, beta=config.beta, weights=weights,
                   checkpoints=checkpoints)  # fmt: skip
    if config.unpaired or pairs is None or reference is None:
        needs = "labels" if config.unpaired else "pairs and the artifact of the stage reference"
        raise InputError(f"loss_type {config.loss_type} needs {needs}.")
    chat = load_chat(base)
    chat.check()
    every, counts = encode(chat, tables.read(pairs), config, out)
    train, held = [p for p in every if not p.held_out], [p for p in every if p.held_out]
    references.check(reference, chat, pairs, adapter)
    frozen, frozen_held = (references.read(reference, some) for some in (train, held))

    with arguments(config, base, len(train)) as args:
        model = trainable.start(config, base, adapter)
        start = trainable.weights(model)
        trainer = trainer_of(model, args, train, frozen, chat)
        trainable.restore(model, start)

        def score(some: list[Pair]) -> torch.Tensor:  # the batch is the trainer's, which may run out of memory
            return logps(model, some, chat.pad_id, batch_size=2 * args.per_device_train_batch_size)

        exact = compute_dtype(base) == torch.float32
        initial = check_reference(score(train[:16]), frozen[:16], config.beta, exact=exact)
        log = training.run(trainer, "dpo", out, config, checkpoints)
        before_after = _shift(score(train[:PROBE]), frozen[:PROBE], "train")
        if held:
            before_after |= _shift(score(held[:PROBE]), frozen_held[:PROBE], "held_out")
    save_trained(model, chat, base, out)
    return {
        "pairs": len(train),
        "pairs.held_out": len(held),
        **counts,
        **training.facts(log),
        "loss.initial": initial,
        **before_after,
    }


def trainer_of(model: Any, args: Any, pairs: list[Pair], reference: "torch.Tensor", chat: Chat) -> Any:
    """trl's DPOTrainer on `pairs` with their reference log-probabilities, [N, 2], and no second adapter."""
    from datasets import Dataset
    from trl import DPOTrainer

    class Trainer(DPOTrainer):
        """The dataset is tokenised already, with checks that trl does not make."""

        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

    adapted = hasattr(model, "peft_config")
    args.precompute_ref_log_probs = not adapted  # else trl would load a model to compare with
    columns = [_columns(p, *values) for p, values in zip(pairs, reference.tolist(), strict=True)]
    data = Dataset.from_list(columns)
    with mock.patch("trl.trainer.dpo_trainer.hash_module"):  # of all weights, to name a file that is not written here
        trainer = Trainer(model=model, args=args, train_dataset=data, processing_class=chat.tokenizer)
    trainer.precompute_ref_logps = True
    if adapted:
        model.delete_adapter("ref")  # trl's copy of the adapter, which nothing reads now
    return trainer


def check_reference(policy: "torch.Tensor", reference: "torch.Tensor", beta: float, *, exact: bool) -> float:
    """The DPO loss before the first step, from log-probabilities [N, 2] each.

    Raises StageError unless the reference is the policy, so that the loss is ln 2. In half precision (`exact` false)
    the same response in another batch differs by rounding, and the loss by beta times that.
    """
    import torch

    worst = float((policy - reference).abs().max())
    delta = (policy[:, 0] - reference[:, 0]) - (policy[:, 1] - reference[:, 1])
    loss = float(-torch.nn.functional.logsigmoid(beta * delta).mean())
    tolerance = (1e-3 if exact else 0.5) * (1 + float(policy.abs().max()) / 100)
    same = worst <= tolerance and abs(loss - math.log(2)) <= (1e-3 if exact else max(1e-3, beta * tolerance))
    if not same or not math.isfinite(worst):  # NaN compares as neither above nor below, infinity as equal to itself
        raise StageError(
            f"The DPO reference is not the policy that training starts from: log-probabilities differ by {worst:.3g} "
            f"and the first loss is {loss:.4f} instead of ln 2."
        )
    return loss


def _shift(policy: "torch.Tensor", reference: "torch.Tensor", name: str) -> dict[str, float]:
    """What training did to the log-probabilities of whole responses, [N, 2], relative to the reference."""
    ratio = policy - reference
    if not is_finite(ratio):
        raise StageError(
            f"The trained policy gives pairs ({name}) no finite log-probabilities; lower dpo.learning_rate."
        )
    return {
        f"logps.chosen_shift.{name}": float(ratio[:, 0].mean()),
        f"logps.rejected_shift.{name}": float(ratio[:, 1].mean()),
        f"accuracy.{name}": float((ratio[:, 0] > ratio[:, 1]).float().mean()),
    }


def _columns(pair: Pair, chosen: float, rejected: float) -> dict[str, Any]:
    return {
        "prompt_ids": pair.chosen.ids[: pair.chosen.prompt],
        "chosen_ids": pair.chosen.ids[pair.chosen.prompt :],
        "rejected_ids": pair.rejected.ids[pair.rejected.prompt :],
        "ref_chosen_logps": chosen,
        "ref_rejected_logps": rejected,
        "length": pair.length,
    }
