"""Cold, warm and per-stage times of a recipe, its peak memory, and how long `align plan` takes.

    .venv/bin/python benchmarks/pipeline.py [RECIPE] [--store DIR]

The cold run starts from an empty store. Every command is a process of its own, as a user would start it; peak resident
memory is the largest sum over the process and its children, sampled four times a second.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil


def timed(words: list[str]) -> tuple[float, float, str]:
    """Run a command: seconds, peak resident GB of its process tree, stdout."""
    started = time.monotonic()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    root, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            peak = max(peak, sum(p.memory_info().rss for p in [root, *root.children(recursive=True)]))
        time.sleep(0.25)
    seconds = time.monotonic() - started
    assert process.stdout is not None
    out = process.stdout.read()
    if process.returncode:
        sys.exit(f"{' '.join(words)} failed with status {process.returncode}")
    return seconds, peak / 1e9, out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="quickstart")
    parser.add_argument("--store", type=Path)
    options = parser.parse_args()
    store = options.store or Path(tempfile.mkdtemp(prefix="align-benchmark-"))
    align = str(Path(sys.executable).with_name("align"))
    cold, peak, out = timed([align, "run", options.recipe, "--store", str(store), "--json"])
    warm, _, _ = timed([align, "run", options.recipe, "--store", str(store)])
    plan, _, _ = timed([align, "plan", options.recipe, "--store", str(store)])
    stages = json.loads(out)["stages"]
    for stage in stages:
        print(f"{stage['stage']:16}{stage['status']:8}{stage['seconds']:8.1f} s")
    work = sum(stage["seconds"] for stage in stages)
    print(f"{'stages':24}{work:8.1f} s")
    print(f"{'cold run':24}{cold:8.1f} s   ({cold / work:.2f} x its stages), peak {peak:.2f} GB resident")
    print(f"{'warm run':24}{warm:8.2f} s   (1/{cold / warm:.0f} of cold)")
    print(f"{'plan':24}{plan:8.2f} s")


if __name__ == "__main__":
    main()
