"""Rows come and go while a batch is drawn: what is drawn is what one row at a time gives, and the batch stays full."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from align.models.base import BaseConfig
from align.models.draws import key
from align.models.engine import Prompt, Sample, Sampling
from align.models.generate import Sampler

WORDS = ["moons ", "orders in Seoul ", "주문은 ", "2 + 3 "]
PROMPTS = [
    Prompt(f"p{i}", [{"role": "user", "content": "How many " + WORDS[i % 4] * (1 + 5 * i % 7) + f"{i}?"}])
    for i in range(12)
]
NUCLEUS = {"temperature": 1.3, "top_p": 0.8}


@pytest.fixture(scope="module")
def sampler(base: BaseConfig, adapter: Path) -> Sampler:
    return Sampler(base, adapter)


def at(number: int, step: int) -> float:
    """The random number of a key at a step: SplitMix64 in Python's integers."""
    mask = (1 << 64) - 1
    z = (number + (step + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return ((z ^ (z >> 31)) >> 40) / (1 << 24)


def alone(sampler: Sampler, prompt: Prompt, index: int, sampling: Sampling) -> tuple[str, str, int]:
    """Text, finish reason and tokens of one sample, drawn by itself: no cache, no batch, the whole read at each step."""
    ids = list(sampler.chat.prompts([prompt.messages])[0])
    start, number, reason = len(ids), key(sampling.seed, prompt.row_id, index), "truncated"
    for step in range(min(sampling.max_new_tokens, sampler.context - start)):
        with torch.no_grad():
            logits = sampler.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].double()
        if sampling.temperature == 0:
            token = int(logits.argmax())
        else:
            probs = torch.softmax(logits / sampling.temperature, -1)
            order = torch.arange(len(probs)) if sampling.top_p == 1 else probs.argsort(descending=True)
            cdf = probs[order].cumsum(0)
            inside = len(cdf) if sampling.top_p == 1 else int((cdf < sampling.top_p).sum()) + 1
            token = int(order[int((cdf[:inside] <= at(number, step) * float(cdf[inside - 1])).sum())])
        ids.append(token)
        if token in sampler.stop:
            reason = "stop"
            break
    drawn = ids[start:]
    text = sampler.chat.tokenizer.decode(drawn[: len(drawn) - (reason == "stop")], skip_special_tokens=True)
    return text, reason, len(drawn)


def facts(samples: list[Sample]) -> list[tuple[str, str, int]]:
    return [(s.text, s.finish_reason, s.n_tokens) for s in samples]


@pytest.mark.parametrize("options", [{"temperature": 0, "n": 1}, {"temperature": 1.0}, NUCLEUS])
@pytest.mark.parametrize("batch_size", [1, 5, 256])
def test_a_batch_draws_what_one_row_at_a_time_draws(sampler: Sampler, options: dict, batch_size: int) -> None:
    sampling = Sampling(**{"n": 3, "max_new_tokens": 14, "seed": 7, "batch_size": batch_size, **options})
    want = [alone(sampler, p, i, sampling) for p in PROMPTS for i in range(sampling.n)]
    assert facts(sampler.draw(PROMPTS, sampling)) == want
    assert {reason for _, reason, _ in want} == {"stop", "truncated"} or options.get("temperature") == 0


def test_a_sliding_window_draws_it_too(tmp_path: Path) -> None:
    sampler = Sampler(tiny.tiny_base(tmp_path, window=12))
    sampling = Sampling(n=3, max_new_tokens=10, batch_size=5, temperature=1.0)
    want = [alone(sampler, p, i, sampling) for p in PROMPTS for i in range(sampling.n)]
    assert facts(sampler.draw(PROMPTS, sampling)) == want


def passes(sampler: Sampler, sampling: Sampling, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Rows and tokens of every forward pass of a draw."""
    seen, forward = [], sampler.model.forward

    def watched(*args: Any, **kwargs: Any) -> Any:
        seen.append(tuple(kwargs["input_ids"].shape))
        return forward(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(sampler.model, "forward", watched)
        sampler.draw(PROMPTS, sampling)
    return seen


@pytest.mark.parametrize("temperature", [0.7, 1.5])
def test_the_batch_stays_full_while_prompts_wait(
    sampler: Sampler, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = Sampling(n=16, max_new_tokens=14, batch_size=16, temperature=temperature)
    seen = passes(sampler, sampling, monkeypatch)
    last = max(i for i, (_, tokens) in enumerate(seen) if tokens > 1)
    steps = [rows for rows, tokens in seen[:last] if tokens == 1]
    assert max(rows for rows, _ in seen) <= 16
    assert sum(steps) / len(steps) > 0.6 * 16  # a batch at a time: .3 to .4


def test_more_samples_than_places_wait_for_one(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    many = {"n": 40, "max_new_tokens": 8, "temperature": 1.5}
    assert max(rows for rows, _ in passes(sampler, Sampling(**many, batch_size=6), monkeypatch)) == 6
    few, all_ = (facts(sampler.draw(PROMPTS[:3], Sampling(**many, batch_size=b))) for b in (6, 256))
    assert few == all_


def test_keys_and_values_take_the_places_and_no_more(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: Counter[tuple[int, ...]] = Counter()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if "new_zeros" in str(func):
                shapes[tuple(args[1])] += 1
            return func(*args, **(kwargs or {}))

    with Watch():
        sampler.draw(PROMPTS, Sampling(n=8, max_new_tokens=100, batch_size=24, temperature=1.5))
    assert {shape[0] for shape in shapes} == {24}
    assert set(shapes.values()) == {4}  # keys and values of two layers, once for each length
    assert sorted({shape[2] for shape in shapes}) in ([64, 128], [128], [64, 128, 192])


def test_the_host_waits_for_the_device_as_often_whatever_the_layers(tmp_path: Path) -> None:
    waits: dict[int, Counter[str]] = {}

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if any(name in str(func) for name in ("nonzero", "_local_scalar_dense", "masked_select", "unique")):
                waits[layers][str(func)] += 1
            return func(*args, **(kwargs or {}))

    for layers in (2, 5):
        waits[layers] = Counter()
        sampler = Sampler(tiny.tiny_base(tmp_path / str(layers), layers=layers))
        with Watch():
            sampler.draw(PROMPTS[:1], Sampling(n=4, max_new_tokens=1, batch_size=4))
            sampler.draw(PROMPTS[:3], Sampling(n=4, max_new_tokens=6, temperature=1.5, batch_size=12))
    assert sum(waits[2].values()) <= 12 and abs(sum(waits[2].values()) - sum(waits[5].values())) <= 2


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_draws_have_the_models_distribution(sampler: Sampler, top_p: float) -> None:
    """Chi-squared over the first two tokens of 12,000 samples of a prompt, that come and go in 64 places."""
    from scipy.stats import chisquare

    sampling = Sampling(n=12_000, temperature=1.2, top_p=top_p, max_new_tokens=2, batch_size=64)
    drawn: Counter[tuple[int, ...]] = Counter()
    read = sampler.chat.read

    def seen(tokens: list[list[int]]) -> list[tuple[str, str | None]]:
        drawn.update(map(tuple, tokens))
        return read(tokens)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampler.chat, "read", seen)
        sampler.draw(PROMPTS[:1], sampling)

    def following(rows: list[list[int]]) -> list[dict[int, float]]:
        with torch.no_grad():
            probs = torch.softmax(sampler.model(input_ids=torch.tensor(rows)).logits[:, -1].double() / 1.2, -1)
        found = []
        for row in probs:
            order = row.argsort(descending=True)
            inside = int((row[order].cumsum(0) < top_p).sum()) + 1 if top_p < 1 else len(order)
            kept = order[:inside]
            found.append(dict(zip(kept.tolist(), (row[kept] / row[kept].sum()).tolist(), strict=True)))
        return found

    start = sampler.chat.prompts([PROMPTS[0].messages])[0]
    firsts = following([start])[0]
    expected: dict[tuple[int, ...], float] = {}
    for (first, p), seconds in zip(firsts.items(), following([[*start, t] for t in firsts]), strict=True):
        for second, q in {0: 1.0}.items() if first in sampler.stop else seconds.items():
            name = () if first in sampler.stop else (first,) if second in sampler.stop else (first, second)
            expected[name] = expected.get(name, 0) + p * q
    assert set(drawn) <= set(expected) and sum(drawn.values()) == 12_000
    often = [name for name, p in expected.items() if 12_000 * p >= 5]
    rest = 1 - sum(expected[name] for name in often)
    counts = [*(drawn[name] for name in often), 12_000 - sum(drawn[name] for name in often)]
    assert len(often) > 5
    shares = [*(expected[name] for name in often), rest]
    assert chisquare(counts, [12_000 * p for p in shares]).pvalue > 1e-3
