"""The GPU benchmark runs from end to end on a CPU with `--tiny`: no GPU is needed to know that it is sound."""

import json
import subprocess
import sys
from pathlib import Path

from flows.recipe import ROOT


def test_the_gpu_benchmark_runs_tiny(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--out", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    parts = json.loads(file.read_text())["parts"]
    assert done.stdout.startswith("# ") and all(f"## {title}" in done.stdout for title in parts)
    (chain,) = parts["Quickstart"]
    assert chain["status"] == 0 and "dpo" in chain["printed"]
    seed, batch = parts["Draws"]
    assert batch["equal texts"] == 1 > seed["equal texts"]
    rows = {(r["training"], r["by"]): r for r in parts["Training and memory"]}
    assert set(rows) == {(t, b) for t in ("sft", "sft packed", "dpo") for b in ("align", "bare trl")}
    for what in ("sft", "dpo"):  # both do the same number of steps over the same tokens
        a, b = rows[what, "align"], rows[what, "bare trl"]
        assert a["steps"] == b["steps"] > 0 and a["tokens/s"] > 0 and b["tokens/s"] > 0
        assert a["foretold GiB"] > 0 and abs(a["loss"] - b["loss"]) < 0.2
    (drawn,) = parts["Drawing"]
    assert drawn["align, tokens/s"] > 0 and drawn["generate 2, tokens/s"] > 0 and drawn["ratio"] > 0
