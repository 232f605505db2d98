"""DPO: the reference is the policy it starts from, the preference is learned, and only the policy is saved."""

import filecmp
import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file

from align import tables
from align.errors import StageError
from align.models.base import BaseConfig, load_chat
from align.models.trained import policy
from tasks.dpo import DpoConfig, dpo


def run(base: BaseConfig, out: Path, pairs: Path, adapter: Path, **settings: Any) -> dict[str, Any]:
    out.mkdir()
    config = DpoConfig(
        **{"learning_rate": 1e-3, "num_train_epochs": 1, "per_device_train_batch_size": 16, "max_length": 128}
        | settings
    )
    return dpo(config, out, base=base, pairs=pairs, adapter=adapter, reference=tiny.reference(base, pairs, adapter))


@pytest.fixture(scope="module")
def trained(base: BaseConfig, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("dpo")
    pairs = tiny.pairs(folder / "pairs.parquet", 60, tiny.pair(99, rejected="word " * 200), tiny.pair(98, rejected=" "))
    return folder / "out", run(base, folder / "out", pairs, adapter, num_train_epochs=2)


def test_the_first_loss_is_ln_2(trained: tuple[Path, dict[str, Any]]) -> None:
    out, metrics = trained
    assert metrics["loss.initial"] == pytest.approx(math.log(2), abs=1e-5)
    assert metrics["loss.first"] == pytest.approx(math.log(2), abs=1e-5)  # what trl itself computed at step 1
    log = tables.read(out / "training_log.parquet", step=1)
    assert {"logps/chosen", "rewards/accuracies"} <= {e["name"] for e in log}


def test_the_preference_is_learned(trained: tuple[Path, dict[str, Any]]) -> None:
    _, metrics = trained
    assert metrics["loss.final"] < 0.6 and metrics["accuracy.held_out"] > 0.9
    assert metrics["logps.rejected_shift.held_out"] < metrics["logps.chosen_shift.held_out"]
    assert (metrics["pairs"], metrics["pairs.held_out"], metrics["pairs.read"]) == (48, 12, 62)
    assert metrics["pairs.too_long"] == 1 and metrics["pairs.faulty"] == 1


def test_the_shift_is_that_of_the_saved_policy(
    base: BaseConfig, adapter: Path, trained: tuple[Path, dict[str, Any]]
) -> None:
    chat = load_chat(base)
    before, after = policy(base, adapter), policy(base, trained[0])
    shifts = []
    for i in range(0, 60, 5):
        (e,) = chat.examples([tiny.pair(i)["messages"]], [tiny.pair(i)["chosen"]])
        ids = torch.tensor([e.ids])
        at = torch.arange(e.prompt, len(e.ids))
        with torch.no_grad():
            logps = [m(ids).logits[0].log_softmax(-1)[at - 1, ids[0, at]].sum() for m in (before, after)]
        shifts.append(float(logps[1] - logps[0]))
    assert trained[1]["logps.chosen_shift.held_out"] == pytest.approx(sum(shifts) / len(shifts), abs=0.01)


def test_only_the_policy_is_saved(base: BaseConfig, adapter: Path, trained: tuple[Path, dict[str, Any]]) -> None:
    out, _ = trained
    assert sorted(p.name for p in out.iterdir()) == ["adapter", "dropped.parquet", "training_log.parquet"]
    assert all(p.is_file() for p in (out / "adapter").iterdir())  # a second adapter would have a folder of its own
    before, after = (load_file(d / "adapter/adapter_model.safetensors") for d in (adapter, out))
    assert before.keys() == after.keys() and any(not torch.equal(before[k], after[k]) for k in before)


def test_an_nll_term_keeps_the_chosen_likely(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    pairs = tiny.pairs(tmp_path / "pairs.parquet", 60)
    plain, held = (run(base, tmp_path / str(nll), pairs, adapter, nll=nll, num_train_epochs=3) for nll in (0.0, 1.0))
    assert held["logps.chosen_shift.train"] > plain["logps.chosen_shift.train"]
    assert held["loss.initial"] == pytest.approx(math.log(2), abs=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        {"loss_type": "sigmoid_norm", "beta": 5.0},
        {"loss_type": "ipo", "beta": 0.5},
        {"loss_type": "hinge"},
        {"loss_type": "robust", "label_smoothing": 0.1},
    ],
    ids=lambda loss: loss["loss_type"],
)
def test_other_losses(base: BaseConfig, adapter: Path, tmp_path: Path, loss: dict[str, Any]) -> None:
    metrics = run(base, tmp_path / "out", tiny.pairs(tmp_path / "p.parquet", 24), adapter, **loss)
    assert metrics["accuracy.train"] > 0.5 and metrics["loss.initial"] == pytest.approx(math.log(2), abs=1e-5)


def test_beta_matters_and_equal_runs_give_equal_bytes(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    pairs = tiny.pairs(tmp_path / "pairs.parquet", 24)
    a, b, c = (
        run(base, tmp_path / name, pairs, adapter, beta=beta, num_train_epochs=2)
        for name, beta in (("a", 0.1), ("b", 0.1), ("c", 0.5))
    )
    assert tiny.measured(a) == tiny.measured(b) and a["loss.final"] != c["loss.final"]
    files = sorted(str(p.relative_to(tmp_path / "a")) for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert filecmp.cmpfiles(tmp_path / "a", tmp_path / "b", files, shallow=False)[0] == files


def test_no_pairs(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="0 pairs to train on"):
        run(base, tmp_path / "out", tiny.pairs(tmp_path / "none.parquet", 0), adapter)


def test_an_adapter_of_another_base(adapter: Path, tmp_path: Path) -> None:
    other = tiny.tiny_base(tmp_path / "other", seed=5)
    with pytest.raises(StageError, match="belongs to another base"):
        run(other, tmp_path / "out", tiny.pairs(tmp_path / "p.parquet", 8), adapter)
