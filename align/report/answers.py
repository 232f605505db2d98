"""Examples for the report: the evaluation items on which the policies of the chain differ most, with every answer."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from align import tables
from align.report.chapters import Chapter, by_id
from align.report.evidence import Evidence
from align.report.wording import count, number, points, shorten
from align.report.words import say

Item = tuple[str, str]
"""Suite and row id."""
FIRST = (pc.field("sample_index") == 0) & (pc.field("turn").is_null() | (pc.field("turn") == 1))
"""The answers that are shown."""
KEYS = ["suite", "row_id", "model", "mode"]
SHOWN = ["suite", "row_id", "model", "response", "score", "status", "finish_reason", "detail"]
KINDS = ("gained", "lost", "right in both", "wrong in both", "not graded")
"""What became of an item from the first policy of the chain to the last."""


@dataclass
class Scores:
    """What the policies scored on an item: in what is shown, and on average in the primary mode."""

    shown: dict[str, float | None] = field(default_factory=dict)
    means: dict[str, float | None] = field(default_factory=dict)


def answers(graded: Path, data: Path, evidence: Evidence, n: int) -> Chapter:
    """The `n` items on which the chain's policies differ most, gained ones and lost ones in turns where they tie."""
    chapter = Chapter("answers", say("Examples: where the stages differ most"))
    mode = "greedy" if "greedy" in evidence.modes else next(iter(evidence.modes), "greedy")
    items = _scores(graded, mode, evidence.primary) if n and evidence.models else {}
    if not items:
        chapter.note(say("There are no answers to show."))
        return chapter
    chain = [m for m in evidence.outline.policies if m in evidence.models]
    chain = chain if len(chain) > 1 else ["base", *chain]
    first, last = evidence.first, evidence.final or evidence.models[-1]
    kinds = {at: _kind(found.shown.get(first), found.shown.get(last)) for at, found in items.items()}
    picked = _most(items, kinds, chain, n)
    said = _said(graded, mode, picked)
    known = by_id(data, sorted({row_id for _, row_id in picked}))
    shown = []
    for at in picked:
        row = known.get(at[1], {})
        before, after = (items[at].shown.get(m) for m in (first, last))
        moved = "" if before is None or after is None or before == after else points(after - before)
        shown.append({
            "suite": at[0] if len(evidence.suites) > 1 else "", "kind": kinds[at], "id": at[1], "moved": moved,
            "prompt": shorten(row.get("prompt") or say("(this question is not among the rows)"), 1200),
            "reference": shorten(row.get("reference"), 600),
            "replies": _replies({m: said[at][m] for m in evidence.models if m in said[at]}),
        })  # fmt: skip
    counted = {kind: sum(k == kind for k in kinds.values()) for kind in KINDS}
    totals = ", ".join(f"{count(many)} {say(kind)}" for kind, many in counted.items() if many)
    chapter.lead = say(
        "From {first} to {last}, {mode}: {totals}. Below are the {n:question} on which the policies of the chain "
        "differ most, ties by the hash of the question, gained and lost in turns.",
        first=first, last=last, mode=say(mode), totals=totals, n=len(shown),
    )  # fmt: skip
    tally = {kind: sum(item["kind"] == kind for item in shown) for kind in ("gained", "lost")}
    chapter.blocks.append({"kind": "examples", "items": shown, "tally": tally})
    return chapter


def _scores(graded: Path, mode: str, primary: str) -> dict[Item, Scores]:
    """What each policy scored on each item; the first sample is what is shown."""
    table = _graded(graded, [*KEYS, "sample_index", "turn", "score"])
    found: dict[Item, Scores] = defaultdict(Scores)
    first = table.filter((pc.field("mode") == mode) & FIRST)
    for suite, row_id, model, score in _rows(first, ["suite", "row_id", "model", "score"]):
        found[suite, row_id].shown[model] = score
    means = table.filter(pc.field("mode") == primary).group_by(KEYS[:3]).aggregate([("score", "mean")])
    for suite, row_id, model, score in _rows(means, ["suite", "row_id", "model", "score_mean"]):
        if (suite, row_id) in found:
            found[suite, row_id].means[model] = score
    return dict(found)


def _rows(table: pa.Table, names: Sequence[str]) -> Iterable[tuple[Any, ...]]:
    return zip(*(table.column(name).to_pylist() for name in names), strict=True)


def _said(graded: Path, mode: str, items: Sequence[Item]) -> dict[Item, dict[str, dict[str, Any]]]:
    """The answers to some items, by policy."""
    ids = pa.array(sorted({row_id for _, row_id in items}), pa.string())
    wanted = (pc.field("mode") == mode) & FIRST & pc.field("row_id").isin(ids)
    found: dict[Item, dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in _graded(graded, SHOWN, wanted).to_pylist():
        found[row["suite"], row["row_id"]][row["model"]] = row
    return found


def _graded(folder: Path, columns: list[str], wanted: pc.Expression | None = None) -> pa.Table:
    """Columns of the evaluations; those that an older version did not write are null."""
    schema = tables.bare(tables.EVALUATIONS)
    return pq.read_table(folder / "evaluations.parquet", columns=columns, filters=wanted, schema=schema)


def _most(items: Mapping[Item, Scores], kinds: Mapping[Item, str], chain: Sequence[str], n: int) -> list[Item]:
    """The items with the widest range of scores along the chain; of equal ones kinds take turns."""
    groups: dict[tuple[Any, ...], list[Item]] = defaultdict(list)
    for at in sorted(items, key=lambda at: (at[1], at[0])):
        spans = [_span(scores, chain) for scores in (items[at].shown, items[at].means)]
        groups[(-spans[0], -spans[1], kinds[at])].append(at)
    ranked = [
        ((*wide, turn, KINDS.index(kind)), at)
        for (*wide, kind), found in groups.items()
        for turn, at in enumerate(found)
    ]
    # Where greedy scores tie, kinds take turns before the finer range decides: else one kind could fill all places.
    by_kind: dict[str, int] = defaultdict(int)
    places = []
    for (wide, fine, turn, kind), at in sorted(ranked):
        places.append((wide, by_kind[f"{wide} {kind}"], kind, fine, turn, at))
        by_kind[f"{wide} {kind}"] += 1
    return [at for *_, at in sorted(places)[:n]]


def _span(scores: Mapping[str, float | None], chain: Sequence[str]) -> float:
    graded = [score for model in chain if (score := scores.get(model)) is not None]
    return round(max(graded) - min(graded), 9) if graded else -1.0


def _replies(answers: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the models said; equal answers once."""
    said: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for model, a in answers.items():
        said[a["response"], a["status"], a["score"], a["finish_reason"] == "truncated", a["detail"]].append(model)
    return [
        {"models": models, "text": shorten(text, 800), "status": status, "cut": cut, "detail": shorten(detail, 160),
         "score": "" if score in (None, 0.0, 1.0) else number(score)}
        for (text, status, score, cut, detail), models in said.items()
    ]  # fmt: skip


def _kind(before: float | None, after: float | None) -> str:
    """What changed between two scores; an unreadable answer has the score of a wrong one."""
    if before is None or after is None:
        return "not graded"
    if before == after:
        return "right in both" if after > 0.5 else "wrong in both"
    return "gained" if after > before else "lost"
