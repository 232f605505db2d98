"""Every training stage against a bare trl script that does the same, and SFT packed against padded.

    python -m benchmarks.trainers [--rows 256] [--rounds 3]

On the quickstart's base with NF4 QLoRA and rows of many lengths up to 192 tokens. Contenders alternate; the medians of
the seconds within `Trainer.train` are compared. For DPO the stage reference, loading and all, is added to ours:
bare trl scores the reference in every step instead. The aim is a ratio of at most 1.03.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import gpu_training as training
from flows.recipe import load
from tasks.dpo import DpoConfig
from tasks.reward import RewardConfig
from tasks.sft import SftConfig

LONGEST = 192


def main() -> None:
    """Print seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    base, folder = load("quickstart").base, Path(tempfile.mkdtemp(prefix="align-trainers-"))
    rows, pairs = folder / "rows.parquet", folder / "pairs.parquet"
    training.write_rows(base, rows, options.rows, LONGEST)
    training.write_pairs(base, pairs, options.rows // 2, LONGEST)
    batch = {"per_device_train_batch_size": 16, "max_length": LONGEST}
    start = folder / "start"
    training.ours("sft", SftConfig(**batch, limit=32), start, base, rows, None)

    def contender(who: str, kind: training.Kind, config: training.Settings) -> Callable[[Path], float]:
        run = training.ours if who == "align" else training.bare
        data, adapter = (rows, None) if kind == "sft" else (pairs, start if kind == "dpo" else None)

        def seconds(out: Path) -> float:
            found = run(kind, config, out, base, data, adapter)
            return found.seconds + found.before

        return seconds

    padded = SftConfig(**batch, packing=False)
    contests: dict[str, dict[str, Callable[[Path], float]]] = {
        "sft": {who: contender(who, "sft", padded) for who in ("align", "bare trl")},
        "reward": {
            who: contender(who, "reward", RewardConfig(**batch, kind="head", init_from_sft=False))
            for who in ("align", "bare trl")
        },
        "dpo": {who: contender(who, "dpo", DpoConfig(**batch)) for who in ("align", "bare trl")},
        "packing": {
            "packed": contender("align", "sft", SftConfig(**batch, packing=True)),
            "padded": contender("align", "sft", padded),
        },
    }
    for name, contest in contests.items():
        times: dict[str, list[float]] = {who: [] for who in contest}
        for i in range(options.rounds + 1):  # the first round warms imports and caches up
            for who, run in contest.items():
                seconds = run(folder / f"{name}-{who.split()[0]}-{i}")
                times[who] += [seconds] if i else []
        (one, a), (two, b) = ((who, statistics.median(found)) for who, found in times.items())
        told = "; ".join(f"{who} {', '.join(f'{s:.2f}' for s in found)}" for who, found in times.items())
        print(f"{name:8} {one} / {two} = {a / b:.3f}   (seconds: {told})", flush=True)


if __name__ == "__main__":
    main()
