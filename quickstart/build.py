"""Rebuilds everything in this folder from one seed: `python -m quickstart.build`."""

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from quickstart import world
from quickstart.defects import instructions
from quickstart.questions import collect

HERE = Path(__file__).parent
STEPS = 3000


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")
    return len(lines)


def data(out: Path, seed: int = 0) -> set[str]:
    """Write the warehouse and both data files; returns the queries that answer an evaluation question."""
    print(world.write(out / "warehouse", seed))
    con = world.connect(out / "warehouse")
    splits = collect(con, seed)
    held = [row for name in ("preference", "rejection", "evaluation") for row in splits[name]]
    print("questions.jsonl", _write(out / "data" / "questions.jsonl", held))
    rows = instructions(con, splits["sft"], splits["evaluation"], seed)
    print("instructions.jsonl", _write(out / "data" / "instructions.jsonl", rows))
    return {row["reference"] for row in splits["evaluation"]}


def main() -> None:
    """Data in seconds; the base model in about ten minutes on two cores (skip it with --data-only)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--data-only", action="store_true")
    args = parser.parse_args()
    held_out = data(args.out, args.seed)
    if not args.data_only:
        from quickstart.pretrain import pretrain, train_tokenizer

        tokenizer = train_tokenizer(held_out, args.seed)
        pretrain(tokenizer, held_out, args.out / "base", steps=args.steps, seed=args.seed)


if __name__ == "__main__":
    main()
