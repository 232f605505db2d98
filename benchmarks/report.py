"""The report on 100,000 evaluation rows: CPU seconds of one thread, part by part, in this process.

    OMP_NUM_THREADS=1 python -m benchmarks.report [EVALUATION_ROWS ...]       default 100000

The artifacts are those that the report is tested on (tests/artifacts.py), larger: six policies answer each item
greedily and four times more, beside rows, a filter's verdicts, samples, pairs, a reward model and training logs. What
is measured begins when they lie on the disk and ends with report.html; the libraries that draw charts are imported
before, and stand apart. `rest` is the template, the findings, JSON and writing.
"""

import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows.recipe import ROOT, load
from flows.stages import outline
from tasks.report import ReportConfig, report

BAR = 5.0
"""CPU seconds that the report may take on 100,000 evaluation rows."""


def timed(module: Any, name: str, as_: str, spent: dict[str, float]) -> None:
    """Count the seconds of a module's function from now on; of one within another only the inner counts."""
    call: Callable[..., Any] = getattr(module, name)

    def counted(*args: Any, **kwargs: Any) -> Any:
        begun, outer = time.process_time(), sum(spent.values())
        try:
            return call(*args, **kwargs)
        finally:
            spent[as_] += time.process_time() - begun - (sum(spent.values()) - outer)

    setattr(module, name, counted)


def main() -> None:
    sys.path.insert(0, str(ROOT / "tests"))
    from artifacts import artifacts

    from align.report import answers, chapters, chapters_models, chapters_training, charts, content, page

    spent: dict[str, float] = defaultdict(float)
    begun = time.process_time()
    charts.columns({1: 1.0}, x="x", y="y", key="warm")  # altair, vl-convert and its JavaScript engine
    started = time.process_time() - begun
    timed(charts, "draw", "charts", spent)
    timed(content, "load", "evaluations", spent)
    timed(answers, "answers", "examples", spent)
    for module, name in ((chapters, "ingest"), (chapters, "funnel"), (chapters_models, "sampling"),
                         (chapters_models, "pairs"), (chapters_models, "reward"), (chapters_models, "selection"),
                         (chapters_training, "training")):  # fmt: skip
        timed(module, name, name, spent)
    timed(page, "render", "template", spent)
    models, answers_each = 6, 5
    for rows in map(int, sys.argv[1:] or ["100000"]):
        with tempfile.TemporaryDirectory(prefix="align-report-") as folder:
            out = Path(folder) / "report"
            out.mkdir()
            inputs = artifacts(Path(folder) / "made", n=rows // models // answers_each)
            spent.clear()
            begun = time.process_time()
            report(ReportConfig(), out, outline=outline(load()), **inputs)
            took = time.process_time() - begun
            size = (out / "report.html").stat().st_size
        print(f"{rows:,} evaluation rows: {took:.2f} s of CPU (bar {BAR:g} at 100,000), {size / 1e6:.2f} MB")
        parts = [*sorted(spent.items(), key=lambda part: -part[1]), ("rest", took - sum(spent.values()))]
        print("  " + ", ".join(f"{name} {seconds:.2f}" for name, seconds in parts))
        print(f"  before that, once a process: {started:.2f} to start the libraries of the charts")


if __name__ == "__main__":
    main()
