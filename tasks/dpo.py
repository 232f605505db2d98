"""Direct preference optimisation (Rafailov et al., 2023) against a frozen copy of the adapter it starts from."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from align import tables
from align.config import Metrics
from align.errors import InputError, StageError
from align.models import training
from align.models.arguments import Training, arguments
from align.models.base import BaseConfig, load_chat, load_model, save_adapter
from align.models.finite import is_finite
from align.models.kto import kto
from align.models.pairs import Pair, encode

BETA = 0.1  # of the losses that compare whole responses (Rafailov et al., 2023)
PROBE = 128  # pairs on which log-probabilities are compared before and after


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
            # trl asks for this order; that of models.order serves, as models.kto mismatches responses in the batch
            return {"beta": self.beta, "loss_type": "kto", "train_sampling_strategy": "sequential", **weights}
        losses: list[str] = [self.loss_type] + (["sft"] if self.nll else [])
        shares = [1.0, self.nll] if self.nll else None
        return {
            "beta": self.beta, "label_smoothing": self.label_smoothing, "loss_type": losses, "loss_weights": shares,
        }  # fmt: skip


def dpo(
    config: DpoConfig,
    out: Path,
    *,
    base: BaseConfig,
    adapter: Path,
    pairs: Path | None = None,
    labels: Path | None = None,
    checkpoints: Path | None = None,
) -> Metrics:
    """Train the adapter of the artifact `adapter` on the pairs (PAIRS) that are not held out; with loss_type kto on the
    labels (LABELS).

    Writes adapter/ (the policy only), training_log.parquet and dropped.parquet. Before the first step the reference
    must give the policy's log-probabilities, so that the loss is ln 2; else StageError.
    """
    config.check()
    if config.unpaired and labels is not None:
        weights = (config.desirable_weight, config.undesirable_weight)
        return kto(config, out, base=base, labels=labels, adapter=adapter, beta=config.beta, weights=weights,
                   checkpoints=checkpoints)  # fmt: skip
    if config.unpaired or pairs is None:
        raise InputError(f"loss_type {config.loss_type} needs {'labels' if config.unpaired else 'pairs'}.")
    chat = load_chat(base)
    chat.check()
    every, counts = encode(chat, tables.read(pairs), config, out)
    train, held = [p for p in every if not p.held_out], [p for p in every if p.held_out]

    from datasets import Dataset

    data = Dataset.from_list([_columns(p) for p in train])
    with arguments(config, base, len(train)) as args:
        from trl import DPOTrainer

        class Trainer(DPOTrainer):
            """The dataset is tokenised already, with checks that trl does not make."""

            def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
                return dataset

        model = training.adapt(load_model(base), config, base, adapter)
        start = training.trainable(model)
        trainer = Trainer(model=model, args=args, train_dataset=data, processing_class=chat.tokenizer)
        training.restore(model, start)
        initial = check_reference(trainer, train[:16], config.beta)
        log = training.run(trainer, "dpo", out, config, checkpoints)
        before_after = {
            **_shift(trainer, train[:PROBE], "train"),
            **(_shift(trainer, held[:PROBE], "held_out") if held else {}),
        }
    save_adapter(model, chat, base, out)
    return {
        "pairs": len(train),
        "pairs.held_out": len(held),
        **counts,
        **training.facts(log),
        "loss.initial": initial,
        **before_after,
    }


def check_reference(trainer: Any, pairs: list[Pair], beta: float) -> float:
    """The DPO loss before the first step. StageError unless the reference is the policy, so that it is ln 2."""
    import torch

    policy, reference = _logps(trainer, pairs)
    worst = float((policy - reference).abs().max())
    delta = (policy[:, 0] - reference[:, 0]) - (policy[:, 1] - reference[:, 1])
    loss = float(-torch.nn.functional.logsigmoid(beta * delta).mean())
    tolerance = 1e-3 if next(trainer.model.parameters()).dtype == torch.float32 else 0.5
    same = worst <= tolerance * (1 + float(policy.abs().max()) / 100) and abs(loss - math.log(2)) <= 1e-3
    if not same or not math.isfinite(worst):  # NaN compares as neither above nor below, infinity as equal to itself
        raise StageError(
            f"The DPO reference is not the policy that training starts from: log-probabilities differ by {worst:.3g} "
            f"and the first loss is {loss:.4f} instead of ln 2."
        )
    return loss


def _shift(trainer: Any, pairs: list[Pair], name: str) -> dict[str, float]:
    """What training did to the log-probabilities of whole responses, relative to the reference."""
    policy, reference = _logps(trainer, pairs)
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


def _logps(trainer: Any, pairs: list[Pair]) -> tuple[Any, Any]:
    """Summed log-probabilities of the responses, [N, 2] (chosen, rejected), under the policy and the reference."""
    import torch

    model, size = trainer.model, trainer.args.per_device_train_batch_size
    order = sorted(range(len(pairs)), key=lambda i: pairs[i].length)
    policy, reference = torch.zeros(len(pairs), 2), torch.zeros(len(pairs), 2)
    with torch.no_grad():
        for at in range(0, len(order), size):
            batch = order[at : at + size]
            inputs = trainer._prepare_inputs(trainer.data_collator([_columns(pairs[i]) for i in batch]))
            labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
            with trainer.accelerator.autocast():
                output = model(
                    input_ids=inputs["input_ids"],
                    attention_mask=inputs["attention_mask"],
                    labels=labels,
                    use_cache=False,
                    fused_lm_head=True,
                )
            policy[batch] = torch.stack(output.log_probs.float().sum(1).chunk(2), 1).cpu()
            reference[batch] = torch.stack(trainer.compute_ref_log_probs(model, inputs), 1).float().cpu()
    return policy, reference


def _columns(pair: Pair) -> dict[str, Any]:
    return {
        "prompt_ids": pair.chosen.ids[: pair.chosen.prompt],
        "chosen_ids": pair.chosen.ids[pair.chosen.prompt :],
        "rejected_ids": pair.rejected.ids[pair.rejected.prompt :],
        "length": pair.length,
    }
