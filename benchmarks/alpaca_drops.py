"""Fifty random rows of Alpaca that the rules drop, with reason and evidence, for a person to judge.

.venv/bin/python -m benchmarks.alpaca_drops [--data FILE] > benchmarks/alpaca_drops.md
"""

import argparse
import json
import random
import tempfile
from collections import Counter
from pathlib import Path

from align import tables
from align.models.base import BaseConfig
from tasks.filter import FilterConfig, filter
from tasks.ingest import IngestConfig, Source, ingest

DATA = Path(__file__).parents[2] / "shared" / "data" / "alpaca" / "alpaca_5000.json"
BASE = Path(__file__).parents[1] / "quickstart" / "base"  # only its tokenizer counts tokens


def cell(text: str | None, width: int = 160) -> str:
    """A text as one cell of a Markdown table."""
    words = " ".join((text or "").split()).replace("|", "\\|")
    return words if len(words) <= width else words[: width // 2] + " … " + words[-width // 2 :]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="align-alpaca-"))
    for name in ("ingest", "filter"):
        (folder / name).mkdir()
    split = {"sft": 1.0, "preference": 0.0, "rejection": 0.0, "evaluation": 0.0}
    ingest(IngestConfig(sources={"alpaca": Source(path=options.data)}, split=split), folder / "ingest")
    rows = folder / "ingest" / "rows.parquet"
    filter(FilterConfig(), folder / "filter", rows=rows, base=BaseConfig(path=BASE))
    found = tables.read(folder / "filter" / "instructions.parquet")
    dropped = [row for row in found if not row["kept"]]
    print(f"# Fifty random drops of {len(dropped)} ({len(found)} Alpaca rows, the default rules)\n")
    print("Made by `python -m benchmarks.alpaca_drops`. The rows are excerpts of Stanford Alpaca (CC BY-NC 4.0).\n")
    print("| rule | rows |\n|---|---|")
    for reason, n in Counter(row["reason"] for row in dropped).most_common():
        print(f"| {reason} | {n} |")
    print("\n| # | rule | evidence | prompt | response |\n|---|---|---|---|---|")
    for i, row in enumerate(random.Random(0).sample(dropped, min(50, len(dropped))), 1):
        evidence = ", ".join(f"{k}: {v}" for k, v in json.loads(row["evidence"]).items())
        print(f"| {i} | {row['reason']} | {cell(evidence, 100)} | {cell(row['prompt'])} | {cell(row['response'])} |")


if __name__ == "__main__":
    main()
