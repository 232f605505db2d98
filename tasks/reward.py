"""A Bradley-Terry reward model: which of two responses is better, learned from the pairs alone.

The base with a LoRA adapter and a linear head that reads the end-of-turn token (Ouyang et al., 2022).
"""

from pathlib import Path
from typing import Any

from pydantic import Field

from tasks.lib import rows as tables
from tasks.lib import training
from tasks.lib.errors import StageError
from tasks.lib.models import BaseConfig, load_chat, load_model, save_adapter
from tasks.lib.pairs import Pair, encode
from tasks.lib.reward_model import HEAD, load_reward, score
from tasks.lib.training import Training


class RewardConfig(Training):
    """Settings of reward."""

    lr: float = Field(default=1e-4, gt=0)
    """Peak learning rate."""
    init_from_sft: bool = True
    """Start from a copy of the SFT adapter instead of a fresh one."""
    centering: float = Field(default=0.01, ge=0)
    """Weight of the squared sum of both rewards, which keeps scores around 0 (Eisenstein et al., 2023)."""


def reward(
    config: RewardConfig, out: Path, *, base: BaseConfig, pairs: Path, adapter: Path | None = None
) -> dict[str, float | int | str]:
    """Train on the pairs (PAIRS) that are not held out, then measure on those that are.

    Writes adapter/ (LoRA and score head), training_log.parquet, held_out.parquet and dropped.parquet. The held-out
    scores come from the reloaded artifact. Raises StageError where a check fails.
    """
    chat = load_chat(base)
    chat.check()
    every, counts = encode(chat, tables.read(pairs), config, out)
    train, held = [p for p in every if not p.held_out], [p for p in every if p.held_out]

    import torch
    from datasets import Dataset

    data = Dataset.from_dict(
        {
            "chosen_ids": [p.chosen for p in train],
            "rejected_ids": [p.rejected for p in train],
            "length": [p.length for p in train],
        }
    )
    with training.arguments(config, len(train)) as args:
        from trl import RewardConfig as Arguments
        from trl import RewardTrainer

        torch.manual_seed(config.seed)  # the head starts at random
        model = load_model(base, head="reward")
        model = training.adapt(model, config, base, adapter if config.init_from_sft else None, head=HEAD)
        start = training.trainable(model)
        if not any(f".{HEAD}." in name for name in start):
            raise StageError("The score head would not be trained.")
        trainer = RewardTrainer(
            model=model,
            args=Arguments(**args, center_rewards_coefficient=config.centering or None),
            train_dataset=data,
            processing_class=chat.tokenizer,
        )
        training.restore(model, start)
        log = training.run(trainer, "reward", out)
    save_adapter(model, chat, base, out)

    scorer = load_reward(base, out)
    probe = every[: min(8, len(every))]
    _check_saved(model.eval(), scorer, chat, [p.chosen for p in probe] + [p.rejected for p in probe])
    scores = score(scorer, chat, [p.chosen for p in held] + [p.rejected for p in held], label="held-out pairs")
    tables.write(
        out / "held_out.parquet",
        (
            {
                "pair_id": p.pair_id,
                "chosen_score": scores[i],
                "rejected_score": scores[len(held) + i],
                "chosen_tokens": len(p.chosen) - p.prompt,
                "rejected_tokens": len(p.rejected) - p.prompt,
            }
            for i, p in enumerate(held)
        ),
        tables.HELD_OUT,
    )
    return {
        "pairs": len(train),
        "pairs.held_out": len(held),
        **counts,
        **training.facts(log),
        "accuracy.train": _tail(log, "accuracy"),
        **_held_out(held, scores),
    }


def _held_out(held: list[Pair], scores: list[float]) -> dict[str, float | int]:
    """Accuracy on held-out pairs, and that of always preferring the longer (or shorter, if better) response."""
    if not held:
        return {}
    n = len(held)
    right = sum((scores[i] > scores[n + i]) + 0.5 * (scores[i] == scores[n + i]) for i in range(n))
    longer = sum((len(p.chosen) > len(p.rejected)) + 0.5 * (len(p.chosen) == len(p.rejected)) for p in held)
    return {
        "accuracy.held_out": right / n,
        "accuracy.length_baseline": max(longer, n - longer) / n,
        "margin.held_out": sum(scores[i] - scores[n + i] for i in range(n)) / n,
    }


def _check_saved(trained: Any, loaded: Any, chat: Any, sequences: list[list[int]]) -> None:
    """StageError unless the reloaded model scores as the trained one did, whatever it is padded with."""
    import torch

    # bf16 keeps 8 bits; merging rounds differently from adding two products
    tolerance = 2e-3 if next(loaded.parameters()).dtype == torch.float32 else 0.1
    first = score(trained, chat, sequences, batch_size=len(sequences))
    for size in (len(sequences), 1):
        other = score(loaded, chat, sequences, batch_size=size)
        worst = max(abs(a - b) / (1 + abs(a)) for a, b in zip(first, other, strict=True))
        if worst > tolerance:
            raise StageError(f"The saved reward model scores differently from the trained one (by {worst:.3g}).")


def _tail(log: list[dict[str, float]], name: str) -> float:
    values = [entry[name] for entry in log[-max(1, len(log) // 10) :] if name in entry]
    return sum(values) / max(1, len(values))
