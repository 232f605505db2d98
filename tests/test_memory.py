"""The memory estimate: exact parameter counts, the right direction for every knob, and what fits on a GPU."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from served import TINY
from test_cli import align

from align.errors import InputError
from align.models import memory
from align.models.arguments import LoraSettings
from align.models.base import BaseConfig, load_model
from align.models.memory import Architecture, Memory, Need, Parts, estimates
from align.models.memory_parameters import nf4_bytes
from flows import needs
from flows.cli import main
from flows.recipe import Recipe, load
from tasks.dpo import DpoConfig
from tasks.reward import RewardConfig
from tasks.sample import SampleConfig
from tasks.select import SelectConfig
from tasks.sft import SftConfig

RECIPES = Path(__file__).parents[1] / "recipes"
GIB = 1 << 30


def llama(**sizes: Any) -> dict[str, Any]:
    return {
        "model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32,
        "max_position_embeddings": 8192, "tie_word_embeddings": False, **sizes,
    }  # fmt: skip


LLAMA_8B = llama(intermediate_size=14336, num_key_value_heads=8, vocab_size=128256)
LLAMA_7B = llama(intermediate_size=11008, num_key_value_heads=32, vocab_size=32000)

QWEN: dict[str, Any] = {"model_type": "qwen2", "num_hidden_layers": 28, "max_position_embeddings": 131072}
PUBLISHED = {  # config.json of the bases that the recipes name
    "Qwen/Qwen2.5-1.5B": QWEN | {
        "hidden_size": 1536, "intermediate_size": 8960, "num_attention_heads": 12, "num_key_value_heads": 2,
        "vocab_size": 151936, "tie_word_embeddings": True,
    },
    "Qwen/Qwen2.5-7B": QWEN | {
        "hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4,
        "vocab_size": 152064, "tie_word_embeddings": False,
    },
}  # fmt: skip


@cache  # what is found out about an architecture is kept with it
def architecture(facts: str, nf4: bool) -> Architecture:
    return Architecture(json.loads(facts), nf4)


def estimate(facts: dict[str, Any], load_: Any, config: Any, *, nf4: bool = True, rows: int | None = None) -> Parts:
    need = Memory(architecture(json.dumps(facts), nf4), Need(load_, config))
    return need.parts({"batch_size": rows} if rows else need.settings)


def test_the_trained_count_is_the_one_that_peft_prints_for_llama_7b() -> None:
    lora = LoraSettings(r=8, target_modules=("q_proj", "v_proj"))
    model = Architecture(LLAMA_7B).adapted(lora)
    assert model.get_nb_trainable_parameters()[0] == 4_194_304
    assert estimate(LLAMA_7B, "sft", SftConfig(lora=lora, max_length=64))["adapter"] == 4 * 4_194_304


def test_weights_are_those_of_the_model(base: BaseConfig) -> None:
    assert base.path
    facts = json.loads((base.path / "config.json").read_text())
    model = load_model(base.model_copy(update={"quantization": "none"}))
    assert estimate(facts, "sample", SampleConfig(), rows=8)["weights"] == 2 * sum(
        p.numel() for p in model.parameters()
    )


def test_an_8b_qlora_is_what_people_measure() -> None:
    config = SftConfig(per_device_train_batch_size=4, max_length=2048, lora=LoraSettings(r=16))
    parts = estimate(LLAMA_8B, "sft", config)
    assert 5.2 * GIB < parts["weights"] < 5.8 * GIB  # 8.03 B parameters, of which 1.05 B stay in bf16
    assert parts["adapter"] == 4 * 41_943_040  # LoRA r 16 on all linear layers of Llama 3 8B
    assert 8 * GIB < parts["total"] < 20 * GIB
    assert parts["total"] == sum(v for k, v in parts.items() if k != "total")
    assert nf4_bytes(1 << 24) / (1 << 24) == pytest.approx(0.5 + 1 / 64 + 4 / (64 * 256), rel=1e-3)


@pytest.mark.parametrize(
    ("less", "more", "part"),
    [
        ({"per_device_train_batch_size": 1}, {"per_device_train_batch_size": 8}, "activations"),
        ({"max_length": 512}, {"max_length": 4096}, "activations"),
        ({"gradient_checkpointing": True}, {"gradient_checkpointing": False}, "activations"),
        ({"lora": LoraSettings()}, {"lora": LoraSettings(lora_dropout=0.1)}, "activations"),
        ({"optim": "auto"}, {"optim": "adamw_torch"}, "optimiser"),
        ({"lora": LoraSettings(r=8)}, {"lora": LoraSettings(r=64)}, "adapter"),
    ],
)
def test_every_knob_points_the_right_way(less: dict[str, Any], more: dict[str, Any], part: str) -> None:
    a, b = (estimate(LLAMA_8B, "sft", SftConfig(**settings)) for settings in (less, more))
    assert a[part] < b[part] and a["total"] < b["total"]


def test_stages_differ_as_they_should() -> None:
    same: dict[str, Any] = {"per_device_train_batch_size": 4, "max_length": 1024}
    sft = estimate(LLAMA_8B, "sft", SftConfig(**same))
    dpo = estimate(LLAMA_8B, "dpo", DpoConfig(**same))
    reward = estimate(LLAMA_8B, "reward", RewardConfig(**same))
    assert dpo["activations"] > 1.5 * sft["activations"] and dpo["adapter"] == sft["adapter"]
    assert "logits" not in reward and "logits" in estimate(LLAMA_8B, "reward", RewardConfig(kind="likelihood", **same))
    few, many = (estimate(LLAMA_8B, "sample", SampleConfig(batch_size=b)) for b in (8, 256))
    assert many["kv_cache"] == 32 * few["kv_cache"] == 256 * (512 + 256) * 131_072 * 33 // 32  # and a layer that forks
    assert estimate(LLAMA_8B, "sft", SftConfig(**same), nf4=False)["weights"] > 2.5 * sft["weights"]
    assert "kv_cache" not in estimate(LLAMA_8B, "score", SelectConfig(batch_size=8))


@cache
def of_recipe(name: str, gpu: int | None, *overrides: str) -> tuple[Recipe, dict[str, memory.Estimate]]:
    recipe = load(name, list(overrides))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "_config", lambda base: PUBLISHED[base.hub])
        return recipe, estimates(recipe.base, needs.needs(recipe), gpu)


@pytest.mark.parametrize("name", sorted(p.stem for p in RECIPES.glob("*.yaml") if "hub:" in p.read_text()))
def test_a_recipe_says_what_it_needs(name: str) -> None:
    header = re.search(
        r"^# One GPU with (\d+) GB: at most ([\d.]+) GB, in (\w+)", (RECIPES / f"{name}.yaml").read_text(), re.M
    )
    assert header, "the header names a GPU and the stage that needs most"
    _, least = of_recipe(name, None)
    worst = max(least, key=lambda stage: least[stage].parts["total"])
    assert (header[3], header[2]) == (worst, f"{least[worst].parts['total'] / 1e9:.1f}")
    _, fitted = of_recipe(name, int(header[1]) * 10**9)
    assert all(e.fits for e in fitted.values()), {n: e.parts["total"] for n, e in fitted.items() if not e.fits}


def test_processes_share_a_step_and_with_fsdp_the_weights() -> None:
    config = SftConfig(per_device_train_batch_size=8, gradient_accumulation_steps=1, max_length=512)

    def parts(nf4: bool = False, full: bool = False, **how: Any) -> Parts:
        model = Architecture(LLAMA_8B, nf4, full=full)
        need = Memory(model, Need("sft", config, **how))
        return need.parts(need.settings)

    one, eight = parts(), parts(processes=8)
    assert eight["weights"] == one["weights"] and eight["activations"] < one["activations"] / 7
    split, away = parts(processes=8, split=True), parts(processes=8, split=True, offload=True)
    assert split["weights"] == one["weights"] // 8 and split["adapter"] == one["adapter"] and away["weights"] == 0
    layer = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336 + 2 * 4096
    assert split["gathered"] == 2 * (2 * layer + 128256 * 4096)
    all_of_it, shared = parts(full=True), parts(full=True, processes=8, split=True)
    for part in ("weights", "gradients", "optimiser"):
        assert shared[part] == all_of_it[part] // 8


def test_what_does_not_fit_gets_a_batch_that_does() -> None:
    recipe, found = of_recipe("qlora-7b", 18 * 10**9)
    sft = found["sft"]
    assert sft.fits is False and sft.settings == {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 8}
    assert sft.fitting
    micro, times = sft.fitting.values()
    assert micro * times == 32 and micro < 4
    _, smaller = of_recipe("qlora-7b", 18 * 10**9, *(f"sft.{key}={value}" for key, value in sft.fitting.items()))
    assert smaller["sft"].fits
    assert f"sft.per_device_train_batch_size to {micro}" in needs.advice(recipe, "sft", sft)
    drawn = found["resample"]
    assert drawn.fits and drawn.settings["batch_size"] % 8 == 0 and drawn.parts["total"] <= 18 * 10**9
    _, none = of_recipe("qlora-7b", 4 * 10**9)
    assert all(e.fits is False and e.fitting is None for e in none.values())
    assert "max_length" in needs.advice(recipe, "dpo", none["dpo"])
    assert "smaller base" in needs.advice(recipe, "select", none["select"])


def test_a_run_warns_of_the_stages_that_will_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_config", lambda base: PUBLISHED[base.hub])
    recipe = load("korean-1.5b")
    assert needs.warnings(recipe, ["sft", "dpo", "report"], 24 * 10**9) == []
    found = needs.warnings(recipe, ["sft", "ingest", "answer_sft"], 6 * 10**9)
    assert [line.split()[0] for line in found] == ["sft"] and "sft.gradient_accumulation_steps to" in found[0]


def test_the_warning_is_said_where_people_look(
    base: BaseConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from flows import execute

    recipe = load(overrides=[f"base.path={base.path}"])
    for size in (None, 8 << 30, 100 << 20):
        monkeypatch.setattr(execute, "gpu_bytes", lambda size=size: size)
        execute._warn(execute.Threads(), recipe, ["sft", "report"])
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and said[0].startswith("align: sft needs about 0.7 GB of 0.1 GB: not even")


def test_stages_that_continue_an_adapter_have_its_shape() -> None:
    _, found = of_recipe("korean-1.5b", None)
    adapters = {found[stage].parts["adapter"] for stage in ("sft", "sft_rs", "dpo")}
    assert len(adapters) == 1 and adapters.pop() > 2.5e8  # r 64
    recipe = load("korean-1.5b", ["reward.init_from_sft=false"])
    assert needs.needs(recipe)["reward"].config.lora is None


def test_a_whole_recipe_and_the_verb(
    base: BaseConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = align("memory", "--set", f"base.path={base.path}", "--gpu", "1GiB", "--json")
    found = json.loads(done.stdout)
    assert list(found) == [
        "sft", "sample", "reward", "resample", "select", "sft_rs", "sample_dpo", "reference", "dpo", "answer",
    ]  # fmt: skip
    assert all(parts["total"] > 600 << 20 and parts["fits"] for parts in found.values())
    assert "reference" not in found["dpo"] and found["sample"]["batch_size"] == 256
    main(["memory", str(TINY), "--set", f"base.path={base.path}", "--gpu", "256MiB"])
    small = capsys.readouterr().out
    assert "fits in 0.3" in small and "sft does not fit: not even a micro-batch of 1 fits" in small
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    absent = align("memory", "qlora-7b")
    assert absent.returncode == 2 and "config.json of Qwen/Qwen2.5-7B" in absent.stderr
    refused = align("memory", "--gpu", "much")
    assert refused.returncode == 2 and "24GiB" in refused.stderr


def test_sizes_as_people_write_them() -> None:
    assert [needs.given_bytes(t) for t in ("24GiB", "80 GB", "512mib", "7")] == [24 << 30, 80 * 10**9, 512 << 20, 7]
    for wrong in ("", "GB", "0GB", "3 apples", "-4GB"):
        with pytest.raises(InputError, match="no size"):
            needs.given_bytes(wrong)


def test_pairs_load_a_model_where_the_reward_model_scores_them() -> None:
    asked = ["pairs_dpo.reward=true", "pairs_dpo.grader={kind: none}"]
    found = [needs.needs(load("quickstart", given)) for given in ([], asked)]
    assert found[1].keys() - found[0].keys() == {"pairs_dpo"}
    estimate = estimates(load("quickstart").base, {"pairs_dpo": found[1]["pairs_dpo"]}, 24 << 30)
    assert estimate["pairs_dpo"].parts["total"] > 0
