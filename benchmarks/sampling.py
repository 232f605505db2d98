"""The sampler against transformers' `generate`: tokens a second on the same prompts, and whether lengths are the same.

    .venv/bin/python -m benchmarks.sampling [--prompts 48] [--rounds 3] [--n 4 8 16] [--batches 16 64]

Two models: the quickstart's base, and a Llama of some 30M parameters with random weights and a vocabulary of 32,000.
`generate(num_return_sequences=n)` gets so many prompts at a time, sorted by length; the better of the batches counts.
Contenders alternate, and the medians over the rounds are compared: wall-clock on a GPU; on a CPU the process's own CPU
time on one thread, which a busy machine does not change. What ends a response is the same for both: the
quickstart's own end of turn, and for the random model 1 in 64 of its vocabulary, so that lengths vary as they do in
life. Distribution: z is how many standard errors the mean lengths are apart; tests/test_generate_rows.py holds every
draw against a sampler of one row at a time, and all against the exact distribution. Aims: n = 8 at least 2 and 3.5
times as fast.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from align.models.base import BaseConfig
from align.models.engine import Prompt, Sampling
from align.models.generate import Sampler
from flows.recipe import ROOT

QUICKSTART = ROOT / "quickstart"
AIMS = {"quickstart": 2.0, "random 30M": 3.5}


def prompts_of(count: int, *, shots: int = 0) -> list[Prompt]:
    """The first questions of the quickstart; with `shots` each stands behind so many others."""
    lines = (QUICKSTART / "data" / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    questions = [json.loads(line)["question"] for line in lines]
    return [
        Prompt(f"q{i}", [{"role": "user", "content": "\n".join(questions[i : i + shots + 1])}]) for i in range(count)
    ]


def random_llama(folder: Path, *, vocab: int = 32_000, quantization: Any = "none", **shape: Any) -> BaseConfig:
    """A Llama with random weights beside the quickstart's tokenizer, whose vocabulary is padded to `vocab`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shutil.copytree(QUICKSTART / "base", folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    small = {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 6}
    torch.manual_seed(0)
    config = LlamaConfig(
        **{**small, "max_position_embeddings": 4096, "tie_word_embeddings": True, **shape}, vocab_size=vocab,
        bos_token_id=None, eos_token_id=1, pad_token_id=0, dtype=torch.bfloat16,
    )  # fmt: skip
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        LlamaForCausalLM._from_config(config).save_pretrained(folder)
    return BaseConfig(path=folder, chat_template=QUICKSTART / "chat_template.jinja", quantization=quantization)


def by_generate(sampler: Sampler, prompts: list[Prompt], sampling: Sampling, batch: int) -> list[int]:
    """Lengths of the responses that transformers draws, `batch` prompts at a time."""
    import torch

    encoded = sorted(sampler.chat.prompts([p.messages for p in prompts]), key=len)
    lengths: list[int] = []
    stop = torch.tensor(sampler.stop, device=sampler.model.device)
    for at in range(0, len(encoded), batch):
        part = encoded[at : at + batch]
        width = max(map(len, part))
        ids = torch.full((len(part), width), sampler.chat.pad_id)
        for row, prompt in enumerate(part):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
        out = sampler.model.generate(
            ids.to(sampler.model.device), attention_mask=(ids != sampler.chat.pad_id).long().to(sampler.model.device),
            do_sample=True, temperature=sampling.temperature, top_p=sampling.top_p, top_k=0,
            num_return_sequences=sampling.n, max_new_tokens=sampling.max_new_tokens,
            eos_token_id=sampler.stop, pad_token_id=sampler.chat.pad_id,
        )[:, width:]  # fmt: skip
        ended = torch.isin(out, stop)
        first = torch.where(ended.any(1), ended.int().argmax(1) + 1, out.shape[1])
        lengths += first.tolist()
    return lengths


def by_align(sampler: Sampler, prompts: list[Prompt], sampling: Sampling) -> list[int]:
    """Lengths of the responses that this project draws."""
    return [s.n_tokens for s in sampler.draw(prompts, sampling)]


def compared(ours: list[int], theirs: list[int]) -> float:
    """How many standard errors the mean lengths are apart."""
    error = (statistics.variance(ours) / len(ours) + statistics.variance(theirs) / len(theirs)) ** 0.5
    return abs(statistics.mean(ours) - statistics.mean(theirs)) / max(error, 1e-9)


def measure(
    sampler: Sampler, prompts: list[Prompt], sampling: Sampling, batches: list[int], rounds: int
) -> dict[str, Any]:
    """Tokens per second of each contender on the same prompts (medians over the rounds), and what they drew."""
    import torch

    cuda = torch.cuda.is_available()
    if not cuda:
        torch.set_num_threads(1)
    clock = time.monotonic if cuda else time.process_time
    contenders: dict[str, Callable[[Sampling], list[int]]] = {"align": partial(by_align, sampler, prompts)}
    contenders |= {f"generate {b}": partial(by_generate, sampler, prompts, batch=b) for b in batches}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    lengths: dict[str, list[int]] = {name: [] for name in contenders}
    for round_ in range(rounds):
        for name, run in contenders.items():
            seeded = sampling.model_copy(update={"seed": round_})
            started = clock()
            lengths[name] += run(seeded)
            seconds[name].append(clock() - started)
    speed = {name: sum(lengths[name]) / rounds / statistics.median(s) for name, s in seconds.items()}
    best = max((name for name in speed if name != "align"), key=speed.__getitem__)
    return {
        "n": sampling.n,
        "tokens_per_second": speed,
        "best": best,
        "ratio": speed["align"] / speed[best],
        "mean_length": statistics.mean(lengths["align"]),
        "z_length": compared(lengths["align"], [n for k, v in lengths.items() if k != "align" for n in v]),
    }


def models(folder: Path, count: int) -> dict[str, tuple[Sampler, list[Prompt], int]]:
    """Name -> the sampler, its prompts, and the longest response."""
    quick = BaseConfig(
        path=QUICKSTART / "base", chat_template=QUICKSTART / "chat_template.jinja", quantization="none"
    )  # fmt: skip
    large = Sampler(random_llama(folder / "llama"))
    large.stop = list(range(1, 32_000, 64))
    return {
        "quickstart": (Sampler(quick), prompts_of(count), 96),
        "random 30M": (large, prompts_of(count, shots=3), 96),
    }


def main() -> None:
    """Print a table: tokens per second of each contender, the ratio, and the distance of the mean lengths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--n", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--models", nargs="+", default=list(AIMS))
    options = parser.parse_args()
    names = ["align", *(f"generate {b}" for b in options.batches)]
    print(f"| model | n | {' | '.join(f'{n}, tokens/s' for n in names)} | ratio | aim | tokens each | z |")
    print("|---" * (len(names) + 6) + "|", flush=True)
    with tempfile.TemporaryDirectory(prefix="sampling-") as folder:
        for model, (sampler, prompts, longest) in models(Path(folder), options.prompts).items():
            if model not in options.models:
                continue
            for n in options.n:
                sampling = Sampling(n=n, temperature=1.0, max_new_tokens=longest)
                got = measure(sampler, prompts, sampling, options.batches, options.rounds)
                speeds = " | ".join(f"{got['tokens_per_second'][name]:,.0f}" for name in names)
                aim = AIMS[model] if n == 8 else ""
                print(
                    f"| {model} | {n} | {speeds} | {got['ratio']:.2f} | {aim} | {got['mean_length']:.1f} | "
                    f"{got['z_length']:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
