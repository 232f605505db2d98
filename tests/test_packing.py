"""Packed rows: loss and gradient are those of padded rows, rows never see each other, end-of-turn tokens are trained."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from align import tables
from align.errors import InputError
from align.models import packing
from align.models.base import BaseConfig, load_chat, load_model
from align.models.chat import Chat
from align.models.trained import policy
from tasks.sft import SftConfig, sft

WORDS = ("north", "moons", "orders", "five", "city", "답은")


def rows(n: int = 12) -> list[dict[str, Any]]:
    """Rows of KEPT of very different lengths."""
    draw = random.Random(1)
    return [tiny.row(i, response=" ".join(draw.choices(WORDS, k=draw.choice((1, 2, 3, 9))))) for i in range(n)]


def features(chat: Chat, table: Sequence[dict[str, Any]]) -> list[dict[str, list[int]]]:
    examples = chat.examples([r["messages"] for r in table], [r["response"] for r in table])
    return [
        {"input_ids": e.ids, "labels": [t if m else -100 for t, m in zip(e.ids, e.mask, strict=True)]} for e in examples
    ]


def gradient(model: Any, batch: dict[str, torch.Tensor]) -> tuple[float, int, dict[str, torch.Tensor]]:
    """The summed loss, how many tokens it is over, and the gradient of every weight."""
    model.zero_grad()
    labels = batch.pop("labels")
    logits = model(**batch, use_cache=False).logits[:, :-1]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
    loss.backward()
    return loss.item(), int((labels[:, 1:] != -100).sum()), {n: p.grad.clone() for n, p in model.named_parameters()}


@pytest.mark.parametrize("window", [None, 16], ids=["full", "sliding"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_loss_and_gradient_are_those_of_padded_rows(attention: Any, window: int | None, tmp_path: Path) -> None:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    base = tiny.tiny_base(tmp_path, quantization="none", window=window)
    base = base.model_copy(update={"attention": attention})
    chat, model = load_chat(base), load_model(base)
    found = features(chat, rows())
    packed = packing.Collator(model, chat.pad_id, 128)(found)
    assert len(packed["input_ids"]) < len(found) and packed["input_ids"].shape == packed["position_ids"].shape
    assert int(packing.real_tokens(packed["position_ids"])) == sum(len(f["input_ids"]) for f in found)
    padded = DataCollatorForLanguageModeling(pad_token_id=chat.pad_id)(found)
    assert packed["input_ids"].numel() < padded["input_ids"].numel()
    loss, count, grads = gradient(model, padded)
    other, same, others = gradient(model, packed)
    assert same == count == sum(t != -100 for f in found for t in f["labels"])
    assert other == pytest.approx(loss, rel=1e-5)
    for name, value in grads.items():
        assert torch.allclose(others[name], value, rtol=1e-3, atol=1e-5 * float(value.abs().max())), name


def test_end_of_turn_tokens_are_trained_and_first_tokens_are_not(base: BaseConfig) -> None:
    chat, model = load_chat(base), load_model(base)
    found = features(chat, rows())
    batch = packing.Collator(model, chat.pad_id, 128)(found)
    assert int((batch["labels"] == chat.end_id).sum()) == len(found)
    assert int((batch["labels"][batch["position_ids"] == 0] != -100).sum()) == 0


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_rows_never_see_each_other(base: BaseConfig, attention: Any) -> None:
    model = load_model(base.model_copy(update={"attention": attention}))
    assert packing.keeps_apart(model)
    ids = torch.arange(20, 32)[None]
    apart, together = torch.arange(6).repeat(2)[None], torch.arange(12)[None]
    with torch.no_grad():
        alone = model(ids[:, 6:]).logits
        assert torch.allclose(model(ids, position_ids=apart).logits[:, 6:], alone, atol=1e-4)
        assert not torch.allclose(model(ids, position_ids=together).logits[:, 6:], alone, atol=1e-2)


def test_a_model_that_carries_a_state_along_is_not_packed() -> None:
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    model = MambaForCausalLM(
        MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=8, initializer_range=0.5)
    )
    assert not packing.keeps_apart(model)
    with pytest.raises(InputError, match="packing: rows of a mamba model would see each other"):
        packing.decide(True, model, [8, 8], 2, 1, 64)


@pytest.mark.parametrize("passes", [1, 4])
def test_a_step_has_the_same_rows_and_learns_the_same(base: BaseConfig, tmp_path: Path, passes: int) -> None:
    """With all rows in each step only packing differs: the same steps, losses and weights, in fewer passes."""
    table = tmp_path / "kept.parquet"
    tables.write(table, rows(16), tables.KEPT)
    learned: list[dict[str, Any]] = []
    weights: list[torch.Tensor] = []
    for name, packed in (("padded", False), ("packed", True)):
        (tmp_path / name).mkdir()
        config = SftConfig(
            packing=packed, num_train_epochs=4, per_device_train_batch_size=16 // passes, max_length=128,
            gradient_accumulation_steps=passes, learning_rate=1e-3, seed=passes,
        )  # fmt: skip
        learned.append(sft(config, tmp_path / name, base=base, rows=table))
        weights.append(policy(base, tmp_path / name)(torch.arange(5, 40)[None]).logits)
    first, second = learned
    assert first["steps"] == second["steps"] == 4 and first["tokens"] == second["tokens"]
    for name in ("loss.first", "loss.final"):
        assert second[name] == pytest.approx(first[name], rel=1e-4)
    assert torch.allclose(weights[0], weights[1], atol=1e-3)


def test_blocks_hold_every_row_once_within_the_longest() -> None:
    draw = random.Random(0)
    for _ in range(200):
        lengths = [draw.randint(2, draw.choice((20, 100))) for _ in range(draw.randint(1, 40))]
        longest = draw.choice((100, 150, 1000))
        found = packing.blocks(lengths, longest, draw.choice((8, 64, 4096)))
        assert sorted(i for block in found for i in block) == list(range(len(lengths)))
        assert all(sum(lengths[i] for i in block) <= longest for block in found)


def test_packing_pays_where_padding_is_left_or_passes_fit_together() -> None:
    draw = random.Random(0)
    short = [draw.randint(20, 200) for _ in range(2000)]
    assert packing.merged(short, 4, 8, 2048) == 8 and packing.merged(short, 4, 12, 600) == 3
    assert packing.merged([1000] * 2000, 4, 8, 1024) == 1
    assert packing.saves([20, 200, 1000, 60] * 4, 16, 2048, 4096)  # one batch, whatever its lengths
    assert not packing.saves([1000] * 2000, 16, 1024, 4096)  # one row a block, nothing padded
    assert not packing.saves(short, 16, 2048, 4096)  # like lengths go together


def test_auto_stays_off_on_a_cpu(base: BaseConfig) -> None:
    model: Any = load_model(base.model_copy(update={"quantization": "none"}))
    model.to("cpu")
    assert packing.decide("auto", model, [8, 64] * 50, 4, 8, 2048) == 0
    assert packing.decide(True, model, [8, 64] * 50, 4, 8, 2048) == 8
