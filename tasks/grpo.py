"""Online RL: the policy draws, rewards say which responses were better than their group, and it learns from that.

Group relative policy optimisation (Shao et al., 2024) with the loss and the clipping of DAPO (Yu et al., 2025). It
takes the place that PPO has in the textbooks: a group's mean stands for the value model (docs/online_rl.md).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from align import tables
from align.config import Metrics
from align.data.prompts import prompts_of
from align.errors import InputError, StageError
from align.grading.grade import item_of
from align.grading.graders import AnyGrader, NoGrader, grade_all
from align.models import online, trainable, training
from align.models.arguments import Training, arguments
from align.models.base import BaseConfig, compute_dtype, load_chat
from align.models.engine import Sampling
from align.models.generate import Sampler
from align.models.reward_model import Scorer
from align.models.rollouts import Rollout, Rollouts, Row, undecided
from align.models.shards import of_first
from align.models.trained import save_trained
from align.text import taken


class GrpoConfig(Training):
    """Settings of grpo."""

    TRL: ClassVar[str] = "GRPOConfig"

    grader: AnyGrader = NoGrader()
    """What rewards a response: its score from 0 to 1."""
    grader_weight: float = Field(default=1.0, ge=0)
    """Weight of the grader's score in the reward; of a grader."""
    reward_weight: float = Field(default=0.0, ge=0)
    """Weight of the reward model's score in the reward; 0 leaves the reward model out."""
    split: Literal["sft", "preference", "rejection"] = "preference"
    """The prompts to answer: those of this split."""
    use: tuple[str, ...] = ("instructions", "prompts")
    """The kinds of rows whose prompts are answered."""
    skip_decided: bool = True
    """Leave out prompts whose earlier samples, in sample, the grader found all equally good."""
    reserve: float = Field(default=1.0, ge=0, le=100)
    """Prompts that a step may try in place of those whose responses turn out all equally good, as a share of those
    that it trains on (active sampling)."""

    learning_rate: float = Field(default=1e-5, gt=0)
    """Peak learning rate; full fine-tunes of 7B models were published with 5e-7 to 1e-6."""
    gradient_accumulation_steps: int = Field(default=4, ge=1, le=1_000_000)
    """Forward passes per optimiser step; with per_device_train_batch_size the responses that a step learns from."""
    max_steps: int | None = Field(default=None, ge=1)
    """Optimiser steps; unset, as many as num_train_epochs passes over the prompts take."""
    num_generations: int = Field(default=8, ge=2, le=1024)
    """Responses to a prompt: the group whose mean a response is compared with."""
    max_completion_length: int = Field(default=256, ge=1)
    """Longest response in tokens."""
    temperature: float = Field(default=1.0, gt=0)
    """Softmax temperature of the responses."""
    beta: float = Field(default=0.0, ge=0)
    """Weight of the divergence from the policy that training starts from; 0 needs no reference."""
    epsilon: float = Field(default=0.2, gt=0, lt=1)
    """How far below 1 the ratio of new to old probability may fall before it is clipped."""
    epsilon_high: float = Field(default=0.28, gt=0)
    """How far above 1 it may rise."""
    loss_type: Literal["dapo", "grpo", "dr_grpo", "bnpo", "cispo"] = "dapo"
    """How the losses of tokens are summed: dapo over all tokens of a step; grpo first over each response."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """What advantages are divided by: the rewards' deviation in the group or in the step, or nothing."""
    mask_truncated_completions: bool = False
    """Learn nothing from responses that the token limit cut off, instead of that they were wrong."""

    @property
    def prompts(self) -> int:
        """Prompts of a step."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps // self.num_generations

    def contradictions(self) -> Iterator[str]:
        rows = self.per_device_train_batch_size * self.gradient_accumulation_steps
        if rows % self.num_generations:
            yield (
                f"num_generations: {self.num_generations} responses to a prompt do not divide the {rows} of a step; "
                "let per_device_train_batch_size * gradient_accumulation_steps be a multiple."
            )
        if self.grader.kind == "none" and self.changed("grader_weight"):
            yield "grader_weight: is of a grader, and there is none; name one, or leave it out."
        if self.max_steps is not None and self.changed("num_train_epochs"):
            yield "num_train_epochs: has no effect where max_steps says how many steps there are; leave one out."
        if self.max_completion_length >= self.max_length:
            yield (
                f"max_completion_length: {self.max_completion_length} tokens leave no room for a prompt in max_length, "
                f"{self.max_length}; lower it, or raise max_length."
            )

    @property
    def rewarded(self) -> bool:
        """Whether there is anything that rewards."""
        return self.reward_weight > 0 or (self.grader.kind != "none" and self.grader_weight > 0)

    @property
    def sampling(self) -> Sampling:
        """How responses are drawn."""
        return Sampling(n=self.num_generations, temperature=self.temperature, seed=self.seed,
                        max_new_tokens=self.max_completion_length)  # fmt: skip

    def own(self) -> dict[str, Any]:
        names = ("num_generations", "max_completion_length", "temperature", "beta", "epsilon", "epsilon_high",
                 "loss_type", "scale_rewards", "mask_truncated_completions")  # fmt: skip
        return {name: getattr(self, name) for name in names} | {
            "num_train_epochs": 1, "shuffle_dataset": False, "disable_dropout": True, "log_completions": False,
        }  # fmt: skip


def grpo(
    config: GrpoConfig,
    out: Path,
    *,
    base: BaseConfig,
    rows: Path,
    adapter: Path,
    samples: Path | None = None,
    scores: Path | None = None,
    scorer: BaseConfig | None = None,
    reward: Path | None = None,
    checkpoints: Path | None = None,
) -> Metrics:
    """Train the policy of the artifact `adapter` on its own responses to prompts of `rows` (ROWS).

    `samples` (SAMPLES) with `scores` (SCORES) tell which prompts are decided. `reward` is a reward artifact on the base
    `scorer`. Writes adapter/ (or model/), training_log.parquet, rollouts.parquet (ROLLOUTS) and dropped.parquet. Raises
    StageError where nothing rewards, where there are fewer prompts than a step takes, and where what draws is not what
    is trained.
    """
    config.check()
    if not config.rewarded:
        raise InputError("grpo has nothing that rewards; set grpo.grader or grpo.reward_weight.")
    chat = load_chat(base)
    chat.check()
    asked, counts = _prompts(config, chat, rows, samples, scores, out)
    sampler = Sampler(base, adapter)
    folder = of_first((checkpoints or out) / "rollouts")
    worth = Worth(config, scorer or base, reward)
    rollouts = Rollouts(sampler, asked, config.sampling, worth, prompts=config.prompts, reserve=config.reserve,
                        folder=folder)  # fmt: skip
    steps = config.max_steps or max(1, math.floor(config.num_train_epochs * rollouts.steps_per_epoch))
    once = config.model_copy(update={"num_train_epochs": 1.0})
    with arguments(once, base, steps * config.prompts * config.num_generations) as args:
        model = trainable.start(config, base, adapter)
        start = trainable.weights(model)
        import torch

        exact = compute_dtype(base) == torch.float32
        trainer = online.trainer_of(model, args, rollouts, chat, steps=steps, exact=exact)
        trainable.restore(model, start)
        trainer.start = {name: value.clone() for name, value in start.items()}
        log = training.run(trainer, "grpo", out, config, checkpoints)
    drawn = rollouts.collect(steps, out)
    save_trained(model, chat, base, out)
    return {**counts, **training.facts(log), **_facts(drawn, log)}


def _prompts(
    config: GrpoConfig, chat: Any, rows: Path, samples: Path | None, scores: Path | None, out: Path
) -> tuple[list[Row], Metrics]:
    """The prompts to answer, and how many there are; those that are too long go to dropped.parquet."""
    every = prompts_of(rows, config.split, config.use)
    every = [every[at] for at in taken([r["row_id"] for r in every], config.limit, config.seed)]
    if not every:
        raise StageError(f"There are 0 prompts in the split {config.split}.")
    lost = [(r["row_id"], why, None) for r in every if (why := chat.lost(r["messages"]))]
    whole = [r for r in every if r["row_id"] not in {row_id for row_id, *_ in lost}]
    lengths = [len(ids) + config.max_completion_length for ids in chat.prompts([r["messages"] for r in whole])]
    fits = training.within_length(
        [r["row_id"] for r in whole], lengths, config, "prompts with their responses", out, faulty=lost
    )
    asked = [whole[i] for i in fits]
    left = asked
    if config.skip_decided and config.grader.kind != "none" and samples and scores:
        left = undecided(asked, tables.read(samples), tables.read(scores), config.grader.name)
    return left, {
        "prompts": len(left),
        "prompts.read": len(every),
        "prompts.faulty": len(lost),
        "prompts.too_long": len(whole) - len(asked),
        "prompts.decided": len(asked) - len(left),
    }


class Worth:
    """The reward of responses: a weighted sum of a grader's score and a reward model's."""

    def __init__(self, config: GrpoConfig, scorer: BaseConfig, reward: Path | None):
        self.config = config
        self.scorer: Scorer | None = None
        if config.reward_weight:
            if reward is None:
                raise InputError("grpo.reward_weight is set, which needs the artifact of a reward model.")
            self.scorer = Scorer(scorer, reward)

    def __call__(self, rows: Sequence[Row], drawn: Sequence[Rollout]) -> list[Rollout]:
        """The responses with their rewards; see rollouts.Reward."""
        c, parts = self.config, [[0.0] * len(drawn)]
        grades: list[float | None] = [None] * len(drawn)
        if c.grader.kind != "none" and c.grader_weight:
            found = grade_all(c.grader, [item_of(row, r.text) for row, r in zip(rows, drawn, strict=True)])
            grades = [g.score for g in found]
            parts.append([math.nan if g is None else c.grader_weight * g for g in grades])
        scored: list[float | None] = [None] * len(drawn)
        if self.scorer is not None:
            scored = self.scorer([row["messages"] for row in rows], [r.text for r in drawn])
            parts.append([math.nan if s is None else c.reward_weight * s for s in scored])
        totals = [sum(values) for values in zip(*parts, strict=True)]
        return [
            replace(r, grade=g, score=s, reward=None if math.isnan(t) else t)
            for r, g, s, t in zip(drawn, grades, scored, totals, strict=True)
        ]


def _facts(drawn: Sequence[Row], log: Sequence[dict[str, float]]) -> dict[str, float]:
    """How rewards moved, in the first and the last tenth of the steps, and how much of the drawing was in vain."""
    steps = max(r["step"] for r in drawn)
    tenth = max(1, steps // 10)
    known = [r for r in drawn if r["reward"] is not None]
    ends = {"first": [r for r in known if r["step"] <= tenth], "final": [r for r in known if r["step"] > steps - tenth]}
    kl = [entry["kl_start"] for entry in log if "kl_start" in entry]
    return {
        "rollouts": len(drawn),
        "rollouts.trained": sum(r["trained"] for r in drawn),
        "rollouts.ungraded": len(drawn) - len(known),
        "groups.dead": sum(e["groups.dead"] for e in log if "groups.dead" in e) / max(1, len(log)),
        **{f"reward.{end}": sum(r["reward"] for r in of) / len(of) for end, of in ends.items() if of},
        **({"kl_start.final": kl[-1]} if kl else {}),
    }
