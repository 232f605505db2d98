"""The pipeline: what runs, on what, in which order. Nothing else decides the order.

The same function serves running, planning and drawing: `walk` is what differs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from align.config import Config, Metrics
from flows.recipe import Recipe
from flows.stages import TABLE, contender, contest, outline
from flows.stages import row as row_of
from storage.build import Output


@dataclass(frozen=True)
class Node:
    """A stage's output on its way to another stage; `node[file]` is one file of it."""

    stage: str
    value: Any = None
    file: str | None = None

    def __getitem__(self, file: str) -> "Node":
        return Node(self.stage, self.value, file)


class Walk(Protocol):
    """Runs, plans or draws one stage."""

    def __call__(
        self, name: str, function: Callable[..., Metrics], config: Config, **inputs: Node | Output | Config | None
    ) -> Node: ...


def dag(r: Recipe, walk: Walk) -> None:
    """Ingest to report, with the control arms beside what they control for."""
    done: dict[str, Node] = {}

    def stage(name: str, seed: int = 0, /, **inputs: Node | Output | Config | None) -> Node:
        row = TABLE[name.partition(" of ")[0]]
        name, config = name.replace(" of ", "_"), row.config_of(r)
        config = config.model_copy(update={"seed": config.seed + seed}) if seed else config  # type: ignore[attr-defined]
        done[name] = walk(name, row.function, config, **inputs)
        return done[name]

    base = r.base
    rows, origin = stage("ingest")["rows.parquet"], None
    if r.champion and r.champion.rows:
        rows = stage("fresh", rows=rows, known=Output(r.champion.rows, "rows.parquet"))["rows.parquet"]
        origin = Output(r.champion.artifact)
    filtered = stage("filter", rows=rows, base=base)

    policy = stage("sft", base=base, rows=filtered["kept.parquet"], adapter=origin)
    if r.controls.unfiltered:
        stage("sft_unfiltered", base=base, rows=filtered["control.parquet"], adapter=origin)

    drawn = stage("sample", base=base, rows=rows, adapter=policy)
    preferred = graded = stage("pairs", rows=rows, samples=drawn["samples.parquet"])
    pairs = preferred["pairs.parquet"]
    scorer = r.reward.base or base
    first = None if r.reward.base else policy
    reward = stage("reward", base=scorer, pairs=pairs, adapter=first)
    others = {
        f"reward_{k}": stage(f"reward of {k}", k - 1, base=scorer, pairs=pairs, adapter=first)
        for k in range(2, r.chain.rewards + 1)
    }

    fresh = stage("resample", base=base, rows=rows, adapter=policy)
    best = stage("select", base=scorer, rows=rows, samples=fresh["samples.parquet"], reward=reward, **others)
    chosen = stage("sft_rs", base=base, rows=best["kept.parquet"], adapter=policy)
    if r.controls.random_of_n:
        stage("sft_random", base=base, rows=best["control.parquet"], adapter=policy)

    if r.chain.dpo_pairs != "pairs":
        own = stage("sample_dpo", base=base, rows=rows, adapter=chosen)
        judge = reward if r.pairs_dpo.reward else None
        preferred = stage(
            "pairs_dpo", rows=rows, samples=own["samples.parquet"], more=pairs if r.chain.dpo_pairs == "both" else None,
            scorer=scorer if judge else None, reward=judge,
        )  # fmt: skip
        pairs = preferred["pairs.parquet"]
    if r.dpo.unpaired:
        stage("dpo", base=base, labels=preferred["labels.parquet"], adapter=chosen)
    else:
        frozen = stage("reference", base=base, pairs=pairs, adapter=chosen)
        stage("dpo", base=base, pairs=pairs, adapter=chosen, reference=frozen)
    if r.chain.grpo != "none":
        start = done[r.chain.grpo]
        judge = reward if r.grpo.reward_weight else None
        stage(
            "grpo", base=base, rows=rows, adapter=start, samples=drawn["samples.parquet"],
            scores=graded["scores.parquet"], scorer=scorer if judge else None, reward=judge,
        )  # fmt: skip
        if r.controls.longer:
            stage("sft_longer", base=base, rows=filtered["kept.parquet"], adapter=start)
    policies: dict[str, Node | None] = {
        "base": None,
        **{name: node for name, node in done.items() if row_of(name).policy},
    }
    answers = {name: stage(f"answer of {name}", base=base, rows=rows, adapter=node) for name, node in policies.items()}
    if champion := contender(r):
        made = Output(champion.artifact)
        answers["champion"] = stage("answer of champion", base=champion.base, rows=rows, adapter=made)
    evaluated = stage("evaluate", rows=rows, **{name: node["answers.parquet"] for name, node in answers.items()})
    if r.promote.against != "none":
        stage("promote", graded=evaluated, contest=contest(r))
    stage("report", outline=outline(r), **done)
