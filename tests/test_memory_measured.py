"""The estimate against what torch holds while real stages train: weights, adapter, gradients, optimiser, activations."""

import gc
import json
from pathlib import Path
from typing import Any

import architectures
import pytest
import tiny
import torch

from align.models import training
from align.models.base import BaseConfig
from align.models.memory import Memory, Need
from align.models.memory_activations import saving
from align.models.memory_parameters import Architecture, state_bytes
from tasks.dpo import DpoConfig, dpo
from tasks.reward import RewardConfig, reward
from tasks.sft import SftConfig, sft

SETTINGS: dict[str, Any] = {
    "learning_rate": 1e-4, "max_length": 128, "per_device_train_batch_size": 4, "optim": "adamw_torch",
    "gradient_checkpointing": False,
}  # fmt: skip


class Measured(Exception):
    """Ends a stage when its first step was made."""


def nbytes(tensors: Any) -> int:
    """Bytes of the distinct storages of tensors."""
    return sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}.values())


def constants(model: Any) -> list[torch.Tensor]:
    """The tensors beside the packed weights that NF4 layers are made of."""
    states = [m.weight.quant_state for m in model.modules() if hasattr(getattr(m, "weight", None), "quant_state")]
    nested = [(s.absmax, s.code, s.offset, s.state2.absmax, s.state2.code) for s in states]
    return [t for group in nested for t in group]


def pass_through(trainer: Any, inputs: Any) -> int:
    """Bytes that autograd holds at most in a forward and a backward pass."""
    with saving(trainer.model) as saved:
        with trainer.accelerator.autocast():  # as the forward pass of the loop is wrapped
            loss = trainer.compute_loss(trainer.model, inputs)
        loss.backward()
    del loss
    gc.collect()
    assert saved.live == 0
    return saved.peak


def step(trainer: Any) -> tuple[dict[str, int], int]:
    """Make the trainer's first step, and once more with checkpointing; bytes by part, and the tokens of its rows."""
    model = trainer.model.train()
    trained = [p for n, p in model.named_parameters() if p.requires_grad]
    reference = [p for n, p in model.named_parameters() if ".ref." in n]
    others = {id(p) for p in (*trained, *reference)}
    frozen = [p for p in model.parameters() if id(p) not in others]
    inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    held = pass_through(trainer, inputs)
    trainer.create_optimizer()
    trainer.optimizer.step()
    state = [t for values in trainer.optimizer.state.values() for t in values.values() if torch.is_tensor(t)]
    model.gradient_checkpointing_enable({"use_reentrant": True})  # tells torch what it keeps; the other keeps the same
    model.enable_input_require_grads()
    found = {
        "weights": nbytes([*frozen, *model.buffers(), *constants(model)]), "adapter": nbytes(trained),
        "reference": nbytes(reference), "gradients": nbytes([p.grad for p in trained]), "optimiser": nbytes(state),
        "activations": held, "checkpointed": pass_through(trainer, inputs),
    }  # fmt: skip
    return found, inputs["input_ids"].shape[1]


STAGES: dict[str, tuple[Any, Any]] = {
    "sft": (SftConfig, sft),
    "dpo": (DpoConfig, dpo),
    "reward": (RewardConfig, reward),
}


def measured(
    base: BaseConfig, folder: Path, stage: str, patch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> tuple[dict[str, int], Any]:
    """Run a stage up to its first step: what it took, and its config for rows of the length that it saw."""
    kind, function = STAGES[stage]
    seen: list[tuple[dict[str, int], int]] = []

    def one_step(trainer: Any, *given: Any) -> Any:
        seen.append(step(trainer))
        raise Measured

    config = kind(**SETTINGS | settings | ({"init_from_sft": False} if stage == "reward" else {}))
    (folder / stage).mkdir()
    inputs: dict[str, Any] = {"rows": tiny.kept(folder / "kept.parquet", 64)}
    if stage != "sft":
        inputs = {"pairs": tiny.pairs(folder / "pairs.parquet", 64)}
    if stage == "dpo":
        inputs["adapter"] = folder / "start"
        (folder / "start").mkdir()
        sft(
            SftConfig(**SETTINGS, limit=4, lora=settings["lora"]),
            folder / "start",
            base=base,
            rows=tiny.kept(folder / "few.parquet", 4),
        )
        inputs["reference"] = tiny.reference(base, inputs["pairs"], folder / "start")
    patch.setattr(training, "run", one_step)
    with pytest.raises(Measured):
        function(config, folder / stage, base=base, **inputs)
    return seen[0][0], config.model_copy(update={"max_length": seen[0][1]})


def compare(base: BaseConfig, stage: Any, config: Any, found: dict[str, int], dtype: str) -> None:
    assert base.path
    facts = json.loads((base.path / "config.json").read_text())
    model = Architecture(facts, base.quantization == "nf4", dtype, base.attention, base.adapter == "none")
    if model.full:
        found = found | {"weights": found["weights"] + found["adapter"], "adapter": 0}
    for checkpointing in (False, True):
        memory = Memory(model, Need(stage, config.model_copy(update={"gradient_checkpointing": checkpointing})))
        estimated = memory.parts(memory.settings)
        for part in ("weights", "adapter", "gradients", "optimiser"):
            assert estimated.get(part, 0) == pytest.approx(found[part], rel=0.01), part
        assert estimated.get("reference", 0) == pytest.approx(found["reference"], rel=0.01)
        held = found["checkpointed" if checkpointing else "activations"]
        assert estimated["activations"] == pytest.approx(held, rel=0.1), checkpointing
    assert found["checkpointed"] < 0.6 * found["activations"]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("model_type", ["llama", "qwen2", "mistral"])
def test_a_stage_takes_what_is_estimated(
    model_type: str, stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = architectures.random_base(tmp_path / "base", model_type)
    lora = {"r": 8, "lora_dropout": 0.1 if model_type == "mistral" else 0.0}
    found, config = measured(base, tmp_path, stage, monkeypatch, {"lora": lora})
    compare(base, stage, config, found, "float32")


FULL = {"adapter": "none", "quantization": "none"}
OTHERS: list[tuple[str, dict[str, Any]]] = [
    ("gemma2", {}), ("llama", {"quantization": "none"}), ("llama", {"dtype": "bfloat16"}),
    ("llama", {"attention": "eager"}), ("llama", FULL), ("llama", FULL | {"dtype": "bfloat16"}),
]  # fmt: skip


@pytest.mark.parametrize(("model_type", "settings"), OTHERS, ids=str)
def test_other_models_and_ways_to_load_are_estimated_too(
    model_type: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = architectures.random_base(tmp_path / "base", model_type).model_copy(update=settings)
    lora = {"r": 8, "lora_dropout": 0.1} if base.adapter == "lora" else None
    found, config = measured(base, tmp_path, "sft", monkeypatch, {"lora": lora})
    compare(base, "sft", config, found, settings.get("dtype", "float32"))


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused", "adamw_8bit", "lion_8bit", "sgd"])
def test_the_state_of_an_optimiser(optim: str) -> None:
    from transformers import Trainer, TrainingArguments

    module = torch.nn.Linear(300, 200)
    arguments = TrainingArguments(output_dir="unused", optim=optim, use_cpu=True)
    kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments)
    optimiser = kind(module.parameters(), **options)
    module(torch.randn(4, 300)).sum().backward()
    optimiser.step()
    tensors = [t for s in optimiser.state.values() for k, t in s.items() if torch.is_tensor(t) and "qmap" not in k]
    found = state_bytes(optim, [p.numel() for p in module.parameters()])
    assert found == pytest.approx(nbytes(tensors), rel=0.01, abs=16)
