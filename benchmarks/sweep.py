"""What a sweep costs: one more setting of DPO draws and grades the DPO arm only, and all share one process server.

    python -m benchmarks.sweep [RECIPE [STORE]]

Runs the recipe up to what DPO starts from; from copies of that store then a run of one `dpo.beta`, and a sweep of four.
The figure is the sweep as a multiple of the run. A STORE may hold the shared stages already, and no DPO.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ALIGN = [sys.executable, "-m", "flows.cli"]
BETAS = ("0.05", "0.1", "0.2", "0.4")


def timed(*words: str) -> float:
    """Seconds that a command takes."""
    started = time.monotonic()
    subprocess.run([*ALIGN, *words], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def main() -> None:
    """Print seconds of the run and of the sweep, and the ratio."""
    recipe = sys.argv[1] if len(sys.argv) > 1 else "quickstart"
    folder = Path(tempfile.mkdtemp(prefix="sweep-"))
    store = Path(sys.argv[2]) if len(sys.argv) > 2 else folder / "shared"
    shared = timed("run", recipe, "--select", "+sft_rs +sft_random +sft_unfiltered +pairs", "--store", str(store))
    print(f"shared stages   {shared:7.1f} s")
    for copy in ("one", "four"):
        shutil.copytree(store, folder / copy)
    one = timed("run", recipe, "--set", f"dpo.beta={BETAS[0]}", "--store", str(folder / "one"))
    print(f"a run of one    {one:7.1f} s", flush=True)
    four = timed("sweep", recipe, "--set", f"dpo.beta={','.join(BETAS)}", "--store", str(folder / "four"))
    print(f"a sweep of four {four:7.1f} s = {four / one:.2f} x the run of one")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
