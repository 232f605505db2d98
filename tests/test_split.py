"""The strategy fsdp: each of two processes holds a part of every weight, and what comes of it is what one makes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from grouped import Call
from safetensors.torch import load_file
from test_ranks import NO_DROPOUT, STAGES, losses
from test_resume import train

from align.models import shards, training
from align.models.base import BaseConfig
from flows.compute import Compute
from flows.ranks import spread


def trainings(config: Call, out: Path, base: BaseConfig, adapter: Path) -> Any:
    """Each training stage: its steps, and how many of the base's weights this process held, of how many."""
    found: dict[str, Any] = {}
    begin = training.run

    def run(trainer: Any, label: str, *args: Any) -> Any:
        assert shards.is_split(trainer.model)
        shards.reshard(trainer.model)
        base = [p for n, p in trainer.model.named_parameters() if "lora" not in n]
        found.setdefault(label, [sum(shards.local(p).numel() for p in base), sum(p.numel() for p in base)])
        return begin(trainer, label, *args)

    training.run = run  # type: ignore[assignment]
    for label in STAGES:
        kept = shards.of_first(out) / label / "checkpoints" if label == "sft" else None
        steps = train(label, out / label / "out", base, adapter, kept, **NO_DROPOUT)["steps"]
        found[label].append(steps)
        if kept:
            found["kept"] = [p.name for p in kept.glob("checkpoint-*")]
            train(label, out / "again" / "out", base, adapter, kept, **NO_DROPOUT)
    return found


@pytest.fixture(scope="module", params=["lora", "none"])
def both(
    request: Any, base: BaseConfig, tmp_path_factory: pytest.TempPathFactory
) -> tuple[BaseConfig, Path, Path, Any]:
    """The tiny base, not quantised; what SFT made of it, with an adapter or of all its weights; and of that all
    trainings in two processes."""
    whole = base.model_copy(update={"quantization": "none", "adapter": request.param})
    folder = tmp_path_factory.mktemp(f"split-{request.param}")
    start, out = folder / "sft" / "out", folder / "out"
    train("sft", start, whole, Path(), None, **NO_DROPOUT)
    out.mkdir()
    split = Compute(strategy="fsdp")
    return whole, start, out, spread(trainings, Call(), out, {"base": whole, "adapter": start}, 2, split)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return {name: t for file in (out / "out").rglob("*.safetensors") for name, t in load_file(file).items()}


@pytest.mark.parametrize("label", STAGES)
def test_two_processes_that_share_the_weights_follow_the_curve_of_one(
    label: str, both: tuple[BaseConfig, Path, Path, Any], tmp_path: Path
) -> None:
    base, start, folder, found = both
    held, every, steps = found[label]
    one, two = tmp_path / "one" / "out", folder / label / "out"
    alone = train(label, one, base, start, None, **NO_DROPOUT)
    worst = max(abs(a - b) / a for a, b in zip(losses(one), losses(two), strict=True))
    print(f"{label}: losses differ by {worst:.1e} at most, {losses(one)[0]:.4f} to {losses(one)[-1]:.4f}; a process "
          f"held {held} of {every} weights")  # fmt: skip
    assert worst < 1e-5 and steps == alone["steps"]
    assert held < 0.51 * every
    assert sorted(p.name for p in one.rglob("*")) == sorted(p.name for p in two.rglob("*"))
    ours, theirs = weights(one.parent), weights(two.parent)
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-3) for name in ours)


def test_it_goes_on_from_a_checkpoint_where_an_adapter_is_trained(both: tuple[BaseConfig, Path, Path, Any]) -> None:
    """That of the last step but one; where all weights are trained there is none."""
    base, _, folder, found = both
    assert found["kept"] == ([f"checkpoint-{found['sft'][2] - 1}"] if base.adapter == "lora" else [])
    once, again = weights(folder / "sft"), weights(folder / "again")
    assert all(torch.equal(once[name], again[name]) for name in once)
