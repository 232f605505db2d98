"""Batches that are auto take what fits on a device, the caches that fork take no more, and no second model is held."""

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import tiny

from align.models import memory_inference, reward_model
from align.models.base import BaseConfig, load_chat
from align.models.engine import Prompt, Sample, Sampling
from align.models.generate import Sampler
from align.models.memory_inference import batches, cache_bytes, kv_cache, rows_that_fit
from align.models.reward_model import load_reward, score
from tasks import reward as stage
from tasks.reward import RewardConfig, reward
from tasks.select import SelectConfig

PROMPTS = [Prompt(f"p{i}", [{"role": "user", "content": f"Is it {'far ' * (3 * i)}?"}]) for i in range(12)]


@pytest.fixture(scope="module")
def sampler(base: BaseConfig, adapter: Path) -> Sampler:
    return Sampler(base, adapter)


@pytest.fixture
def places_seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each drawing has places for."""
    seen: list[int] = []
    run = Sampler._run

    def spy(self: Sampler, prompts: Any, waiting: Any, places: int, *args: Any) -> Any:
        seen.append(places)
        return run(self, prompts, waiting, places, *args)

    monkeypatch.setattr(Sampler, "_run", spy)
    return seen


def drawn(sampler: Sampler, **settings: Any) -> list[Sample]:
    return sampler.draw(PROMPTS, Sampling(n=4, temperature=1.0, max_new_tokens=8, **settings))


def test_what_fits_is_drawn_together_and_draws_stay_the_same(
    sampler: Sampler, places_seen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = drawn(sampler)
    assert places_seen == [48]  # a CPU has no memory to ask for: all up to 256
    assert drawn(sampler, batch_size=256) == whole
    places_seen.clear()
    for budget in (1_500_000, 700_000, 1):
        monkeypatch.setattr(memory_inference, "free_bytes", lambda budget=budget: budget)
        assert drawn(sampler) == whole
    assert 48 > places_seen[0] > places_seen[1] > places_seen[2] == 1


def test_longer_rows_come_in_smaller_batches() -> None:
    lengths = [1, 1, 2, 2, 4, 4, 8]
    assert batches(range(7), lambda i: 8 // lengths[i]) == [[0, 1, 2, 3], [4, 5], [6]]


def test_a_number_is_taken_at_its_word(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rows_that_fit("auto", 256) is None
    monkeypatch.setattr(memory_inference, "free_bytes", lambda: 1000)
    assert rows_that_fit(7, 256) is None
    fit = rows_that_fit("auto", 256)
    assert fit is not None and [fit(row) for row in (0.1, 100, 1e9)] == [256, 9, 1]


def test_scores_do_not_depend_on_what_fits(
    base: BaseConfig, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    settings: dict[str, Any] = {"learning_rate": 1e-4, "max_length": 128, "limit": 24, "kind": "likelihood"}
    reward(RewardConfig(**settings), tmp_path / "out", base=base, pairs=tiny.pairs(tmp_path / "p", 24), adapter=adapter)
    chat, (model, kind) = load_chat(base), load_reward(base, tmp_path / "out")
    conversations: list[Any] = [[{"role": "user", "content": "no " * i}] for i in range(70)]
    examples, sizes = chat.examples(conversations, ["It is."] * 70), list[int]()
    inner = reward_model.rewards

    def spy(*given: Any) -> Any:
        sizes.append(len(given[2]))
        return inner(*given)

    monkeypatch.setattr(reward_model, "rewards", spy)
    whole = score(model, kind, chat, examples)
    assert sizes == [64, 6] and SelectConfig().batch_size == "auto"
    monkeypatch.setattr(memory_inference, "free_bytes", lambda: 3_000_000)
    sizes.clear()
    assert score(model, kind, chat, examples) == pytest.approx(whole, abs=1e-4)
    assert sizes == sorted(sizes[:-1], reverse=True) + sizes[-1:] and 1 < sizes[0] < 64


def test_the_trained_reward_model_is_gone_before_it_is_loaded_again(
    base: BaseConfig, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    models: list[weakref.ref[Any]] = []
    alive: list[int] = []
    sizes: list[int] = []

    def built(*args: Any, **options: Any) -> Any:
        model = reward_model.reward_base(*args, **options)
        models.append(weakref.ref(model))
        return model

    def loaded(*args: Any) -> Any:
        alive.append(sum(ref() is not None for ref in models))
        return load_reward(*args)

    inner = reward_model.rewards
    monkeypatch.setattr(stage, "reward_base", built)
    monkeypatch.setattr(stage, "load_reward", loaded)

    def spy(*given: Any) -> Any:
        sizes.append(len(given[2]))
        return inner(*given)

    monkeypatch.setattr(reward_model, "rewards", spy)
    gc.disable()  # that it is gone must not be luck
    try:
        reward(
            RewardConfig(learning_rate=1e-4, max_length=128, per_device_eval_batch_size=3), tmp_path / "out",
            base=base, pairs=tiny.pairs(tmp_path / "pairs.parquet", 24), adapter=adapter,
        )  # fmt: skip
    finally:
        gc.enable()
    assert len(models) == 1 and alive == [0]
    assert max(sizes) == 3


def test_a_row_of_the_cache_is_counted_layer_by_layer(sampler: Sampler) -> None:
    layers = cache_bytes(sampler.model)
    assert sum(size for size, _ in layers) == 2 * 2 * 2 * 16 * 4  # keys and values, 2 layers, 2 heads of 16, in fp32
    assert kv_cache(layers, 10) == 10 * sum(size for size, _ in layers) + 10 * layers[0][0]
