"""Sample answers for the report: what every model said to the same few questions."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from align import tables
from align.report.chapters import Chapter, by_id
from align.report.evidence import Evidence
from align.report.wording import count, shorten

KINDS = ("gained", "lost", "right in both", "wrong in both", "not graded")


def answers(graded: Path, data: Path, evidence: Evidence, n: int) -> Chapter:
    """What each model answered to some questions: some that the final model gained, some that it lost."""
    chapter = Chapter("answers", "Answers, side by side")
    mode = "greedy" if "greedy" in evidence.modes else next(iter(evidence.modes), "greedy")
    names = ["suite", "row_id", "model", "response", "status", "finish_reason", "detail"]
    rows = [r for r in tables.read(graded / "evaluations.parquet", [*names, "sample_index"], mode=mode)]
    rows = [r for r in rows if not r["sample_index"]]
    if not rows or not n:
        chapter.note("There are no answers to show.")
        return chapter
    items: dict[tuple[str, str], dict[str, dict[str, Any]]] = defaultdict(dict)
    for r in rows:
        items[r["suite"], r["row_id"]][r["model"]] = r
    first, last = evidence.first, evidence.final or evidence.models[-1]
    kinds: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for at in sorted(items, key=lambda a: (a[1], a[0])):
        before, after = (items[at].get(m, {}).get("status") for m in (first, last))
        kinds[_kind(before, after)].append(at)
    picked = _spread([kinds[k] for k in KINDS], n)
    ids = sorted({item for _, item in picked})
    known = by_id(data, ids)
    shown = []
    for at in picked:
        row = known.get(at[1], {})
        before, after = (items[at].get(m, {}).get("status") for m in (first, last))
        shown.append({
            "suite": at[0] if len(evidence.suites) > 1 else "", "kind": _kind(before, after), "id": at[1],
            "prompt": shorten(row.get("prompt") or "(this question is not among the rows)", 600),
            "reference": shorten(row.get("reference"), 400),
            "replies": _replies({m: items[at][m] for m in evidence.models if m in items[at]}),
        })  # fmt: skip
    totals = ", ".join(f"{count(len(kinds[k]))} {k}" for k in KINDS if kinds[k])
    chapter.lead = f"From {first} to {last}, {mode}: {totals}. Of each kind the first by the hash of the question."
    chapter.blocks.append({"kind": "answers", "items": shown})
    return chapter


def _replies(answers: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the models said; equal answers once."""
    said: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for model, a in answers.items():
        said[a["response"], a["status"], a["finish_reason"] == "truncated", a["detail"]].append(model)
    return [
        {"models": models, "text": shorten(text, 400), "status": status, "cut": cut, "detail": shorten(detail, 160)}
        for (text, status, cut, detail), models in said.items()
    ]


def _kind(before: str | None, after: str | None) -> str:
    """What changed between two statuses; an unreadable answer is a wrong one."""
    before, after = ("wrong" if status == "unreadable" else status for status in (before, after))
    if {before, after} - {"correct", "wrong"}:
        return "not graded"
    if before == after:
        return "right in both" if after == "correct" else "wrong in both"
    return "gained" if after == "correct" else "lost"


def _spread(groups: Sequence[Sequence[Any]], n: int) -> list[Any]:
    """n things taken in turns from the groups, the first three groups twice as often, listed group by group."""
    taken = [0] * len(groups)
    turns: Iterable[int] = [0, 1, 0, 1, *range(len(groups))]
    while sum(taken) < min(n, sum(map(len, groups))):
        for i in turns:
            if taken[i] < len(groups[i]) and sum(taken) < n:
                taken[i] += 1
    return [item for group, k in zip(groups, taken, strict=True) for item in group[:k]]
