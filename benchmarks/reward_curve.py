"""The reward model against what it starts from, over the number of pairs it is trained on.

    .venv/bin/python -m benchmarks.reward_curve [--store DIR] [--set reward.learning_rate=3e-4 ...]

Needs a store with a finished run of the quickstart. The pairs are those of more combinations of its graded samples, up
to 16 of a prompt, of the prompts that select draws for too; those of a fifth of all prompts are held out. Accuracy is
on the held-out pairs, the difference to the start is paired by prompt, with its 95 % interval.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from align import tables
from align.text import digest
from flows import show
from flows.recipe import load
from storage.store import Store
from tasks.pairs import PairsConfig, pairs
from tasks.reward import reward

SIZES = (50, 100, 200, 400, 800, 1600, 3200, 6400)


def main() -> None:
    """Print a line for each number of pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=Path(".align"))
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    options = parser.parse_args()
    recipe, store = load("quickstart", options.overrides), Store(options.store)
    folder = Path(tempfile.mkdtemp(prefix="align-reward-"))
    every = [pair for stage in ("sample", "resample") for pair in _pairs(recipe, store, folder / stage, stage)]
    held = [p for p in every if p["held_out"]]
    train = sorted((p for p in every if not p["held_out"]), key=lambda p: digest("order", p["pair_id"]))
    print(f"{len(train)} pairs to train on, {len(held)} held out of {len({p['row_id'] for p in held})} prompts")
    print("    pairs   before %   after %   gain, points")
    for n in [*(s for s in SIZES if s < len(train)), len(train)]:
        out = folder / str(n)
        out.mkdir()
        tables.write(out / "pairs.parquet", [*train[:n], *held], tables.PAIRS)
        m: dict[str, Any] = reward(
            recipe.reward, out, base=recipe.base, pairs=out / "pairs.parquet",
            adapter=show.artifact_of(store, None, "sft"),
        )  # fmt: skip
        gain = " ".join(f"{100 * m[name]:+.1f}" for name in ("gain", "gain.low", "gain.high"))
        print(f"{n:9} {100 * m['accuracy.held_out.initial']:9.1f} {100 * m['accuracy.held_out']:9.1f}   {gain}"
              f"  {m['gain.verdict']}", flush=True)  # fmt: skip


def _pairs(recipe: Any, store: Store, out: Path, stage: str) -> list[dict[str, Any]]:
    out.mkdir()
    config = PairsConfig(grader=recipe.pairs.grader, max_pairs_per_prompt=16, held_out=0.2)
    rows = show.artifact_of(store, None, "ingest") / "rows.parquet"
    pairs(config, out, rows=rows, samples=show.artifact_of(store, None, stage) / "samples.parquet")
    return tables.read(out / "pairs.parquet")


if __name__ == "__main__":
    main()
