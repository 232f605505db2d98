"""Rows come and go while a batch is drawn: what is drawn is what one row at a time gives, and the batch stays full."""

import math
from pathlib import Path

import numpy as np
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
