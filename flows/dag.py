"""The pipeline: what runs, on what, in which order. Nothing else decides the order.

The same function serves running, planning and drawing: `stage` is what differs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from align.config import Config
from flows.recipe import Recipe
from tasks.dpo import dpo
from tasks.evaluate import evaluate
from tasks.filter import filter
from tasks.ingest import ingest
from tasks.pairs import pairs
from tasks.report import report
from tasks.reward import reward
from tasks.sample import sample
from tasks.select import select
from tasks.sft import sft


@dataclass(frozen=True)
class Node:
    """A stage's output on its way to another stage; `node[file]` is one file of it."""

    stage: str
    value: Any = None
    file: str | None = None

    def __getitem__(self, file: str) -> "Node":
        return Node(self.stage, self.value, file)


class Stage(Protocol):
    """Runs, plans or draws one stage."""

    def __call__(
        self, name: str, function: Callable[..., dict[str, Any]], config: Config, **inputs: Node | Config | None
    ) -> Node: ...


def dag(r: Recipe, stage: Stage) -> None:
    """Ingest to report, with the control arms beside what they control for."""
    base = r.base
    data = stage("ingest", ingest, r.ingest)
    rows = data["rows.parquet"]
    filtered = stage("filter", filter, r.filter, rows=rows, base=base)

    policy = stage("sft", sft, r.sft, base=base, rows=filtered["kept.parquet"])
    arms = {"sft": policy}
    if r.controls.unfiltered:
        arms["sft_unfiltered"] = stage("sft_unfiltered", sft, r.sft, base=base, rows=filtered["control.parquet"])

    drawn = stage("sample", sample, r.sample, base=base, rows=rows, adapter=policy)
    labelled = stage("pairs", pairs, r.pairs, rows=rows, samples=drawn["samples.parquet"])
    judge = stage("reward", reward, r.reward, base=base, pairs=labelled["pairs.parquet"], adapter=policy)

    fresh = stage("resample", sample, r.resample, base=base, rows=rows, adapter=policy)
    best = stage("select", select, r.select, base=base, rows=rows, samples=fresh["samples.parquet"], reward=judge)
    arms["sft_rs"] = stage("sft_rs", sft, r.sft_rs, base=base, rows=best["kept.parquet"], adapter=policy)
    if r.controls.random_of_n:
        control = stage("sft_random", sft, r.sft_rs, base=base, rows=best["control.parquet"], adapter=policy)
        arms["sft_random"] = control

    arms["dpo"] = stage("dpo", dpo, r.dpo, base=base, pairs=labelled["pairs.parquet"], adapter=arms["sft_rs"])
    graded = stage("evaluate", evaluate, r.evaluate, base=base, rows=rows, **arms)
    stage(
        "report", report, r.report, data=data, filtered=filtered, drawn=drawn, labelled=labelled,
        reward=judge, fresh=fresh, selected=best, graded=graded, **arms,
    )  # fmt: skip
