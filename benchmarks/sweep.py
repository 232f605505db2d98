"""What a sweep costs: one more setting of DPO draws and grades the DPO arm only.

    python -m benchmarks.sweep [RECIPE [STORE]]

Runs the recipe up to what DPO starts from, then times a run of one `dpo.beta` and runs of three more, each a command of
its own. The figure is all four together as a multiple of the first. A STORE may hold the shared stages already, and no
DPO.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

ALIGN = [sys.executable, "-m", "flows.cli"]
BETAS = (0.05, 0.1, 0.2, 0.4)


def timed(*words: str) -> float:
    """Seconds that a command takes."""
    started = time.monotonic()
    subprocess.run([*ALIGN, *words], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def main() -> None:
    """Print seconds per run and the ratio."""
    recipe = sys.argv[1] if len(sys.argv) > 1 else "quickstart"
    store = Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp(prefix="sweep-"))
    where = ["--store", str(store)]
    shared = timed("run", recipe, "--select", "+sft_rs +sft_random +sft_unfiltered +pairs", *where)
    print(f"shared stages      {shared:7.1f} s")
    seconds = []
    for beta in BETAS:
        seconds.append(timed("run", recipe, "--set", f"dpo.beta={beta}", *where))
        print(f"dpo.beta = {beta:<7} {seconds[-1]:7.1f} s", flush=True)
    print(f"four runs          {sum(seconds):7.1f} s = {sum(seconds) / seconds[0]:.2f} x the first")


if __name__ == "__main__":
    main()
