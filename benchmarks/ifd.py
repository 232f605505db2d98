"""IFD scores: batched by length with the response-only pass shared, beside a plain loop over the rows.

    python -m benchmarks.ifd [ROWS] [MODEL_DIRECTORY ...]

Models: the quickstart's base and stories260K (../shared/data) by default, unquantised. Rows: the quickstart's, or
Alpaca's where it is there. Aim: at least 4 times as fast on a CPU, with the same scores.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

from align.models.base import BaseConfig
from align.models.trained import policy
from align.rules.losses import Scorer

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"


def rows(model: Path, n: int) -> list[tuple[str, str]]:
    """Prompts and responses of the kind that the model knows."""
    alpaca = SHARED / "alpaca" / "alpaca_5000.json"
    if model.parent.name == "quickstart" or not alpaca.exists():
        found = map(json.loads, (ROOT / "quickstart" / "data" / "instructions.jsonl").read_text().splitlines())
        return [(f"-- {r['question']}\n", r["answer"]) for r in found if r["answer"].strip()][:n]
    found = json.loads(alpaca.read_text())
    return [(f"{r['instruction']}\n{r['input']}\n", r["output"]) for r in found if r["output"].strip()][:n]


def plain(scorer: Scorer, model: object, data: list[tuple[str, str]]) -> np.ndarray:
    """As one writes it first: two forward passes per row."""
    import torch

    out = []
    for prompt, response in data:
        (head, tail), *_ = scorer.pairs([prompt], [response])
        losses = []
        for before in (head, (scorer.start,)):
            ids = torch.tensor([before + tail])
            labels = torch.tensor([(-100,) * len(before) + tail])
            with torch.inference_mode():
                losses.append(float(model(input_ids=ids, labels=labels).loss))  # type: ignore[operator]
        out.append(losses[0] / losses[1])
    return np.array(out)


def batched(scorer: Scorer, model: object, data: list[tuple[str, str]]) -> np.ndarray:
    scorer._model = model
    pairs = scorer.pairs(*zip(*data, strict=True))
    return scorer.losses(pairs, "after prompts") / scorer.losses(scorer.alone(pairs), "alone")


def main() -> None:
    arguments = sys.argv[1:]
    n = int(arguments.pop(0)) if arguments and arguments[0].isdigit() else 1000
    models = [Path(a) for a in arguments] or [ROOT / "quickstart" / "base", SHARED / "stories260K"]
    import torch

    cores = torch.get_num_threads()
    print(
        f"| model | rows | plain s ({cores} threads) | plain s (1 thread) | batched s | × | × | rows/s "
        "| largest difference |"
    )
    print("|" + "---|" * 9)
    for path in models:
        if not (path / "config.json").exists():
            print(f"| {path.name} is not here |")
            continue
        base = BaseConfig(path=path, quantization="none")
        data = rows(path, n)
        model = policy(base, None)
        took, scores = [], []
        for score, threads in ((plain, cores), (plain, 1), (batched, cores)):
            torch.set_num_threads(threads)
            score(Scorer(base, 512, 1024), model, data[:8])
            start = time.perf_counter()
            scores.append(score(Scorer(base, 512, 1024), model, data))
            took.append(time.perf_counter() - start)
        gap = np.abs(scores[0] / scores[2] - 1).max()
        print(
            f"| {path.parent.name}/{path.name} | {len(data)} | {took[0]:.1f} | {took[1]:.1f} | {took[2]:.1f} "
            f"| {took[0] / took[2]:.1f} | {took[1] / took[2]:.1f} | {len(data) / took[2]:,.0f} | {gap:.1e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
