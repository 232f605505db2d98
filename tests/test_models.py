"""Loading the base: quantisation that is active, inference that equals training, adapters that belong."""

import json
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from pydantic import ValidationError

from align.errors import InputError, StageError
from align.models.base import BaseConfig, identity, load_chat, load_model
from align.models.quantise import check_quantised, quantised
from align.models.trained import check_trained, policy


def logits(model: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits


@pytest.mark.parametrize("keys", [{}, {"path": "a", "hub": "b", "revision": "c"}, {"hub": "b"}, {"path": "a", "x": 1}])
def test_a_base_is_one_path_or_one_pinned_hub_id(keys: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        BaseConfig(**keys)


def test_a_directory_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no config.json"):
        load_model(BaseConfig(path=tmp_path))


def test_weights_that_cannot_be_read(base: BaseConfig, tmp_path: Path) -> None:
    assert base.path
    shutil.copytree(base.path, tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"weight file .*model.safetensors is missing"):
        load_model(BaseConfig(path=tmp_path / "broken"))


def test_nf4_is_active(base: BaseConfig) -> None:
    model = load_model(base)
    assert len(quantised(model)) == 2 * 7
    assert {str(m.compute_dtype) for m in quantised(model).values()} == {"torch.float32"}
    assert model.lm_head.weight.dtype == torch.float32
    assert not quantised(load_model(base.model_copy(update={"quantization": "none"})))


def test_quantisation_asked_for_but_not_active(base: BaseConfig) -> None:
    plain = load_model(base.model_copy(update={"quantization": "none"}))
    with pytest.raises(StageError, match="no NF4 layers"):
        check_quantised(plain, "it")


def test_the_dequantised_policy_is_the_quantised_model(base: BaseConfig) -> None:
    ids = list(range(5, 60))
    trained, fast = load_model(base).train(), policy(base, None)
    assert not quantised(fast)
    assert torch.allclose(logits(trained, ids), logits(fast, ids), atol=1e-4)
    plain = policy(base.model_copy(update={"quantization": "none"}), None)
    assert not torch.allclose(logits(plain, ids), logits(fast, ids), atol=1e-2)


def test_the_merged_policy_is_the_trained_one(base: BaseConfig, adapter: Path) -> None:
    from peft import PeftModel

    ids = list(range(5, 60))
    trained = PeftModel.from_pretrained(load_model(base), str(adapter / "adapter")).train()
    merged = policy(base, adapter)
    assert torch.allclose(logits(trained, ids), logits(merged, ids), atol=1e-3)
    assert not torch.allclose(logits(policy(base, None), ids), logits(merged, ids), atol=1e-1)
    assert not any("lora" in name for name, _ in merged.named_parameters())


def test_an_adapter_on_another_base(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    check_trained(base, adapter)
    other = tiny.tiny_base(tmp_path, seed=1)
    with pytest.raises(StageError, match="belongs to another base model: its weights"):
        policy(other, adapter)
    with pytest.raises(StageError, match="its quantization"):
        policy(base.model_copy(update={"quantization": "none"}), adapter)
    with pytest.raises(StageError, match="base.json is missing"):
        policy(base, tmp_path)


def test_the_same_weights_elsewhere_are_the_same_base(base: BaseConfig, tmp_path: Path) -> None:
    assert base.path
    shutil.copytree(base.path, tmp_path / "copy")
    assert identity(base.model_copy(update={"path": tmp_path / "copy"})) == identity(base)


def test_a_base_that_changes_during_training(tmp_path: Path) -> None:
    from align.models.arguments import Training
    from align.models.trainable import adapt
    from align.models.trained import save_trained

    base = tiny.tiny_base(tmp_path / "base")
    model = adapt(load_model(base), Training(), base, None)
    tiny.tiny_base(tmp_path / "base", seed=7)
    with pytest.raises(StageError, match="changed while a model was trained"):
        save_trained(model, load_chat(base), base, tmp_path)


def test_saved_files_name_no_place_on_this_machine(base: BaseConfig, adapter: Path) -> None:
    assert base.path
    for file in (adapter / "adapter").iterdir():
        data = file.read_bytes()
        assert str(base.path).encode() not in data and str(Path.home()).encode() + b"/" not in data, file
        assert file.stat().st_mode & 0o444 == 0o444, file
    facts = json.loads((adapter / "adapter" / "base.json").read_text())
    assert facts["chat_template"] == load_chat(base).digest and facts["end_of_turn"] == "<|end|>"
