"""The reference of DPO as an artifact: right numbers, shared by a sweep, the same training as with trl's own copy."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from align import tables
from align.errors import InputError, StageError
from align.models import trainable, training
from align.models.arguments import arguments
from align.models.base import BaseConfig, load_chat, load_model
from align.models.pairs import encode
from align.models.reference import FACTS
from align.models.trained import policy, save_trained
from flows.recipe import load
from flows.stages import TABLE
from storage.identity import canonical
from storage.store import Store
from tasks import dpo as stage
from tasks.dpo import DpoConfig, dpo

SETTINGS: dict[str, Any] = {"learning_rate": 1e-3, "per_device_train_batch_size": 8, "max_length": 128}
WEIGHTS = "adapter/adapter_model.safetensors"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.pairs(tmp_path_factory.mktemp("pairs") / "pairs.parquet", 40, tiny.pair(99, rejected="word " * 200))


@pytest.fixture(scope="module")
def reference(base: BaseConfig, pairs: Path, adapter: Path) -> Path:
    return tiny.reference(base, pairs, adapter, batch_size=16)


def test_the_numbers_are_those_of_the_policy(base: BaseConfig, pairs: Path, adapter: Path, reference: Path) -> None:
    model, chat = policy(base, adapter), load_chat(base)
    rows = {r["pair_id"]: r for r in tables.read(reference / "reference.parquet")}
    assert rows.keys() == {f"q{i}" for i in range(40)}  # those held out too, without the one that is too long
    assert [d["row_id"] for d in tables.read(reference / "dropped.parquet")] == ["q99"]
    for i in range(0, 40, 7):
        pair = tiny.pair(i)
        both = chat.examples([pair["messages"]] * 2, [pair["chosen"], pair["rejected"]])
        start = min(e.prompt for e in both)
        for side, e in zip(("chosen", "rejected"), both, strict=True):
            ids = torch.tensor([e.ids])
            at = torch.arange(start, len(e.ids))
            logp = model(ids).logits[0].log_softmax(-1)[at - 1, ids[0, at]].sum()
            assert rows[f"q{i}"][f"{side}_logps"] == pytest.approx(float(logp), abs=0.01)
            assert rows[f"q{i}"][f"{side}_tokens"] == len(e.ids) - start


def test_batches_change_no_number(base: BaseConfig, pairs: Path, adapter: Path, reference: Path) -> None:
    names = ["chosen_logps", "rejected_logps"]
    first, alone = (
        torch.tensor([[r[n] for n in names] for r in tables.read(folder / "reference.parquet")])
        for folder in (reference, tiny.reference(base, pairs, adapter, batch_size=1))
    )
    assert first.shape == (40, 2) and torch.allclose(first, alone, atol=1e-4)


def test_a_sweep_shares_it(tmp_path: Path) -> None:
    """Only what decides the log-probabilities counts for its key."""

    def settings(*overrides: str) -> Any:
        return canonical(Store(tmp_path), TABLE["reference"].config_of(load("quickstart", overrides)))

    plain = settings()
    for same in ("beta=0.5", "learning_rate=1e-3", "loss_type=ipo", "nll=0.5", "num_train_epochs=3", "seed=4",
                 "per_device_train_batch_size=4", "extra={f_divergence_type: js_divergence}"):  # fmt: skip
        assert settings(f"dpo.{same}") == plain, same
    for other in ("max_length=100", "max_truncated_share=0.5", "limit=7"):
        assert settings(f"dpo.{other}") != plain, other


LOSSES: list[dict[str, Any]] = [
    {}, {"nll": 0.5}, {"loss_type": "sigmoid_norm", "beta": 5.0}, {"loss_type": "ipo", "beta": 0.3}, {"loss_type": "hinge"},
    {"loss_type": "robust", "label_smoothing": 0.1}, {"extra": {"f_divergence_type": "js_divergence"}},
]  # fmt: skip


@pytest.mark.parametrize("settings", LOSSES, ids=str)
def test_training_is_that_with_trls_own_reference(
    base: BaseConfig, pairs: Path, adapter: Path, reference: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    config = DpoConfig(**SETTINGS, **settings, num_train_epochs=2)
    for name in ("ours", "trl"):
        (tmp_path / name).mkdir()
    found = dpo(config, tmp_path / "ours", base=base, pairs=pairs, adapter=adapter, reference=reference)
    _trl_alone(config, tmp_path / "trl", base, pairs, adapter)
    ours, theirs, before = (load_file(f / WEIGHTS) for f in (tmp_path / "ours", tmp_path / "trl", adapter))
    moved = max(float((ours[k] - before[k]).abs().max()) for k in before)
    apart = max(float((ours[k] - theirs[k]).abs().max()) for k in before)
    assert moved > 1e-3 and apart < 1e-3 * moved
    logs = [tables.read(tmp_path / n / "training_log.parquet") for n in ("ours", "trl")]
    values = [
        {(e["step"], e["name"]): e["value"] for e in log if e["name"] != "rewards/accuracies" or e["step"] > 2}
        for log in logs  # until the rate is above 0, policy and reference are equal and rounding decides which is above
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-3, abs=1e-4) and found["steps"] == 8


def _trl_alone(config: DpoConfig, out: Path, base: BaseConfig, pairs: Path, adapter: Path) -> None:
    """What trl does with an adapter: a frozen copy of it, and its forward pass in every step."""
    from datasets import Dataset
    from trl import DPOTrainer

    class Trainer(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

    chat = load_chat(base)
    train = [p for p in encode(chat, tables.read(pairs), config, out)[0] if not p.held_out]
    rows = Dataset.from_list([stage._columns(p, 0.0, 0.0) for p in train])
    with arguments(config, base, len(train)) as args:
        model = trainable.adapt(load_model(base), config, base, adapter)
        start = trainable.weights(model)
        trainer = Trainer(
            model=model,
            args=args,
            train_dataset=rows.remove_columns(["ref_chosen_logps", "ref_rejected_logps"]),
            processing_class=chat.tokenizer,
        )
        trainable.restore(model, start)
        assert not trainer.precompute_ref_logps and "ref" in model.peft_config
        training.run(trainer, "dpo", out, config)
    save_trained(model, chat, base, out)


def test_there_is_one_adapter_and_one_forward_pass_a_step(
    base: BaseConfig, pairs: Path, adapter: Path, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []

    def watched(model: Any, args: Any, *rest: Any) -> Any:
        trainer = made(model, args, *rest)
        assert list(model.peft_config) == ["default"] and model.active_adapters == ["default"]
        assert not [name for name, _ in model.named_parameters() if ".ref." in name]
        model.get_base_model().model.layers[0].register_forward_hook(
            lambda module, *_: passes.append(trainer.state.global_step) if module.training else None
        )
        return trainer

    made = stage.trainer_of
    monkeypatch.setattr(stage, "trainer_of", watched)
    config = DpoConfig(**SETTINGS)
    found = dpo(config, tmp_path, base=base, pairs=pairs, adapter=adapter, reference=reference)
    assert passes == list(range(4)) and found["steps"] == 4


def test_half_precision_differs_by_rounding_only(base: BaseConfig, pairs: Path, adapter: Path, tmp_path: Path) -> None:
    half = base.model_copy(update={"dtype": "bfloat16"})
    frozen = tiny.reference(half, pairs, adapter)
    found = dpo(DpoConfig(**SETTINGS), tmp_path, base=half, pairs=pairs, adapter=adapter, reference=frozen)
    assert found["loss.initial"] == pytest.approx(0.6931, abs=0.02)


def _another(adapter: Path, folder: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> Path:
    """An adapter of the same base with other weights."""
    shutil.copytree(adapter, folder)
    weights = {name: change(value).contiguous() for name, value in load_file(folder / WEIGHTS).items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def test_a_reference_of_something_else_is_named(
    base: BaseConfig, pairs: Path, adapter: Path, reference: Path, tmp_path: Path
) -> None:
    config = DpoConfig(**SETTINGS)
    other = _another(adapter, tmp_path / "sft-other", lambda w: w * 2)
    with pytest.raises(StageError, match=rf"{reference.name} was computed with another adapter than sft-other"):
        dpo(config, tmp_path, base=base, pairs=pairs, adapter=other, reference=reference)
    fewer = tiny.pairs(tmp_path / "fewer.parquet", 20)
    with pytest.raises(StageError, match=rf"{reference.name} was computed with other pairs than .*fewer\.parquet"):
        dpo(config, tmp_path, base=base, pairs=fewer, adapter=adapter, reference=reference)
    template = tmp_path / "other.jinja"
    template.write_text(tiny.CHATML.replace("<|user|>", "<|system|>") + "{# #}")
    with pytest.raises(StageError, match="another chat template"):
        changed = base.model_copy(update={"chat_template": template})
        dpo(config, tmp_path, base=changed, pairs=pairs, adapter=adapter, reference=reference)
    short = tiny.reference(base, pairs, adapter, limit=10)
    with pytest.raises(StageError, match=r"no log-probabilities for the pair q\d+; .*dpo's max_length and limit"):
        dpo(config, tmp_path, base=base, pairs=pairs, adapter=adapter, reference=short)


@pytest.mark.parametrize(
    "change",
    [torch.zeros_like, lambda w: w.to(torch.bfloat16).float()],
    ids=["the base", "a rounded adapter"],
)
def test_a_reference_that_only_claims_to_be_the_policy(
    base: BaseConfig, pairs: Path, adapter: Path, reference: Path, tmp_path: Path, change: Any
) -> None:
    """What trl does when it is given a fresh peft_config, and what it does to the adapter of a quantised base."""
    wrong = tiny.reference(base, pairs, _another(adapter, tmp_path / "wrong", change))
    shutil.copy(reference / FACTS, wrong / FACTS)
    with pytest.raises(StageError, match="reference is not the policy"):
        dpo(DpoConfig(**SETTINGS), tmp_path, base=base, pairs=pairs, adapter=adapter, reference=wrong)


def test_what_it_belongs_to_is_written_down(reference: Path) -> None:
    assert json.loads((reference / FACTS).read_text()).keys() == {"adapter", "pairs", "chat_template"}


@pytest.mark.parametrize(
    "extra", [{"ld_alpha": 0.5}, {"precompute_ref_log_probs": True}, {"sync_ref_model": True}], ids=str
)
def test_what_would_make_the_numbers_others_is_refused(base: BaseConfig, extra: dict[str, Any]) -> None:
    with (
        pytest.raises(InputError, match=rf"extra\.{next(iter(extra))}: is set by the stage itself"),
        arguments(DpoConfig(extra=extra), base, 10),
    ):
        pass
