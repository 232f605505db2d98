"""Full fine-tuning: all weights are trained, saved as a model of its own, and taken on from stage to stage."""

from pathlib import Path
from typing import Any

import pytest
import test_kto
import tiny
import torch
from grouped import Call
from test_ranks import NO_DROPOUT, losses
from test_resume import outputs, train
from transformers import AutoModelForCausalLM, AutoTokenizer

from align.errors import StageError
from align.handover.export import export
from align.models.base import BaseConfig, load_model
from align.models.engine import Policy, Prompt, Sampling
from align.models.reward_model import load_reward
from align.models.trained import policy
from flows.check_training import adapters
from flows.ranks import spread
from flows.recipe import load
from storage.store import kind_of


@pytest.fixture(scope="module")
def full(base: BaseConfig) -> BaseConfig:
    return base.model_copy(update={"adapter": "none", "quantization": "none"})


@pytest.fixture(scope="module")
def trained(
    full: BaseConfig, base: BaseConfig, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """The artifact of an SFT of all weights, and its metrics."""
    from tasks.sft import SftConfig, sft

    folder = tmp_path_factory.mktemp("full")
    (folder / "out").mkdir()
    rows = tiny.kept(folder / "kept.parquet", 64)
    config = SftConfig(learning_rate=2e-3, num_train_epochs=3, per_device_train_batch_size=16, max_length=128)
    return folder / "out", sft(config, folder / "out", base=full, rows=rows)


def test_all_weights_learn_and_are_a_model_of_their_own(
    full: BaseConfig, trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out, metrics = trained
    assert metrics["loss.final"] < 0.7 * metrics["loss.first"]
    assert not (out / "adapter").exists() and kind_of([f"model/{p.name}" for p in (out / "model").iterdir()]) == "model"
    before, after = load_model(full).state_dict(), policy(full, out).state_dict()
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert len(moved) == len(before), "some weights were not trained"
    plain = AutoModelForCausalLM.from_pretrained(out / "model")
    assert all(torch.equal(value, after[name]) for name, value in plain.state_dict().items())
    made = export(full, out, tmp_path / "exported")
    assert AutoTokenizer.from_pretrained(made).chat_template
    prompts = [Prompt("a", [{"role": "user", "content": "What is 3?"}])]
    drawn = Policy(full, out, None).draw(prompts, Sampling(n=2, max_new_tokens=8), label="test", too_long=[])
    assert len(drawn) == 2


@pytest.mark.parametrize("label", ["reward", "dpo"])
def test_later_stages_take_the_model_on(
    label: str, full: BaseConfig, trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """DPO checks that its reference is the policy; the reward stage that what it saved scores as what it trained."""
    out = tmp_path / "run" / "out"
    metrics = train(label, out, full, trained[0], None, learning_rate=1e-4)
    assert (out / "model" / "base.json").is_file() and metrics["steps"] > 0
    if label == "dpo":
        assert metrics["loss.initial"] == pytest.approx(0.693, abs=2e-3)
        policy(full, out)
    else:
        load_reward(full, out)
        with pytest.raises(StageError, match="is a reward model, not a policy"):
            policy(full, out)


def test_a_score_head(full: BaseConfig, trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    out = tmp_path / "run" / "out"
    train("reward", out, full, trained[0], None, learning_rate=1e-4, kind="head")
    model, kind = load_reward(full, out)
    assert kind == "head" and model.get_parameter("score.weight").abs().sum() > 0


def test_kto_compares_with_a_copy(full: BaseConfig, trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    labels = test_kto.write(tmp_path / "labels.parquet", 40)
    metrics = test_kto.run(full, tmp_path / "out", labels, trained[0], learning_rate=1e-4)
    assert metrics["steps"] > 0 and (tmp_path / "out" / "model").is_dir()


def test_it_resumes_to_the_same_bytes(full: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    train("sft", tmp_path / "whole" / "out", full, adapter, None)
    where = tmp_path / "checkpoints"
    with pytest.MonkeyPatch.context() as patch:
        from align.models import finite

        seen = iter(range(100))

        def ending(trainer: Any, label: str) -> None:
            norm_of = trainer._get_grad_norm

            def norm(*args: Any, **kwargs: Any) -> Any:
                if next(seen) == 4:
                    raise Enough
                return norm_of(*args, **kwargs)

            trainer._get_grad_norm = norm

        patch.setattr("align.models.training.watch", ending)
        with pytest.raises(Enough):
            train("sft", tmp_path / "cut" / "out", full, adapter, where)
        assert finite.watch is not ending
    train("sft", tmp_path / "again" / "out", full, adapter, where)
    assert outputs(tmp_path / "again" / "out") == outputs(tmp_path / "whole" / "out")


def sft_again(config: Call, out: Path, base: BaseConfig, adapter: Path) -> Any:
    out.rmdir()
    return train("sft", out, base, adapter, None, **NO_DROPOUT)


def test_two_processes(full: BaseConfig, trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    one, two = tmp_path / "one" / "out", tmp_path / "two" / "out"
    train("sft", one, full, trained[0], None, **NO_DROPOUT)
    two.mkdir(parents=True)
    spread(sft_again, Call(), two, {"base": full, "adapter": trained[0]}, 2)
    assert max(abs(a - b) / a for a, b in zip(losses(one), losses(two), strict=True)) < 2e-3


def test_what_does_not_go_together(
    base: BaseConfig, full: BaseConfig, adapter: Path, trained: tuple[Path, dict[str, Any]]
) -> None:
    with pytest.raises(ValueError, match=r"base.quantization must be none"):
        BaseConfig(path=base.path, adapter="none")
    with pytest.raises(StageError, match=r"holds no adapter of this pipeline"):
        policy(base, trained[0])
    with pytest.raises(StageError, match=r"holds no model of this pipeline"):
        policy(full, adapter)
    recipe = load(overrides=["base.adapter=none", "base.quantization=none", "sft.lora.r=4"])
    assert next(adapters(recipe)).startswith("sft.lora: base.adapter is none")
