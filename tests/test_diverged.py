"""A training that diverged is an error of one sentence, and nothing of it is saved."""

import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from align.errors import StageError
from align.models import trainable
from align.models.arguments import Training
from align.models.base import BaseConfig, load_chat, load_model
from align.models.finite import check_scores, is_finite, not_finite
from align.models.reward_model import score
from align.models.trainable import adapt
from align.models.trained import save_trained
from tasks.dpo import DpoConfig, check_reference, dpo
from tasks.reward import RewardConfig, reward
from tasks.sft import SftConfig, sft

SETTINGS: dict[str, Any] = {
    "per_device_train_batch_size": 8,
    "max_length": 128,
    "warmup_steps": 0.0,
    "num_train_epochs": 2,
}


def _sft(base: BaseConfig, adapter: Path, folder: Path, out: Path, **changes: Any) -> Any:
    settings = SETTINGS | changes
    return sft(SftConfig(**settings), out, base=base, rows=tiny.kept(folder / "kept.parquet", 24))


def _sft_rs(base: BaseConfig, adapter: Path, folder: Path, out: Path, **changes: Any) -> Any:
    rows = tiny.kept(folder / "kept.parquet", 24)
    return sft(SftConfig(**SETTINGS | changes), out, base=base, rows=rows, adapter=adapter)


def _head(base: BaseConfig, adapter: Path, folder: Path, out: Path, **changes: Any) -> Any:
    pairs = tiny.pairs(folder / "pairs.parquet", 24)
    return reward(RewardConfig(**SETTINGS | changes), out, base=base, pairs=pairs, adapter=adapter)


def _likelihood(base: BaseConfig, adapter: Path, folder: Path, out: Path, **changes: Any) -> Any:
    return _head(base, adapter, folder, out, kind="likelihood", **changes)


def _dpo(base: BaseConfig, adapter: Path, folder: Path, out: Path, **changes: Any) -> Any:
    pairs = tiny.pairs(folder / "pairs.parquet", 24)
    frozen = tiny.reference(base, pairs, adapter)
    return dpo(DpoConfig(**SETTINGS | changes), out, base=base, pairs=pairs, adapter=adapter, reference=frozen)


STAGES = [(_sft, "sft"), (_sft_rs, "sft"), (_head, "reward"), (_likelihood, "reward"), (_dpo, "dpo")]


@pytest.mark.parametrize("steps", ["several", "one"])
@pytest.mark.parametrize(("stage", "label"), STAGES, ids=[s.__name__[1:] for s, _ in STAGES])
def test_a_rate_that_is_far_too_high(
    base: BaseConfig, adapter: Path, tmp_path: Path, stage: Any, label: str, steps: str
) -> None:
    """Also where the first step is the last one, after which no loss is computed any more."""
    (tmp_path / "out").mkdir()
    changes = {"per_device_train_batch_size": 64, "num_train_epochs": 1} if steps == "one" else {}
    sentence = rf"of {label} is not (a )?finite.* after \d of \d steps.*lower learning_rate \(it is 1e\+30\)"
    with pytest.raises(StageError, match=sentence) as caught:
        stage(base, adapter, tmp_path, tmp_path / "out", learning_rate=1e30, **changes)
    assert "\n" not in str(caught.value)
    assert {p.name for p in (tmp_path / "out").iterdir()} <= {"dropped.parquet"}


def test_a_loss_that_is_none_at_once_is_not_blamed_on_the_rate(
    base: BaseConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ruined(base: BaseConfig, **options: Any) -> Any:
        model = load_model(base, **options)
        model.model.norm.weight.data.fill_(float("inf"))
        return model

    monkeypatch.setattr(trainable, "load_model", ruined)
    with pytest.raises(StageError, match=r"loss of sft is not a finite number at step 1 of \d+, before anything"):
        _sft(base, tmp_path, tmp_path, tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("head", [None, "score"])
def test_weights_that_are_not_finite_are_not_saved(base: BaseConfig, tmp_path: Path, value: float, head: Any) -> None:
    model = adapt(
        load_model(base, head="reward" if head else "lm"), Training(), base, None, heads=[head] if head else []
    )
    trained = [p for name, p in model.named_parameters() if p.requires_grad and (not head or head in name)]
    trained[-1].data.view(-1)[3] = value
    with pytest.raises(StageError, match=r"(lora_B|score).* is not finite; nothing is saved"):
        save_trained(model, load_chat(base), base, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_reference_that_is_no_number() -> None:
    """NaN is not above any tolerance, and infinity differs from itself by NaN."""
    policy = torch.tensor([[-20.0, -22.0], [-19.0, -30.0]])
    assert check_reference(policy, policy, 0.1, exact=True) == pytest.approx(math.log(2), abs=1e-6)
    for value in (float("nan"), float("inf")):
        for exact in (True, False):
            with pytest.raises(StageError, match="reference is not the policy"):
                check_reference(policy, policy.clone().fill_(value), 0.1, exact=exact)


def test_scores_that_are_no_numbers(base: BaseConfig) -> None:
    chat, model = load_chat(base), load_model(base, head="reward")
    examples = chat.examples([tiny.row(i)["messages"] for i in range(3)], ["Yes. "] * 3)
    head: Any = model.score
    head.weight.data.fill_(float("nan"))
    with pytest.raises(
        StageError, match=r"gives 3 of 3 conversations \(scoring\) no finite score.*lower reward.learning_rate"
    ):
        score(model, "head", chat, examples)
    check_scores([0.0, -1e30], "any")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_every_type_of_number_is_looked_at(dtype: torch.dtype) -> None:
    values = torch.full((3, 5), 100.0).to(dtype)
    assert is_finite(values) and is_finite(values[:0]) and is_finite(values.t())
    values[2, 4] = float("nan")
    assert not is_finite(values) and not_finite([("a", values[:2]), ("b", values)]) == "b"
    assert is_finite(torch.tensor([1, 2])) and is_finite(torch.tensor([True]))
