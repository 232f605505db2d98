"""Samples as contests for a judge, and what the judge is audited with: references, and pairs that people labelled."""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from align import tables
from align.answered import Budget
from align.errors import StageError
from align.grading.audit import Audit, audit
from align.grading.pairwise import Contest, PairJudge, Verdict
from align.text import digest

Row = dict[str, Any]
Judged = tuple[Row, Row, Contest, Verdict]
"""Two samples, their contest, and the verdict on it."""


def asked(rows: Path, samples: Path) -> tuple[list[Row], dict[str, Row]]:
    """The samples (SAMPLES), and the ROWS of their prompts by id. Raises StageError where a prompt is missing."""
    drawn = tables.read(samples)
    ids = {s["row_id"] for s in drawn}
    columns = ["row_id", "source", "messages", "prompt", "response", "calls", "reference", "meta"]
    known = {r["row_id"]: r for r in tables.read(rows, columns=columns) if r["row_id"] in ids}
    if missing := sorted(ids - known.keys()):
        raise StageError(f"{len(missing)} prompts of the samples are not among the rows, such as {missing[0]}.")
    return drawn, known


def contests(
    drawn: Sequence[Row], known: Mapping[str, Row], most: int, seed: int
) -> Iterator[tuple[Row, Row, Contest]]:
    """At most `most` contests of each prompt, between complete responses that differ, in an order by hash."""
    groups: dict[str, dict[str, Row]] = defaultdict(dict)
    for s in drawn:
        if s["finish_reason"] != "truncated" and s["text"].strip():
            groups[s["row_id"]].setdefault(s["text"].strip(), s)
    for row_id, group in groups.items():
        rng = np.random.default_rng(int(digest(str(seed), row_id), 16))
        responses = [list(group.values())[i] for i in rng.permutation(len(group))]
        row = known[row_id]
        # neighbours first, so that every response is judged about as often
        pairs = sorted(itertools.combinations(range(len(responses)), 2), key=lambda p: (p[1] - p[0], p[0]))
        for i, j in pairs[:most]:
            a, b = responses[i], responses[j]
            yield a, b, Contest(row_id, row["prompt"], a["text"], b["text"], row["reference"])


def judged(
    judge: PairJudge, audited: Audit, todo: Sequence[tuple[Row, Row, Contest]], rows: Path, cache: Path | None
) -> tuple[list[Judged], dict[str, float]]:
    """The verdict on each contest, after the judge was audited; and metrics. Raises StageError as the audit does.

    It is audited on references of prompts, else on what people chose in preference rows of `rows`, and on those.
    """
    budget = judge.budget()
    people = preferred(rows)
    references = {
        c.row_id: Contest(c.row_id, c.prompt, c.reference, "", c.reference) for _, _, c in todo if c.reference
    }
    real = [c for _, _, c in todo]
    good = list(references.values()) or people or real
    metrics = audit(audited, judge, good, real, people, cache, budget)
    verdicts = judge.compare(real, cache, budget)
    metrics |= outcomes(verdicts, budget)
    return [(a, b, c, v) for (a, b, c), v in zip(todo, verdicts, strict=True)], metrics


def preferred(rows: Path) -> list[Contest]:
    """What people chose in the preference rows of ROWS, as first, in the order of the ids: these are hashes, so that no
    source comes first."""
    columns = ["row_id", "prompt", "chosen", "rejected"]
    found = [
        Contest(r["row_id"], r["prompt"], r["chosen"], r["rejected"])
        for r in tables.read(rows, columns=columns, use="preferences")
        if (r["chosen"] or "").strip() and (r["rejected"] or "").strip()
    ]
    return sorted(found, key=lambda c: c.row_id)


def outcomes(verdicts: Sequence[Verdict], budget: Budget) -> dict[str, float]:
    """How a judge decided, and what it cost, as metrics."""
    found: dict[str, float] = {
        f"judge.{outcome}": sum(v.winner == outcome for v in verdicts) for outcome in ("first", "second", "tie", "none")
    }
    return found | {
        "judge.flips": sum(v.flipped for v in verdicts) / max(1, len(verdicts)),
        "judge.questions": budget.questions,
        "judge.tokens": budget.tokens,
    }


def verdict_rows(judge: PairJudge, found: Sequence[Judged]) -> Iterator[Row]:
    """VERDICTS rows."""
    for a, b, c, v in found:
        ids = {"row_id": c.row_id, "first_id": a["sample_id"], "second_id": b["sample_id"]}
        yield {**ids, "judged_by": judge.name, **vars(v)}
