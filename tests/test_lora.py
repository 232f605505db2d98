"""Shapes of adapters (LoRA, rsLoRA, DoRA; quantised or not): learned, saved, continued, merged, and DPO's reference."""

import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from peft import PeftConfig
from safetensors.torch import load_file

from align.errors import InputError
from align.models import trainable
from align.models.arguments import LoraSettings
from align.models.base import BaseConfig, load_model
from align.models.device import fastest_dtype
from align.models.trained import policy
from tasks.dpo import DpoConfig, dpo
from tasks.sft import SftConfig, sft

COMMON: dict[str, Any] = {"max_length": 128, "per_device_train_batch_size": 16}
KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True, "lora_alpha": 8},
    "dora": {"use_dora": True},
}

NAMES = ("r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora")


@pytest.mark.parametrize("quantization", ["nf4", "none"])
@pytest.mark.parametrize("kind", list(KINDS))
def test_an_adapter_goes_through_the_stages(kind: str, quantization: Any, base: BaseConfig, tmp_path: Path) -> None:
    base = base.model_copy(update={"quantization": quantization})
    rows, pairs = tiny.kept(tmp_path / "kept.parquet", 32), tiny.pairs(tmp_path / "pairs.parquet", 20)
    for name in ("sft", "more", "dpo"):
        (tmp_path / name).mkdir()
    lora = LoraSettings(**KINDS[kind])
    learned = sft(
        SftConfig(learning_rate=5e-3, num_train_epochs=4, lora=lora, **COMMON), tmp_path / "sft", base=base, rows=rows
    )
    assert float(learned["loss.final"]) < float(learned["loss.first"])

    ids = torch.arange(5, 60)[None]
    trained = trainable.adapt(load_model(base), SftConfig(), base, tmp_path / "sft").eval()
    with torch.no_grad():
        wanted, merged = trained(ids).logits, policy(base, tmp_path / "sft")(ids).logits
        untrained = policy(base, None)(ids).logits
    assert torch.allclose(wanted, merged, atol=2e-3 * float(wanted.abs().max()))
    assert not torch.allclose(untrained, merged, atol=5e-2 * float(wanted.abs().max()))

    sft(SftConfig(learning_rate=1e-3, **COMMON), tmp_path / "more", base=base, rows=rows, adapter=tmp_path / "sft")
    more = tmp_path / "more"
    inputs = {"pairs": pairs, "adapter": more, "reference": tiny.reference(base, pairs, more)}
    found = dpo(DpoConfig(learning_rate=1e-4, **COMMON), tmp_path / "dpo", base=base, **inputs)
    assert found["loss.initial"] == pytest.approx(math.log(2), abs=1e-3)
    for name in ("sft", "more", "dpo"):
        shape = PeftConfig.from_pretrained(str(tmp_path / name / "adapter"))
        assert [getattr(shape, n) for n in NAMES] == [getattr(lora, n) for n in NAMES]
        policy(base, tmp_path / name)


def test_rslora_scales_by_the_root_of_the_rank(base: BaseConfig) -> None:
    model = trainable.adapt(
        load_model(base), SftConfig(lora=LoraSettings(r=4, lora_alpha=8, use_rslora=True)), base, None
    )
    scales = {m.scaling["default"] for m in model.modules() if isinstance(getattr(m, "scaling", None), dict)}
    assert scales == {8 / math.sqrt(4)}


def test_another_kind_than_the_adapter_that_is_continued(base: BaseConfig, adapter: Path) -> None:
    for changed, told in (
        ({"use_dora": True}, "use_dora True, but the adapter that is continued has use_dora False"),
        ({"use_rslora": True}, "use_rslora True"),
    ):
        with pytest.raises(InputError, match=told):
            trainable.adapt(load_model(base), SftConfig(lora=LoraSettings(**changed)), base, adapter)


def test_a_compiled_model_is_saved_under_the_same_names(tmp_path: Path) -> None:
    base = tiny.tiny_base(tmp_path / "base", quantization="none", layers=1, hidden=16)
    rows, losses = tiny.kept(tmp_path / "kept.parquet", 16), []
    for name, compiled in (("plain", False), ("compiled", True)):
        (tmp_path / name).mkdir()
        extra = {"torch_compile_backend": "aot_eager"} if compiled else {}  # needs no C++ compiler
        config = SftConfig(max_length=128, per_device_train_batch_size=16, torch_compile=compiled, extra=extra)
        losses.append(sft(config, tmp_path / name, base=base, rows=rows)["loss.first"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    names = [set(load_file(tmp_path / n / "adapter" / "adapter_model.safetensors")) for n in ("plain", "compiled")]
    assert names[0] == names[1]
    policy(base, tmp_path / "compiled")


@pytest.mark.parametrize(
    ("capability", "wanted"),
    [(None, "float32"), ((6, 1), "float32"), ((7, 0), "float16"), ((7, 5), "float16"), ((8, 0), "bfloat16"),
     ((8, 9), "bfloat16"), ((9, 0), "bfloat16"), ((12, 0), "bfloat16")],
)  # fmt: skip
def test_the_compute_type_of_a_device(capability: tuple[int, int] | None, wanted: str) -> None:
    assert fastest_dtype(capability) == wanted
