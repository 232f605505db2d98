"""The pipeline: what runs, on what, in which order. Nothing else decides the order.

The same function serves running, planning and drawing: `walk` is what differs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from align.config import Config, Metrics
from flows.recipe import Recipe
from flows.rounds import of_round
from flows.seeds import MARK, further, seeds
from flows.stages import TABLE, contender, contest, final, outline
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
    """Runs, plans or draws one stage. With a gate it is skipped where that is shut, and so missing from what reads it:
    an input that was skipped is none."""

    def __call__(
        self,
        name: str,
        function: Callable[..., Metrics],
        config: Config,
        *gate: Node,
        **inputs: Node | Output | Config | None,
    ) -> Node: ...


def dag(r: Recipe, walk: Walk) -> None:
    """Ingest to report, with the control arms beside what they control for."""
    done: dict[str, Node] = {}
    behind: dict[str, tuple[Node, ...]] = {}

    def stage(
        name: str, seed: int = 0, k: int = 1, gate: tuple[Node, ...] = (), /, **inputs: Node | Output | Config | None
    ) -> Node:
        row = TABLE[name.partition(" of ")[0]]
        name, config = of_round(name.replace(" of ", "_"), k), row.config_of(r)
        config = config.model_copy(update={"seed": config.seed + seed}) if seed else config  # type: ignore[attr-defined]
        done[name], behind[name] = walk(name, row.function, config, *gate, **inputs), gate
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

    gate: tuple[Node, ...] = ()
    for k in range(1, r.chain.rounds + 1):
        began, policy = policy, _round(r, stage, k, gate, rows, policy, done)
        if r.chain.rounds > 1:
            gate = (stage("gate", 0, k, gate, base=base, rows=rows, before=began, after=policy),)
    if r.chain.rounds > 1:
        stage("newest", **{name: done[name] for name in (*r.chain.policies, *r.chain.gates)})

    if r.chain.grpo != "none":
        start = done["newest" if r.chain.rounds > 1 else r.chain.grpo]
        judge = done["reward"] if r.grpo.reward_weight else None
        for name, seed in _seeds(r, "grpo"):
            stage(
                name, seed, base=base, rows=rows, adapter=start, samples=done["sample"]["samples.parquet"],
                scores=done["pairs"]["scores.parquet"], scorer=(r.reward.base or base) if judge else None, reward=judge,
            )  # fmt: skip
        if r.controls.longer:
            stage("sft_longer", base=base, rows=filtered["kept.parquet"], adapter=start)
    policies: dict[str, Node | None] = {
        "base": None,
        **{name: node for name, node in done.items() if row_of(name).policy},
    }
    answers = {
        name: stage(f"answer of {name}", 0, 1, behind.get(name, ()), base=base, rows=rows, adapter=node)
        for name, node in policies.items()
    }
    if champion := contender(r):
        made = Output(champion.artifact)
        answers["champion"] = stage("answer of champion", base=champion.base, rows=rows, adapter=made)
    given = {name: node["answers.parquet"] for name, node in answers.items()}
    evaluated = stage("evaluate", rows=rows, seeds=seeds(r), **given)
    if r.chain.diagnose:
        chain = {name: done[name] for name in outline(r).policies}
        judge, scorer = done["reward"], r.reward.base or base
        stage("diagnose", base=base, rows=rows, scorer=scorer, reward=judge, graded=evaluated, **chain)
    if r.promote.against != "none":
        stage("promote", graded=evaluated, contest=contest(r), newest=done["newest"] if final(r) == "newest" else None)
    stage("report", outline=outline(r), **done)


def _round(
    r: Recipe, any_stage: Callable[..., Node], k: int, gate: tuple[Node, ...], rows: Node, policy: Node,
    done: Mapping[str, Node],
) -> Node:  # fmt: skip
    """Round k, from the policy that it begins with to DPO's; the control arm of rejection sampling in the first."""

    def stage(name: str, seed: int = 0, /, **inputs: Node | Config | None) -> Node:
        return any_stage(name, seed, k, gate, **inputs)

    base = r.base
    drawn = stage("sample", base=base, rows=rows, adapter=policy)
    preferred = stage("pairs", rows=rows, samples=drawn["samples.parquet"])
    pairs = preferred["pairs.parquet"]
    scorer = r.reward.base or base
    if k == 1 or r.chain.reward_each_round:
        first = None if r.reward.base else policy
        reward = stage("reward", base=scorer, pairs=pairs, adapter=first)
        others = {
            f"reward_{n}": stage(f"reward of {n}", n - 1, base=scorer, pairs=pairs, adapter=first)
            for n in range(2, r.chain.rewards + 1)
        }
    else:
        reward, others = done["reward"], {f"reward_{n}": done[f"reward_{n}"] for n in range(2, r.chain.rewards + 1)}

    fresh = stage("resample", base=base, rows=rows, adapter=policy)
    best = stage("select", base=scorer, rows=rows, samples=fresh["samples.parquet"], reward=reward, **others)
    chosen = stage("sft_rs", base=base, rows=best["kept.parquet"], adapter=policy)
    if k == 1 and r.controls.random_of_n:
        stage("sft_random", base=base, rows=best["control.parquet"], adapter=policy)

    if r.chain.dpo_pairs != "pairs":
        own = stage("sample_dpo", base=base, rows=rows, adapter=chosen)
        judge = reward if r.pairs_dpo.reward else None
        preferred = stage(
            "pairs_dpo", rows=rows, samples=own["samples.parquet"], more=pairs if r.chain.dpo_pairs == "both" else None,
            scorer=scorer if judge else None, reward=judge,
        )  # fmt: skip
        pairs = preferred["pairs.parquet"]
    made = []
    frozen = None if r.dpo.unpaired else stage("reference", base=base, pairs=pairs, adapter=chosen)
    for name, seed in _seeds(r, "dpo"):
        if r.dpo.unpaired:
            made.append(stage(name, seed, base=base, labels=preferred["labels.parquet"], adapter=chosen))
            continue
        if seed and r.dpo.limit:  # another seed takes other pairs
            frozen = stage(name.replace("dpo", "reference"), seed, base=base, pairs=pairs, adapter=chosen)
        made.append(stage(name, seed, base=base, pairs=pairs, adapter=chosen, reference=frozen))
    return made[0]


def _seeds(r: Recipe, name: str) -> list[tuple[str, int]]:
    """The stage with each of its seeds, as `stage` takes them."""
    return [(name, 0), *((f"{name} of {MARK}{k}", k - 1) for k in further(r, name))]
