"""What a GPU does with this project: training, drawing, memory and the quickstart, beside what one would use instead.

    python -m benchmarks.gpu [--out gpu.json] [--minutes 10] [--tiny]

Made for one H100 or H200 and ten minutes: parts for which no time is left are named as left out. It has run with
`--tiny` on a CPU only (tests/test_benchmark_gpu.py): no figure of a GPU in this project comes from it yet. Weights are
random (a 1.5B and an 8B Llama are made on the spot), the tokenizer is the quickstart's with a padded vocabulary.

- training: QLoRA SFT, packed and not, and DPO at 2,048 tokens against a bare trl script: seconds within
  `Trainer.train`, tokens (without padding) per second, and model-FLOP utilisation (Chowdhery et al., 2022, appendix B,
  with frozen weights: 4 N + 12 L H Q T per token; a reference adds 2 N + 4 L H Q T) where the device's peak is known
- memory: `align memory` beside torch.cuda.max_memory_allocated, without the CUDA context
- drawing: the sampler against transformers' generate, and vLLM where it is installed
- two seeds of draws, and one seed in two batch sizes: equal texts, mean lengths
- the quickstart from raw rows to its result table

Prints Markdown tables under the device's name; --out gets the same as JSON.
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from align.errors import AlignError
from align.models.base import BaseConfig, load_chat
from align.models.engine import Prompt, Sampling
from align.models.generate import Sampler
from benchmarks import gpu_training as training
from benchmarks.sampling import compared, measure, prompts_of, random_llama
from flows.recipe import ROOT
from tasks.dpo import DpoConfig
from tasks.sft import SftConfig

SHAPES: dict[str, dict[str, Any]] = {
    "1.5B": {"vocab": 151_936, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
             "num_attention_heads": 12, "num_key_value_heads": 2},
    "8B": {"vocab": 128_256, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
           "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": False},
}  # fmt: skip
TINY = {
    "tiny": {
        "vocab": 2048,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
}
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense bf16 FLOP/s, from the data sheets
Row = dict[str, Any]


class Benchmark:
    """The parts, each a generator of rows; `tiny` makes everything as small as it goes."""

    def __init__(self, folder: Path, tiny: bool, deadline: float):
        self.folder, self.tiny, self.deadline = folder, tiny, deadline
        self.shapes = TINY if tiny else SHAPES
        self.longest, self.rows = (96, 8) if tiny else (2048, 64)
        self._bases: dict[str, BaseConfig] = {}

    def parts(self) -> dict[str, Callable[[], Iterator[Row]]]:
        """Title -> its rows, the cheapest first."""
        return {
            "Quickstart": self.quickstart,
            "Draws": self.draws,
            "Training and memory": self.training,
            "Drawing": self.drawing,
        }

    def base(self, name: str) -> BaseConfig:
        """The model with random weights, made at its first use."""
        if name not in self._bases:
            shape = {**self.shapes[name], "quantization": "nf4"}
            self._bases[name] = random_llama(self.folder / f"base-{name}", **shape)
        return self._bases[name]

    def quickstart(self) -> Iterator[Row]:
        """The chain on this device, as one would type it; the tiny one is only planned."""
        started = time.monotonic()
        words = ["plan" if self.tiny else "run", "quickstart", "--store", str(self.folder / "store")]
        done = subprocess.run([sys.executable, "-m", "flows.cli", *words], capture_output=True, text=True, cwd=ROOT)
        yield {"status": done.returncode, "seconds": time.monotonic() - started, "printed": done.stdout or done.stderr}

    def draws(self) -> Iterator[Row]:
        """Draws of the quickstart's base under two seeds, and under one in two batch sizes."""
        quick = BaseConfig(path=ROOT / "quickstart" / "base", chat_template=ROOT / "quickstart" / "chat_template.jinja")
        sampler, prompts = Sampler(quick), prompts_of(4 if self.tiny else 200)
        first = Sampling(n=4, max_new_tokens=16 if self.tiny else 96, temperature=1.0)
        a = sampler.draw(prompts, first)
        for name, changes in {"another seed": {"seed": 1}, "batch 32": {"batch_size": 32}}.items():
            b = sampler.draw(prompts, first.model_copy(update=changes))
            equal = sum(x.text == y.text for x, y in zip(a, b, strict=True)) / len(a)
            z = compared([s.n_tokens for s in a], [s.n_tokens for s in b])
            yield {"against": name, "samples": len(a), "equal texts": equal, "z of length": z}

    def training(self) -> Iterator[Row]:
        """SFT, SFT packed and DPO of each model: this project and a bare trl script, and the memory foretold."""
        for name in self.shapes:
            base, adapter = self.base(name), None
            batch = {"per_device_train_batch_size": 2 if self.tiny else 4, "max_length": self.longest}
            foretold = self._foretold(base, batch)
            data = self.folder / f"{name}.parquet"
            for what, kind, config in (
                ("sft", "sft", SftConfig(**batch, packing=False)),
                ("sft packed", "sft", SftConfig(**batch, packing=True)),
                ("dpo", "dpo", DpoConfig(**batch)),
            ):
                write = training.write_rows if kind == "sft" else training.write_pairs
                lengths = write(base, data, self.rows if kind == "sft" else self.rows // 2, self.longest)
                for who, run in (("align", training.ours), ("bare trl", training.bare)):
                    row: Row = {"model": name, "training": what, "by": who, "tokens": sum(lengths)}
                    out = self.folder / f"{name}-{what}-{who}".replace(" ", "-")
                    if time.monotonic() > self.deadline:
                        yield row | {"note": "left out: no time"}
                        continue
                    try:
                        got = run(kind, config, out, base, data, adapter if kind == "dpo" else None)  # type: ignore[arg-type]
                    except AlignError as error:
                        yield row | {"note": str(error)}
                        continue
                    if (what, who) == ("sft", "align"):
                        adapter = out
                    row |= {"steps": got.steps, "seconds": got.seconds, "tokens/s": sum(lengths) / got.seconds}
                    row |= {"reference s": got.before} if got.before else {}
                    twice = kind == "dpo" and not got.before  # whether steps score the reference too
                    row |= {"MFU": self._mfu(base, lengths, twice, got.seconds), "loss": got.losses[-1]}
                    yield row | {"peak GiB": got.peak / 2**30 or None, "foretold GiB": foretold[kind] / 2**30}

    def drawing(self) -> Iterator[Row]:
        """Tokens per second of each model and n, with responses of mean length 64 that end by chance."""
        for name in self.shapes:
            base = self.base(name).model_copy(update={"quantization": "none"})
            sampler, prompts = Sampler(base), prompts_of(2 if self.tiny else 64, shots=0 if self.tiny else 8)
            sampler.stop = list(range(1, int(self.shapes[name]["vocab"]), 64))
            for n in (2,) if self.tiny else (8,):
                if time.monotonic() > self.deadline:
                    yield {"model": name, "n": n, "note": "left out: no time"}
                    continue
                sampling = Sampling(n=n, temperature=1.0, max_new_tokens=8 if self.tiny else 256)
                if self._cuda:
                    self._torch.cuda.reset_peak_memory_stats()
                got = measure(sampler, prompts, sampling, [2] if self.tiny else [16, 64], 1)
                row = {"model": name, "n": n, **{f"{k}, tokens/s": v for k, v in got["tokens_per_second"].items()}}
                row |= {"ratio": got["ratio"], "z of length": got["z_length"]}
                if self._cuda:
                    row["peak GiB"] = self._torch.cuda.max_memory_allocated() / 2**30
                stop = sampler.stop
                del sampler
                yield row | {"vLLM, tokens/s": self._vllm(base, prompts, sampling, stop)}

    def _vllm(self, base: BaseConfig, prompts: list[Prompt], sampling: Sampling, stop: list[int]) -> float | None:
        """Tokens per second of vLLM on the same prompts; None where it is not installed, or there is no CUDA."""
        if not self._cuda or find_spec("vllm") is None:
            return None
        vllm = import_module("vllm")

        self._clean()
        engine = vllm.LLM(model=str(base.path), gpu_memory_utilization=0.8, max_model_len=4096)
        asked = [{"prompt_token_ids": ids} for ids in load_chat(base).prompts([p.messages for p in prompts])]
        how = vllm.SamplingParams(
            n=sampling.n, temperature=1.0, max_tokens=sampling.max_new_tokens, stop_token_ids=stop, detokenize=False
        )
        started = time.monotonic()
        found = engine.generate(asked, how)
        tokens = sum(len(o.token_ids) for request in found for o in request.outputs)
        return tokens / (time.monotonic() - started)

    def _foretold(self, base: BaseConfig, batch: dict[str, int]) -> dict[str, int]:
        """Bytes at the peak that `align memory` says for sft and dpo with these settings, without the CUDA context."""
        given = [f"base.path={base.path}"]
        given += [f"{stage}.{key}={value}" for stage in ("sft", "dpo") for key, value in batch.items()]
        words = [
            sys.executable,
            "-m",
            "flows.cli",
            "memory",
            "quickstart",
            "--json",
            *(w for g in given for w in ("--set", g)),
        ]
        printed = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=True).stdout
        return {k: v["total"] - v["overhead"] for k, v in json.loads(printed).items() if k in ("sft", "dpo")}

    def _mfu(self, base: BaseConfig, lengths: list[int], reference: bool, seconds: float) -> float | None:
        """Model FLOP per second as a share of the device's peak; None where that is not known."""
        peak = next((v for k, v in PEAK.items() if self._cuda and k in self._torch.cuda.get_device_name()), None)
        if peak is None or base.path is None:
            return None
        c = json.loads((base.path / "config.json").read_text())
        hidden, kv = c["hidden_size"], c["hidden_size"] * c["num_key_value_heads"] // c["num_attention_heads"]
        layer = 2 * hidden * (hidden + kv) + 3 * hidden * c["intermediate_size"]
        weights = c["num_hidden_layers"] * layer + hidden * c["vocab_size"]
        per_token, per_square = (6, 16) if reference else (4, 12)
        flop = per_token * weights * sum(lengths)
        flop += per_square * c["num_hidden_layers"] * hidden * sum(n * n for n in lengths)
        return flop / seconds / peak

    @property
    def _torch(self) -> Any:
        import torch

        return torch

    @property
    def _cuda(self) -> bool:
        return bool(self._torch.cuda.is_available())

    def _clean(self) -> None:
        gc.collect()
        if self._cuda:
            self._torch.cuda.empty_cache()

    def name(self) -> str:
        """What the tables stand under."""
        return self._torch.cuda.get_device_name() if self._cuda else "CPU"


def markdown(rows: list[Row]) -> str:
    """A table with the columns of all rows; what a program printed follows it as it is."""
    columns = list(dict.fromkeys(c for row in rows for c in row if c != "printed"))
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(_cell(row.get(c)) for c in columns) + " |" for row in rows]
    return "\n".join([*lines, *(f"\n```\n{row['printed'].rstrip()}\n```" for row in rows if "printed" in row)])


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return "" if value is None else str(value)


def main() -> None:
    """Run every part, print its table as soon as it is there, and write all rows to --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="tiny architectures and few steps: shows that it runs")
    parser.add_argument("--out", type=Path, help="file for the rows as JSON")
    parser.add_argument("--minutes", type=float, default=10.0, help="no measurement begins after so many")
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory(prefix="gpu-") as folder:
        benchmark = Benchmark(Path(folder), options.tiny, deadline)
        found: dict[str, Any] = {"device": benchmark.name(), "tiny": options.tiny, "parts": {}}
        print(f"# {found['device']}{' (tiny)' if options.tiny else ''}", flush=True)
        for title, part in benchmark.parts().items():
            rows = found["parts"][title] = list(part())
            benchmark._clean()
            print(f"\n## {title}\n\n{markdown(rows)}", flush=True)
            if options.out:
                options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
