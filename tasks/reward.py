"""A Bradley-Terry reward model: which of two responses is better, learned from the pairs alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from align import tables
from align.config import Metrics
from align.errors import InputError, StageError
from align.models import trainable, training
from align.models.arguments import Training, arguments
from align.models.base import BaseConfig
from align.models.encoder import EncoderReader
from align.models.example import Example, pad
from align.models.memory_inference import Batch, release
from align.models.pairs import Pair, encode
from align.models.reader import Reader
from align.models.reward_accuracy import about, accuracies
from align.models.reward_model import Kind, heads, load_reader, load_reward, reward_base, rewards, save_kind, score
from align.models.shards import of_first
from align.models.trained import save_trained
from align.paired import paired_difference


class RewardConfig(Training):
    """Settings of reward."""

    TRL: ClassVar[str] = "RewardConfig"

    learning_rate: float = Field(default=1e-4, gt=0)
    """Peak learning rate."""
    base: BaseConfig | None = None
    """Another model to train the reward model on than the recipe's base: an encoder (BERT and its kin) or a language
    model. It starts without an adapter."""
    kind: Literal["head", "likelihood"] = "head"
    """head: a linear map at the end-of-turn token, for thousands of pairs; likelihood: the mean log-probability of the
    response, which starts from what SFT knows, for small models and few pairs. An encoder takes head, at its first
    token."""
    init_from_sft: bool = True
    """Start from a copy of the SFT adapter instead of a fresh one."""
    center_rewards_coefficient: float = Field(default=0.01, ge=0)
    """Weight of the squared sum of both rewards, which keeps a head's scores around 0 (Eisenstein et al., 2023);
    of kind head only."""

    def contradictions(self) -> Iterator[str]:
        if self.kind == "likelihood" and self.center_rewards_coefficient and self.changed("center_rewards_coefficient"):
            yield "center_rewards_coefficient: centres the scores of a head; kind likelihood has none, leave it out."
        if self.base is not None and self.kind == "likelihood" and self.init_from_sft:
            yield "init_from_sft: no adapter of sft fits reward.base; set it to false, or leave reward.base out."

    per_device_eval_batch_size: Batch = "auto"
    """Conversations scored together; auto is 64, on a GPU what fits of them."""

    def own(self) -> dict[str, Any]:
        return {"center_rewards_coefficient": self.center_rewards_coefficient or None}


def reward(
    config: RewardConfig,
    out: Path,
    *,
    base: BaseConfig,
    pairs: Path,
    adapter: Path | None = None,
    checkpoints: Path | None = None,
) -> Metrics:
    """Train on the pairs (PAIRS) that are not held out, then measure on those that are.

    Writes adapter/ (LoRA, and the score head where there is one), training_log.parquet, held_out.parquet,
    reward_accuracy.parquet and dropped.parquet. The held-out scores come from the reloaded artifact, which is loaded
    when the trained model is gone: two would not fit where one does. `config.base` goes before `base`, and starts
    without an adapter. Raises StageError where a check fails.
    """
    config.check()
    if config.base is not None:
        base, adapter = config.base, None
    if config.kind == "likelihood" and config.init_from_sft and adapter is None:
        raise InputError("reward.kind likelihood with init_from_sft needs the SFT adapter.")
    chat = load_reader(base)
    chat.check()
    kind: Kind = "encoder" if isinstance(chat, EncoderReader) else config.kind
    if kind != config.kind and config.kind == "likelihood":
        raise InputError(
            f"reward.kind is likelihood, but {base.name} is an encoder, which writes nothing; set it to head."
        )
    longest = min(config.max_length, chat.room)  # an encoder has no place for more
    config = config.model_copy(update={"max_length": longest})
    table = tables.read(pairs)
    every, counts = encode(chat, table, config, out)
    train, held = [p for p in every if not p.held_out], [p for p in every if p.held_out]

    size, probes = config.per_device_eval_batch_size, _both(every[:8])
    with arguments(config, base, len(train)) as args:
        log, before, after = _train(
            config,
            kind,
            out,
            base,
            adapter if config.init_from_sft else None,
            args,
            chat,
            train,
            _both(held),
            probes,
            checkpoints,
        )
    release()
    scorer, kind = load_reward(base, of_first(out))  # of a split model only the first process writes the weights
    check_saved(after, scorer, kind, chat, probes, size)
    scores = score(scorer, kind, chat, _both(held), batch_size=size, label="held-out pairs")
    of = {p["pair_id"]: p for p in table}
    scored = [
        {
            "pair_id": p.pair_id,
            "chosen_score": scores[i],
            "rejected_score": scores[len(held) + i],
            "chosen_before": before[i] if kind == "likelihood" else None,
            "rejected_before": before[len(held) + i] if kind == "likelihood" else None,
            "chosen_tokens": p.chosen.tokens,
            "rejected_tokens": p.rejected.tokens,
            **{name: of[p.pair_id].get(name) for name in ("source", "category")},
        }
        for i, p in enumerate(held)
    ]
    tables.write(out / "held_out.parquet", scored, tables.HELD_OUT)
    by_group = list(accuracies(scored, [of[p.pair_id]["row_id"] for p in held]))
    tables.write(out / "reward_accuracy.parquet", by_group, tables.REWARD_ACCURACY)
    metrics: dict[str, float | int | str] = {
        "pairs": len(train),
        "pairs.held_out": len(held),
        **counts,
        **training.facts(log),
        "accuracy.train": _tail(log, "accuracy"),
    }
    if held:
        lengths = [float(len(e.ids)) for e in _both(held)]
        longer = _accuracy(lengths)
        metrics |= {
            "accuracy.held_out": _accuracy(scores),
            "accuracy.held_out.initial": _accuracy(before),
            "accuracy.length_baseline": max(longer, 1 - longer),
            **(_gain(held, scores, before) if kind == "likelihood" else {}),
            **about(by_group),
            "margin.held_out": sum(scores[: len(held)]) / len(held) - sum(scores[len(held) :]) / len(held),
        }
    return metrics


def _train(
    config: RewardConfig,
    kind: Kind,
    out: Path,
    base: BaseConfig,
    adapter: Path | None,
    args: Any,
    chat: Reader,
    train: list[Pair],
    held: list[Example],
    probes: list[Example],
    checkpoints: Path | None,
) -> tuple[list[dict[str, float]], list[float], list[float]]:
    """Train and save; the log, and the scores of `held` before and of `probes` after. Nothing keeps the model alive."""
    import torch

    torch.manual_seed(config.seed)  # a head starts at random
    size, model = config.per_device_eval_batch_size, reward_base(base, kind, adapter, split=True)
    whole = heads(model, kind)
    model = trainable.adapt(model, config, base, adapter, heads=whole)
    start = trainable.weights(model)
    if not all(any(f".{head}." in f".{name}" for name in start) for head in whole):
        raise StageError("The score head would not be trained.")
    trainer = _trainer(config, kind, model, chat, train, args)
    trainable.restore(model, start)
    before = score(model.eval(), kind, chat, held, batch_size=size, label="held-out pairs")
    log = training.run(trainer, "reward", out, config, checkpoints)
    save_trained(model, chat, base, out)
    save_kind(kind, out)
    return log, before, score(model.eval(), kind, chat, probes, batch_size=size)


def _trainer(config: RewardConfig, kind: Kind, model: Any, chat: Reader, train: list[Pair], args: Any) -> Any:
    """trl's RewardTrainer; other kinds than a head keep its loss and metrics, and bring their own reward."""
    import torch
    from datasets import Dataset
    from trl import RewardTrainer

    class Rewarded(RewardTrainer):
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            found = rewards(model, kind, inputs["input_ids"], inputs["attention_mask"], inputs["response"])
            chosen, rejected = found.chunk(2)
            seen = self._metrics["train" if model.training else "eval"]
            seen["accuracy"].append((chosen > rejected).float().mean().item())
            seen["margin"].append((chosen - rejected).mean().item())
            self._total_train_tokens += int(inputs["attention_mask"].sum())
            seen["num_tokens"] = [self._total_train_tokens]
            loss = -torch.nn.functional.logsigmoid(chosen - rejected).mean()
            if kind == "encoder":
                loss = loss + config.center_rewards_coefficient * ((chosen + rejected) ** 2).mean()
            return (loss, None) if return_outputs else loss

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        sides = [Example(r[f"{side}_ids"], [], r["prompt"]) for side in ("chosen", "rejected") for r in rows]
        ids, mask, response = pad(sides, chat.pad_id)
        return {"input_ids": ids, "attention_mask": mask, "response": response}

    return (RewardTrainer if kind == "head" else Rewarded)(
        model=model,
        args=args,
        train_dataset=Dataset.from_dict(
            {
                "chosen_ids": [p.chosen.ids for p in train],
                "rejected_ids": [p.rejected.ids for p in train],
                "prompt": [p.chosen.prompt for p in train],
                "length": [p.length for p in train],
            }
        ),
        data_collator=None if kind == "head" else collate,
        processing_class=chat.tokenizer,
    )


def check_saved(
    trained: list[float], loaded: Any, kind: Kind, chat: Reader, examples: list[Example], batch_size: Batch = "auto"
) -> None:
    """StageError unless the reloaded model gives the trained one's scores, whatever it is padded with."""
    import torch

    # bf16 keeps 8 bits; merging rounds differently from adding two products
    tolerance = 2e-3 if next(loaded.parameters()).dtype == torch.float32 else 0.1
    for size in (batch_size, 1):
        other = score(loaded, kind, chat, examples, batch_size=size)
        worst = max(abs(a - b) / (1 + abs(a)) for a, b in zip(trained, other, strict=True))
        if not worst <= tolerance:  # NaN is not
            raise StageError(f"The saved reward model scores differently from the trained one (by {worst:.3g}).")


def _both(pairs: list[Pair]) -> list[Example]:
    """All chosen responses, then all rejected ones."""
    return [p.chosen for p in pairs] + [p.rejected for p in pairs]


def _accuracy(scores: list[float]) -> float:
    """Share of pairs whose chosen score (first half) is above its rejected score (second half); a tie is half."""
    n = len(scores) // 2
    pairs = zip(scores[:n], scores[n:], strict=True)
    return sum((a > b) + 0.5 * (a == b) for a, b in pairs) / max(1, n)


def _gain(held: list[Pair], scores: list[float], before: list[float]) -> dict[str, float | str]:
    """What training did to the accuracy on held-out pairs, with its 95 % interval, paired by prompt."""
    after, start = (_by_prompt(held, some) for some in (scores, before))
    d = paired_difference(after, start)
    return {"gain": d.value, "gain.low": d.low, "gain.high": d.high, "gain.verdict": d.verdict}


def _by_prompt(held: list[Pair], scores: list[float]) -> dict[str, float]:
    """The accuracy of scores on the pairs of each prompt."""
    found: dict[str, list[float]] = {}
    for i, p in enumerate(held):
        key = str(p.chosen.ids[: p.chosen.prompt])
        found.setdefault(key, []).append(_accuracy([scores[i], scores[len(held) + i]]))
    return {key: sum(values) / len(values) for key, values in found.items()}


def _tail(log: list[dict[str, float]], name: str) -> float:
    values = [entry[name] for entry in log[-max(1, len(log) // 10) :] if name in entry]
    return sum(values) / max(1, len(values))
