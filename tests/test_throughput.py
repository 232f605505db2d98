"""Padding, tokens a second and model-FLOP utilisation: what is counted, and that timings stay out of artifacts."""

import random
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from align import tables
from align.models import trainable
from align.models.base import BaseConfig, load_chat, load_model
from align.models.flops import cost, peak
from align.models.throughput import Throughput
from tasks.dpo import DpoConfig, dpo
from tasks.reward import RewardConfig, reward
from tasks.sft import SftConfig, sft


def tokens(base: BaseConfig, rows: list[dict[str, Any]]) -> tuple[list[int], int]:
    """The length of each row, and how many tokens are trained."""
    found = load_chat(base).examples([r["messages"] for r in rows], [r["response"] for r in rows])
    return [len(e.ids) for e in found], sum(sum(e.mask) for e in found)


def test_every_training_stage_measures(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    rows, pairs = tiny.kept(tmp_path / "kept.parquet", 8), tiny.pairs(tmp_path / "pairs.parquet", 10)
    common: dict[str, Any] = {"max_length": 128, "per_device_train_batch_size": 4}
    frozen = tiny.reference(base, pairs, adapter)
    for name in ("sft", "dpo", "head", "likelihood"):
        (tmp_path / name).mkdir()
    found = {
        "sft": sft(SftConfig(**common), tmp_path / "sft", base=base, rows=rows),
        "dpo": dpo(DpoConfig(**common), tmp_path / "dpo", base=base, pairs=pairs, adapter=adapter, reference=frozen),
        "head": reward(RewardConfig(**common), tmp_path / "head", base=base, pairs=pairs, adapter=adapter),
        "likelihood": reward(
            RewardConfig(kind="likelihood", **common), tmp_path / "likelihood", base=base, pairs=pairs, adapter=adapter
        ),
    }
    for name, metrics in found.items():
        assert float(metrics["process.tokens_per_second"]) > 0 and 0 <= float(metrics["process.padding"]) < 1
        assert ("process.trained_tokens_per_second" in metrics) == (name != "head")  # its loss is on no token
        assert "process.mfu" not in metrics or torch.cuda.is_available()
        log = tables.read(tmp_path / name / "training_log.parquet")
        assert log and not any(e["name"].startswith("process.") for e in log)


@pytest.mark.parametrize("packing", [False, True])
def test_what_is_counted(base: BaseConfig, tmp_path: Path, monkeypatch: Any, packing: bool) -> None:
    draw, seen = random.Random(0), []
    measures = Throughput._measures

    def noted(self: Throughput, counts: list[float], seconds: float) -> dict[str, float]:
        seen.append(counts)
        return measures(self, counts, seconds)

    monkeypatch.setattr(Throughput, "_measures", noted)
    rows = [tiny.row(i, response="five " * draw.randint(1, 20)) for i in range(9)]
    tables.write(tmp_path / "kept.parquet", rows, tables.KEPT)
    (tmp_path / "out").mkdir()
    config = SftConfig(max_length=128, per_device_train_batch_size=4, num_train_epochs=2, packing=packing)
    metrics = sft(config, tmp_path / "out", base=base, rows=tmp_path / "kept.parquet")
    lengths, trained = tokens(base, rows)
    places, *counts = seen[-1]
    assert counts == [2 * sum(lengths), 2 * trained, 2 * sum(n * n for n in lengths)]
    assert metrics["process.padding"] == pytest.approx(1 - 2 * sum(lengths) / places) and metrics["tokens"] == 2 * sum(
        lengths
    )


def test_flops_of_a_token(tmp_path: Path) -> None:
    plain = tiny.tiny_base(tmp_path / "plain", quantization="none", tie=False)
    model: Any = load_model(plain)
    shape = model.config
    looked_up = shape.vocab_size * shape.hidden_size
    n = sum(p.numel() for p in model.parameters()) - looked_up
    attention = shape.num_hidden_layers * shape.hidden_size
    whole = cost(model)
    assert whole and (whole.token, whole.square) == (6 * n, 12 * attention)
    assert whole.of(10, 50) == 60 * n + 600 * attention

    nf4 = plain.model_copy(update={"quantization": "nf4"})
    tuned = trainable.adapt(load_model(nf4), SftConfig(), nf4, None)
    lora = sum(p.numel() for p in tuned.parameters() if p.requires_grad)
    found, with_reference = cost(tuned), cost(tuned, reference=True)
    assert found and with_reference
    assert found.token == 6 * lora + 4 * n  # a frozen weight needs no gradient; packed NF4 counts by its shape
    assert with_reference.token == found.token + 2 * (lora + n) and with_reference.square == 16 * attention


def test_a_tied_embedding_counts_as_the_head(tmp_path: Path) -> None:
    model: Any = load_model(tiny.tiny_base(tmp_path, quantization="none", tie=True))
    found = cost(model)
    assert found and found.token == 6 * sum(p.numel() for p in model.parameters())


def test_mixtures_of_experts_are_not_guessed() -> None:
    from transformers import AutoModelForCausalLM, MixtralConfig

    config = MixtralConfig(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
                           num_attention_heads=2, num_key_value_heads=2, num_local_experts=2)  # fmt: skip
    with torch.device("meta"):
        assert cost(AutoModelForCausalLM.from_config(config)) is None


@pytest.mark.parametrize(
    ("name", "tera"),
    [("NVIDIA A100-SXM4-80GB", 312), ("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA H200", 989),
     ("NVIDIA L4", 121), ("NVIDIA L40S", 362), ("Tesla T4", 65), ("Tesla V100-SXM2-16GB", 125), ("NVIDIA A10G", 70),
     ("NVIDIA GeForce RTX 4090", 165)],
)  # fmt: skip
def test_peaks_by_name(name: str, tera: int) -> None:
    assert peak(name, 16) == tera * 1e12 and peak(name, 32) is None


def test_unknown_devices_have_no_peak() -> None:
    assert peak("", 16) is None and peak("NVIDIA GeForce RTX 4090 Laptop GPU", 16) is None
