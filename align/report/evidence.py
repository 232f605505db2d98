"""What an evaluation shows: results per model, paired differences, and which of them the data supports."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow.compute as pc
import pyarrow.parquet as pq

from align import tables
from align.paired import Verdict
from align.report.outline import Outline

MODES = ("greedy", "sampled")
VERDICTS: dict[str, Verdict | Literal["not measured"]] = {
    "up": "better", "down": "worse", "open": "not shown", "few": "too few to tell", "unknown": "not measured",
}  # fmt: skip
"""What a verdict is called where people read it and in `comparisons`, by the report's word for it."""


@dataclass(frozen=True)
class Result:
    """One model on one suite in one mode. `mean`, `low` and `high` are shares in 0..1, None where nothing is graded."""

    suite: str
    model: str
    mode: str
    items: int
    graded: int
    """Items of which at least one answer is graded: what the mean is over."""
    answers: int
    unreadable: int
    ungraded: int
    cut: int
    mean: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Difference:
    """A paired difference between two models, with its 95 % interval, over the n items that both have graded.

    `differ` of them do, and `p` is the exact test's, None where that is not needed (align/paired.py).
    """

    suite: str
    mode: str
    model: str
    against: str
    n: int
    diff: float
    low: float
    high: float
    differ: int
    p: float | None
    verdict: str
    """A key of VERDICTS."""
    detectable: float | None = None
    """The smallest true difference that so many items would have shown in four cases of five."""
    seeds: int = 1
    """Seeds of the policy that has more of them; what they differ by is in the interval."""
    seed_sd: float | None = None
    """The standard deviation of the seeds' means."""

    @property
    def within_seeds(self) -> bool:
        """Whether it is not shown although the interval excludes 0, because seeds differ by as much."""
        return self.verdict == "open" and not self.low <= 0 <= self.high


@dataclass(frozen=True)
class Evidence:
    """Everything that the evaluate stage found."""

    outline: Outline
    suites: list[str]
    models: list[str]
    primary: str
    measures: dict[str, str]
    """accuracy, or mean score where a grader gives more than 0 and 1; by suite."""
    results: dict[tuple[str, str, str], Result]
    differences: dict[tuple[str, str, str, str], Difference]

    @property
    def first(self) -> str:
        """The first of the pipeline's own models, which the others are compared with in tables."""
        return next((m for m in self.outline.policies if m in self.models), "base")

    @property
    def final(self) -> str | None:
        """The model that the chain ends with, else the last of its own; None where only base and controls were
        evaluated."""
        if self.outline.final in self.models:
            return self.outline.final
        return next((m for m in reversed(self.models) if m != "base" and not self.outline.is_control(m)), None)

    def result(self, suite: str, model: str, mode: str) -> Result | None:
        return self.results.get((suite, model, mode))

    def difference(self, suite: str, mode: str, model: str, against: str) -> Difference | None:
        """The comparison of two models; None where no item is graded for both."""
        return self.differences.get((suite, mode, model, against))

    @property
    def modes(self) -> list[str]:
        """The modes that were run, the primary one first."""
        found = {mode for _, _, mode in self.results}
        return sorted(found, key=lambda m: (m != self.primary, MODES.index(m) if m in MODES else 9))


def kind_of(verdict: Verdict) -> str:
    """The key of a verdict in VERDICTS."""
    return next(kind for kind, word in VERDICTS.items() if word == verdict)


def load(graded: Path, metrics: Mapping[str, Any], outline: Outline) -> Evidence:
    """Read an evaluate artifact."""
    names = ["suite", "row_id", "model", "mode", "status", "finish_reason", "score"]
    table = pq.read_table(graded / "evaluations.parquet", columns=names)
    counted: dict[tuple[str, str, str], Counter[str]] = {}
    items: dict[tuple[str, str, str], set[str]] = {}
    keys = ["suite", "model", "mode", "row_id", "status", "finish_reason"]
    for row in table.group_by(keys).aggregate([([], "count_all")]).to_pylist():
        at = (row["suite"], row["model"], row["mode"])
        n = row["count_all"]
        items.setdefault(at, set()).add(row["row_id"])
        counter = counted.setdefault(at, Counter())
        counter.update({"answers": n, row["status"]: n, f"finish.{row['finish_reason']}": n})
    counts = ("answers", "unreadable", "ungraded", "finish.truncated")
    results = {at: Result(*at, len(items[at]), 0, *(c[name] for name in counts)) for at, c in counted.items()}
    differences: dict[tuple[str, str, str, str], Difference] = {}
    for row in tables.read(graded / "comparisons.parquet"):
        at = (row["suite"], row["model"], row["mode"])
        if at in results and row["against"] is None and row["mean"] is not None:
            of = {k: row[k] for k in ("mean", "low", "high")}
            results[at] = replace(results[at], graded=row["n"], **of)
        elif row["diff"] is not None:
            differences[row["suite"], row["mode"], row["model"], row["against"]] = Difference(
                row["suite"], row["mode"], row["model"], row["against"], row["n"],
                row["diff"], row["diff_low"], row["diff_high"], row["differ"], row["p_exact"], kind_of(row["verdict"]),
                row.get("detectable"), row.get("seeds") or 1, row.get("seed_sd"),
            )  # fmt: skip
    suites = list(dict.fromkeys(table.column("suite").to_pylist()))
    models = {model for _, model, _ in results}
    partial = table.filter((pc.field("score") > 0) & (pc.field("score") < 1)).column("suite").unique().to_pylist()
    measures = {suite: "mean score" if suite in partial else "accuracy" for suite in suites}
    ordered = sorted(models, key=outline.place)
    return Evidence(outline, suites, ordered, str(metrics["primary"]), measures, results, differences)
