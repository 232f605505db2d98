"""Hybrids with a recurrent state and mixtures under NF4 are refused before the first step, from config.json and loaded."""

import json
import math
from pathlib import Path
from typing import Any

import architectures
import pytest
import tiny

from align.errors import InputError
from align.models.base import BaseConfig, load_model
from align.models.kinds import RECURRENT, refusals, stateful
from flows.check import problems
from flows.recipe import load
from tasks.sample import SampleConfig, sample
from tasks.sft import SftConfig, sft

HYBRIDS: dict[str, dict[str, Any]] = {
    "qwen3_next": {"num_experts": 0, "layer_types": ["linear_attention", "full_attention", "full_attention"]},
    "qwen3_5_text": {"layer_types": ["linear_attention", "full_attention", "full_attention"]},
    "lfm2": {"layer_types": ["conv", "full_attention", "full_attention"], "block_auto_adjust_ff_dim": False},
    "mamba2": {"num_heads": 8, "head_dim": 16, "expand": 2, "state_size": 16, "n_groups": 1},
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 16},
}
MIXTURES: dict[str, dict[str, Any]] = {
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 160, "decoder_sparse_step": 1},
    "mixtral": {"num_local_experts": 4},
}


def preflight(base: BaseConfig) -> list[str]:
    """What is found before anything runs."""
    recipe = load(overrides=[f"base.path={base.path}", f"base.quantization={base.quantization}"])
    return [p for p in problems(recipe) if p.startswith("base.path")]


@pytest.mark.parametrize("model_type", HYBRIDS)
def test_a_hybrid_is_refused_before_anything_runs_and_by_the_stage(
    model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = architectures.random_base(tmp_path / "base", model_type, **HYBRIDS[model_type])
    assert any("recurrent state" in p and "attention only" in p for p in preflight(base)), preflight(base)
    rows, config = tiny.kept(tmp_path / "kept.parquet", 8), SftConfig(max_length=128)
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="recurrent state"):
        sft(config, tmp_path / "out", base=base, rows=rows)
    monkeypatch.setattr(
        "align.models.base.refusals", lambda *given: []
    )  # what config.json may not tell, the model does
    plain = base.model_copy(update={"quantization": "none"})
    with pytest.raises(InputError, match="cannot be forked"):
        sft(config, tmp_path / "out", base=plain, rows=rows)


@pytest.mark.parametrize("model_type", MIXTURES)
def test_a_mixture_is_refused_under_nf4(model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = architectures.random_base(tmp_path / "base", model_type, **MIXTURES[model_type])
    assert any("experts" in p and "quantization to none" in p for p in preflight(base)), preflight(base)
    with pytest.raises(InputError, match="do not reach the experts"):
        load_model(base)
    monkeypatch.setattr("align.models.base.refusals", lambda *given: [])
    with pytest.raises(InputError, match=r"only \d+% of the weights .* are quantised .*experts"):
        load_model(base)


def test_a_mixture_works_unquantised(tmp_path: Path) -> None:
    base = architectures.random_base(tmp_path / "base", "qwen3_moe", "none", **MIXTURES["qwen3_moe"])
    assert preflight(base) == []
    rows = tiny.kept(tmp_path / "kept.parquet", 16)
    for name in ("sft", "samples"):
        (tmp_path / name).mkdir()
    trained = sft(SftConfig(max_length=128, learning_rate=1e-3), tmp_path / "sft", base=base, rows=rows)
    assert math.isfinite(float(trained["loss.final"]))
    from align import tables

    table = [tiny.row(i, split="preference") for i in range(4)]
    tables.write(tmp_path / "rows.parquet", table, tables.ROWS)
    drawn = sample(
        SampleConfig(n=2, max_new_tokens=8), tmp_path / "samples", base=base, rows=tmp_path / "rows.parquet",
        adapter=tmp_path / "sft",
    )  # fmt: skip
    assert drawn["samples"] == 8


@pytest.mark.parametrize("model_type", architectures.DENSE)
def test_dense_models_with_attention_are_not_refused(model_type: str, tmp_path: Path) -> None:
    base = architectures.random_base(tmp_path / "base", model_type)
    assert preflight(base) == []
    load_model(base)


def test_every_causal_model_of_transformers_is_told_apart() -> None:
    import transformers
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    wrong, dense, recurrent = [], 0, 0
    for model_type, name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items():
        try:
            config = AutoConfig.for_model(model_type)
        except Exception:
            continue  # a config that has no defaults
        facts = json.loads(config.to_json_string()) | {"model_type": model_type}
        refused = any("recurrent" in why for why in refusals(facts, "none"))
        if getattr(getattr(transformers, name), "_is_stateful", False):
            recurrent += 1
            wrong += [] if refused else [model_type]
        dense += not list(refusals(facts, "nf4"))
    assert wrong == [] and recurrent >= 20 and dense >= 60


def test_a_cached_hub_model_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--someone--hybrid"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "snapshots" / "abc" / "config.json").write_text('{"model_type": "mamba2"}')
    from flows.check_base import problems as of_base

    found = list(of_base(BaseConfig(hub="someone/hybrid", revision="main")))
    assert any("model_type is mamba2" in p for p in found)
    assert not any("mamba2" in p for p in of_base(BaseConfig(hub="someone/hybrid", revision="other")))


def test_the_list_names_models(base: BaseConfig) -> None:
    assert "llama" not in RECURRENT and stateful(load_model(base)) is None
