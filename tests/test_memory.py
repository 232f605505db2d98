"""The memory estimate: exact parameter counts, and the right direction for every knob."""

import json
from typing import Any

import pytest

from align.models.arguments import LoraSettings
from align.models.base import BaseConfig, load_model
from align.models.memory import NF4, estimate, estimates
from flows.recipe import load
from flows.stages import STAGES
from tasks.dpo import DpoConfig
from tasks.reward import RewardConfig
from tasks.sample import SampleConfig
from tasks.sft import SftConfig

LLAMA_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
}
GIB = 1 << 30


def test_weights_are_those_of_the_model(base: BaseConfig) -> None:
    assert base.path
    facts = json.loads((base.path / "config.json").read_text())
    model = load_model(base.model_copy(update={"quantization": "none"}))
    parameters = sum(p.numel() for p in model.parameters())
    assert estimate(facts, "sample", SampleConfig())["weights"] == 2 * parameters
    linear = sum(p.numel() for n, p in model.named_parameters() if "_proj" in n)
    expected = 2 * (parameters - linear) + NF4 * linear
    assert estimate(facts, "sft", SftConfig())["weights"] == pytest.approx(expected, abs=1)


def test_an_8b_qlora_is_what_people_measure() -> None:
    parts = estimate(
        LLAMA_8B, "sft", SftConfig(per_device_train_batch_size=4, max_length=2048, lora=LoraSettings(r=16))
    )
    assert 5.2 * GIB < parts["weights"] < 5.8 * GIB  # 8.03 B parameters, of which 1.05 B stay in bf16
    assert parts["adapter"] == 4 * 41_943_040  # LoRA r 16 on all linear layers of Llama 3 8B
    assert 8 * GIB < parts["total"] < 20 * GIB
    assert parts["total"] == sum(v for k, v in parts.items() if k != "total")


@pytest.mark.parametrize(
    ("less", "more", "part"),
    [
        ({"per_device_train_batch_size": 1}, {"per_device_train_batch_size": 8}, "activations"),
        ({"max_length": 512}, {"max_length": 4096}, "activations"),
        ({"gradient_checkpointing": "on"}, {"gradient_checkpointing": "off"}, "activations"),
        ({"optim": "auto"}, {"optim": "adamw_torch"}, "optimiser"),
        ({"lora": LoraSettings(r=8)}, {"lora": LoraSettings(r=64)}, "adapter"),
    ],
)
def test_every_knob_points_the_right_way(less: dict[str, Any], more: dict[str, Any], part: str) -> None:
    a, b = (estimate(LLAMA_8B, "sft", SftConfig(**settings)) for settings in (less, more))
    assert a[part] < b[part] and a["total"] < b["total"]


def test_stages_differ_as_they_should() -> None:
    same = {"per_device_train_batch_size": 4, "max_length": 1024}
    sft = estimate(LLAMA_8B, "sft", SftConfig(**same))
    dpo = estimate(LLAMA_8B, "dpo", DpoConfig(**same))
    reward = estimate(LLAMA_8B, "reward", RewardConfig(**same))
    assert dpo["activations"] > 1.5 * sft["activations"] and dpo["adapter"] == sft["adapter"]
    assert "logits" not in reward
    few, many = (estimate(LLAMA_8B, "sample", SampleConfig(batch_size=b)) for b in (8, 256))
    assert many["kv_cache"] == 32 * few["kv_cache"] == 256 * (512 + 256) * 131_072
    assert estimate(LLAMA_8B, "sft", SftConfig(), nf4=False)["weights"] > 2.5 * sft["weights"]


def test_a_whole_recipe(base: BaseConfig) -> None:
    recipe = load(overrides=[f"base.path={base.path}"])
    wanted = {s.name: (s.load, s.config_of(recipe)) for s in STAGES if s.load and not s.control}
    found = estimates(recipe.base, wanted)
    assert list(found) == ["sft", "sample", "reward", "resample", "select", "sft_rs", "reference", "dpo", "answer"]
    assert all(parts["total"] > 600 << 20 for parts in found.values())
