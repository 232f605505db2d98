"""What a process for each stage costs: the same stage called directly, and through the server that forks.

    python -m benchmarks.stage_process [--rounds 10]

The stage filters the quickstart's rows with the recipe's cheap rules, so that imports, threads and files are part of
it. Both ways have imported the libraries before; the figure is the difference of the medians.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows.processes import Processes
from flows.recipe import load
from flows.stage_server import warm
from tasks.filter import filter
from tasks.ingest import ingest


def main() -> None:
    """Print both medians and their difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    recipe = load("quickstart")
    config = recipe.filter.model_copy(
        update={"rules": tuple(r for r in recipe.filter.rules if r.rule in ("empty", "refusal", "duplicate"))}
    )
    folder = Path(tempfile.mkdtemp(prefix="stage-process-"))
    (folder / "ingest").mkdir()
    ingest(recipe.ingest, folder / "ingest")
    inputs: dict[str, Any] = {"rows": folder / "ingest" / "rows.parquet", "base": recipe.base}
    warm()
    with Processes() as processes:
        ways: dict[str, Callable[[Path], Any]] = {
            "a call": lambda out: filter(config, out, **inputs),
            "a process": lambda out: processes.run(filter, config, out, inputs),
        }
        found: dict[str, list[float]] = {name: [] for name in ways}
        for n in range(rounds + 1):
            for name, way in ways.items():
                out = folder / f"{name} {n}"
                out.mkdir()
                begun = time.monotonic()
                way(out)
                if n:  # the first waits for the server's imports
                    found[name].append(time.monotonic() - begun)
    call, process = (statistics.median(values) for values in found.values())
    print(f"a call {call:.3f} s, a process {process:.3f} s: {process - call:+.3f} s a stage ({rounds} rounds)")


if __name__ == "__main__":
    main()
