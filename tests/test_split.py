"""The strategy fsdp: each of two processes holds a part of every weight, and what comes of it is what one makes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_ranks import NO_DROPOUT, STAGES, Call, losses
from test_resume import train

from align.models import shards, training
from align.models.base import BaseConfig
from flows.ranks import Compute, spread

FSDP = Compute(processes=2, strategy="fsdp")


@pytest.fixture(scope="module", params=["lora", "none"])
def start(request: Any, base: BaseConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[BaseConfig, Path]:
    """The tiny base, not quantised, with an adapter or all its weights trained, and what SFT made of it."""
    whole = base.model_copy(update={"quantization": "none", "adapter": request.param})
    out = tmp_path_factory.mktemp(f"sft-{request.param}") / "out"
    train("sft", out, whole, Path(), None, **NO_DROPOUT)
    return whole, out


def splitting(config: Call, out: Path, base: BaseConfig, adapter: Path) -> Any:
    """A training stage that says how much of the weights this process held."""
    seen: list[tuple[int, int]] = []
    begin = training.run

    def run(trainer: Any, *args: Any) -> Any:
        assert shards.is_split(trainer.model)
        shards.reshard(trainer.model)
        base = [p for n, p in trainer.model.named_parameters() if "lora" not in n]
        seen.append((sum(shards.local(p).numel() for p in base), sum(p.numel() for p in base)))
        return begin(trainer, *args)

    training.run = run
    out.rmdir()
    return {**train(config.label, out, base, adapter, None, **NO_DROPOUT), "held": seen[0][0], "all": seen[0][1]}


def weights(out: Path) -> dict[str, torch.Tensor]:
    return {name: t for file in out.rglob("*.safetensors") for name, t in load_file(file).items()}


@pytest.mark.parametrize("label", STAGES)
def test_two_processes_that_share_the_weights_follow_the_curve_of_one(
    label: str, start: tuple[BaseConfig, Path], tmp_path: Path
) -> None:
    base, adapter = start
    one, two = tmp_path / "one" / "out", tmp_path / "two" / "out"
    alone = train(label, one, base, adapter, None, **NO_DROPOUT)
    two.mkdir(parents=True)
    both = spread(splitting, Call(label=label), two, {"base": base, "adapter": adapter}, 2, FSDP)
    worst = max(abs(a - b) / a for a, b in zip(losses(one), losses(two), strict=True))
    print(
        f"{label}: losses differ by {worst:.1e} at most, {losses(one)[0]:.4f} to {losses(one)[-1]:.4f}; of "
        f"{both['all']} weights a process held {both['held']}"
    )
    assert worst < 2e-3 and both["steps"] == alone["steps"]
    assert both["held"] < 0.6 * both["all"]
    assert sorted(p.name for p in one.rglob("*")) == sorted(p.name for p in two.rglob("*"))
    ours, theirs = weights(one), weights(two)
    assert ours.keys() == theirs.keys()
    assert all(ours[name].shape == theirs[name].shape for name in ours)
