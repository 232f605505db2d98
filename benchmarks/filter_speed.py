"""Speed and memory of the rule-based filter on 10k, 100k and 1M synthetic rows, one process each.

    python -m benchmarks.filter_speed [ROWS ...]

Aim: at least 20,000 rows a second, growing linearly, under 4 GB.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import peak
from benchmarks.synthetic import write

SIZES = (10_000, 100_000, 1_000_000)


def one(rows: Path) -> None:
    """Run the filter in this process and print what it took as JSON."""
    import tasks.filter as stage
    from align.models.base import BaseConfig
    from align.rules.catalogue import DEFAULT

    spent = {}
    in_order = stage._in_order

    def timed(config, pool):
        for name, drops in in_order(config, pool):
            start = time.process_time()
            found = list(drops)
            spent[name] = round(time.process_time() - start, 2)
            yield name, iter(found)

    stage._in_order = timed
    # lengths in characters: the tokenizer would be that of a model, and no part of the rules
    rules = [r.model_copy(update={"unit": "characters", "max_prompt": 8000, "max_response": 8000})
             if r.rule == "length" else r for r in DEFAULT]  # fmt: skip
    with tempfile.TemporaryDirectory() as out:
        start, cpu = time.perf_counter(), time.process_time()
        config = stage.FilterConfig(rules=tuple(rules))
        metrics = stage.filter(config, Path(out), rows=rows, base=BaseConfig(path=rows.parent))
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(json.dumps({"wall": wall, "cpu": cpu, "peak": peak(), "spent": spent, "metrics": metrics}))


def main() -> None:
    sizes = [int(a) for a in sys.argv[1:]] or SIZES
    print("| rows | s | CPU s | rows/s | µs/row | peak GB | kept |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for n in sizes:
            rows = Path(folder) / f"{n}.parquet"
            write(rows, n)
            env = {**os.environ, "PYTHONHASHSEED": "0"}
            done = subprocess.run([sys.executable, "-m", __spec__.name, "--one", str(rows)], env=env,
                                  check=True, capture_output=True, text=True)  # fmt: skip
            r = json.loads(done.stdout.splitlines()[-1])
            print(f"| {n:,} | {r['wall']:.1f} | {r['cpu']:.1f} | {n / r['wall']:,.0f} | {r['wall'] / n * 1e6:.1f} "
                  f"| {r['peak'] / 1e9:.2f} | {r['metrics']['kept']:,} |", flush=True)  # fmt: skip
            print(f"  CPU seconds by rule: {r['spent']}\n  {r['metrics']}", file=sys.stderr)
            rows.unlink()


if __name__ == "__main__":
    one(Path(sys.argv[2])) if sys.argv[1:2] == ["--one"] else main()
