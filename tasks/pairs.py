"""Preference pairs: from graded samples of a policy, or from preferences that somebody else labelled."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from align import tables
from align.config import Config, Metrics, Seed
from align.data import labels
from align.data.pairing import (
    Pair,
    Strategy,
    about_lengths,
    combine,
    is_held_out,
    nothing,
    overruled,
    pair_of,
    sift,
)
from align.errors import InputError, StageError
from align.grading.audit import Audit
from align.grading.grade import STATUSES, Grade, item_of, ungraded
from align.grading.graders import AnyGrader, NoGrader, grade_all
from align.grading.judged import asked, contests, judged, verdict_rows
from align.grading.pairwise import PairJudge
from align.models.base import BaseConfig
from align.models.reward_model import UNREAD, Scorer
from align.text import digest

Grading = Callable[[Sequence[tuple[dict[str, Any], str]]], list[Grade]]
"""Grades of responses, each given beside the row that it answers."""
OF_GRADES = ("grader", "strategy", "min_margin", "reject_truncated", "use_reference")
"""Settings of pairs that are made of graded samples."""
OF_SAMPLES = (*OF_GRADES, "judge", "reward", "max_pairs_per_prompt")
"""Settings of pairs that are made of samples."""


class PairsConfig(Config):
    """Settings of pairs."""

    origin: Literal["samples", "imported", "both"] = "samples"
    """Where pairs come from: graded samples, the rows of preference sources, or both (where those decide first)."""
    grader: AnyGrader = NoGrader()
    """What grades the samples."""
    judge: PairJudge | None = None
    """A judge that compares complete samples of a prompt two at a time, in place of a grader."""
    audit: Audit = Audit()
    """What the judge must hold before its verdicts count."""
    strategy: Strategy = "best_vs_worst"
    """A best response against a worst one, against a random lower one, or every response against every lower one."""
    max_pairs_per_prompt: int = Field(default=1, ge=1)
    """At most so many pairs of one prompt, of different combinations; its responses are used as evenly as possible."""
    min_margin: float = Field(default=0.0, ge=0)
    """Scores of a pair differ by more than this."""
    reject_truncated: bool = False
    """Allow responses cut off by the token limit as rejected ones; they are never chosen."""
    use_reference: bool = False
    """Where no sample of a prompt is correct, choose the row's reference instead."""
    max_similarity: float = Field(default=1.0, gt=0, le=1)
    """Pairs whose responses share more of their word triples than this (Jaccard) are dropped."""
    balance_length: bool = False
    """Drop pairs, by hash, until the longer response is chosen as often as the shorter; those held out stay."""
    reward: bool = False
    """Let the reward model score the samples, in place of a grader; of dpo_pairs, since reward is trained on pairs."""
    held_out: float = Field(default=0.1, ge=0, lt=1)
    """Share of the prompts, by hash, whose pairs measure the reward model instead of training it."""
    seed: Seed = 0
    """Seed of the random choices and of the held-out hash."""

    @property
    def labelled_by(self) -> str:
        """What pairs and scores call what says how good a sample is."""
        return "reward_model" if self.reward else self.grader.name

    def part(self, row: dict[str, Any]) -> bool:
        """Whether pairs of a row's prompt are held out."""
        return is_held_out(row, self.held_out, self.seed)

    def contradictions(self) -> Iterator[str]:
        for name in self.changed(*OF_SAMPLES) if self.origin == "imported" else ():
            yield f"{name}: has no effect where origin is imported; leave it out, or set origin to samples or both."
        for name in self.changed(*OF_GRADES) if self.judge else ():
            yield f"{name}: has no effect where a judge compares samples; leave it out, or leave judge out."
        for name in self.changed("grader", "judge", "use_reference") if self.reward else ():
            yield f"{name}: has no effect where the reward model scores samples; leave it out, or leave reward out."
        if self.min_margin >= 1 and not self.reward:
            yield f"min_margin: is {self.min_margin:g}, but grades are from 0 to 1; give one that is less than 1."
        for name in self.changed("audit") if self.judge is None else ():
            yield f"{name}: is of the judge, and there is none; leave it out, or set judge."


def pairs(
    config: PairsConfig,
    out: Path,
    *,
    rows: Path,
    samples: Path | None = None,
    scorer: BaseConfig | None = None,
    reward: Path | None = None,
    more: Path | None = None,
    cache: Path | None = None,
) -> Metrics:
    """Label samples (SAMPLES) of prompts in `rows` (ROWS), or import preferences.

    `reward` is a reward artifact on the base `scorer`, of config.reward; `more` are pairs (PAIRS) to add as they are.

    With a judge each verdict is written to verdicts.parquet (VERDICTS), and kept in the directory `cache`.
    Unreadable samples score 0, and are rejected as other wrong ones are; ungraded ones give no pair and no label.
    Writes pairs.parquet, scores.parquet, and labels.parquet (LABELS: graded samples and imported labels by themselves).
    Raises StageError for 0 pairs (saying what became of the prompts), for whatever a grader raises, and where the judge
    fails its audit.
    """
    config.check()
    counts: Counter[str] = Counter()
    made: list[Pair] = []
    single: list[dict[str, Any]] = []
    scores: list[dict[str, Any]] = []
    lengths: dict[str, int] = {}
    if config.origin != "imported":
        if samples is None:
            raise InputError(f"pairs.origin is {config.origin}, which needs samples.")
        if config.judge is not None:
            made, lengths = _from_verdicts(config, config.judge, out, rows, samples, cache, counts)
        else:
            grade = _graded(config, scorer, reward)
            made, scores, lengths = _from_samples(config, grade, rows, samples, counts, single)
    if config.origin != "samples":
        imported = _imported(config, rows, counts, single)
        if config.origin == "both":
            made, counts["overruled"] = overruled(made, imported)
        made += imported
    if more is not None:
        added = tables.read(more)
        made, fewer = overruled(made, added)
        counts["overruled"] += fewer
        counts["pairs.added"] = len(added)
        made += added
    unique = list({p["pair_id"]: p for p in made}.values())
    unique, sifted = sift(unique, config.max_similarity, config.balance_length, config.seed)
    counts.update(sifted)
    held_out = sum(p["held_out"] for p in unique)
    if len(unique) == held_out:
        raise StageError(nothing(config.origin, config.judge is not None, counts, held_out))
    tables.write(out / "pairs.parquet", unique, tables.PAIRS)
    tables.write(out / "scores.parquet", scores, tables.SCORES)
    alone = {x["label_id"]: x for x in single}
    tables.write(out / "labels.parquet", alone.values(), tables.LABELS)
    desirable = sum(x["desirable"] for x in alone.values())
    return {
        **counts,
        "labels.desirable": desirable,
        "labels.undesirable": len(alone) - desirable,
        "pairs": len(unique),
        "pairs.train": len(unique) - held_out,
        "pairs.held_out": held_out,
        **about_lengths(unique, lengths),
    }


def _from_verdicts(
    config: PairsConfig, judge: PairJudge, out: Path, rows: Path, samples: Path, cache: Path | None,
    counts: Counter[str],
) -> tuple[list[Pair], dict[str, int]]:  # fmt: skip
    """Pairs of the samples between which a judge decides, and tokens per sample id."""
    drawn, known = asked(rows, samples)
    todo = list(contests(drawn, known, config.max_pairs_per_prompt, config.seed))
    found, metrics = judged(judge, config.audit, todo, rows, cache)
    counts.update(metrics)
    counts.update(samples=len(drawn), prompts=len({s["row_id"] for s in drawn}))
    tables.write(out / "verdicts.parquet", verdict_rows(judge, found), tables.VERDICTS)
    made = []
    for a, b, c, v in found:
        if v.winner in ("first", "second"):
            chosen, rejected = (a, b) if v.winner == "first" else (b, a)
            row = known[c.row_id]
            made.append(pair_of(row, chosen, rejected, judge.name, None, config.part(row)))
    return made, {s["sample_id"]: s["n_tokens"] for s in drawn}


def _graded(config: PairsConfig, scorer: BaseConfig | None, reward: Path | None) -> Grading:
    """What says how good samples are, each beside the row that it answers."""
    if not config.reward:
        return lambda of: grade_all(config.grader, [item_of(row, text) for row, text in of])
    if scorer is None or reward is None:
        raise InputError("pairs.reward asks for the reward model, which needs its artifact and base.")
    score = Scorer(scorer, reward)

    def scored(of: Sequence[tuple[dict[str, Any], str]]) -> list[Grade]:
        found = score([row["messages"] for row, _ in of], [text for _, text in of])
        return [ungraded(UNREAD) if s is None else Grade(s, "scored") for s in found]

    return scored


def _from_samples(
    config: PairsConfig, grade: Grading, rows: Path, samples: Path, counts: Counter[str], single: list[dict[str, Any]]
) -> tuple[list[Pair], list[dict[str, Any]], dict[str, int]]:
    """Pairs, SCORES rows and tokens per sample id; appends labels to `single`."""
    drawn, known = asked(rows, samples)
    grades = grade([(known[s["row_id"]], s["text"]) for s in drawn])
    scores = [
        {"sample_id": s["sample_id"], "scored_by": config.labelled_by, **vars(g)}
        for s, g in zip(drawn, grades, strict=True)
    ]
    counts.update(samples=len(drawn), truncated=sum(s["finish_reason"] == "truncated" for s in drawn))
    for status in STATUSES:
        counts[status] = sum(g.status == status for g in grades)
    groups: dict[str, list[tuple[dict[str, Any], Grade]]] = defaultdict(list)
    for sample, found in zip(drawn, grades, strict=True):
        groups[sample["row_id"]].append((sample, found))
    counts.update({f"prompts.{why}": 0 for why in ("paired", "all_correct", "all_wrong", "ungraded", "no_margin")})
    counts.update(prompts=len(groups), identical=0, reference_chosen=0)
    made = [pair for row_id, group in groups.items() for pair in _of_prompt(config, known[row_id], group, counts)]
    for row_id, group in groups.items() if not config.reward else ():
        marked = labels.graded(
            known[row_id], group, config.labelled_by, truncated=config.reject_truncated,
            reference=config.use_reference and not known[row_id].get("calls"),
        )  # fmt: skip
        single += ({**x, "held_out": config.part(known[row_id])} for x in marked)
    return made, scores, {s["sample_id"]: s["n_tokens"] for s in drawn}


def _of_prompt(
    config: PairsConfig, row: dict[str, Any], group: list[tuple[dict[str, Any], Grade]], counts: Counter[str]
) -> Iterator[Pair]:
    """The pairs of one prompt; counts why there are none.

    An unreadable response is a wrong answer: it may be rejected, and with the lowest score never is the better one.
    """
    graded = [(s, g) for s, g in group if g.score is not None]
    if not graded:
        counts["prompts.ungraded"] += 1
        return
    distinct: dict[str, tuple[dict[str, Any], float]] = {}
    for s, g in graded:
        # of equal texts a complete one stands for the others: that it ended is what its readers would learn from it
        known = distinct.get(s["text"].strip())
        if known is None or (known[0]["finish_reason"] == "truncated" and s["finish_reason"] != "truncated"):
            distinct[s["text"].strip()] = (s, float(g.score or 0))
    counts["identical"] += len(graded) - len(distinct)
    responses = [(s, score) for s, score in distinct.values()]
    best = [r for r in responses if r[0]["finish_reason"] != "truncated" and r[0]["text"].strip()]
    worst = [r for r in responses if r[0]["finish_reason"] != "truncated" or config.reject_truncated]
    by = config.labelled_by
    told = row["reference"] and not row.get("calls")  # calls are no words that a policy would say
    if config.use_reference and told and not any(g.status == "correct" for _, g in graded):
        best, by = [({"sample_id": None, "text": row["reference"]}, 1.0)], "reference"
    rng = np.random.default_rng(int(digest(str(config.seed), row["row_id"]), 16))
    found = list(combine(config.strategy, config.min_margin, best, worst, rng))[: config.max_pairs_per_prompt]
    if found:
        counts["prompts.paired"] += 1
        counts["reference_chosen"] += len(found) if by == "reference" else 0
    elif all(g.status == "correct" for _, g in graded):
        counts["prompts.all_correct"] += 1
    elif all(g.status in ("wrong", "unreadable") for _, g in graded):
        counts["prompts.all_wrong"] += 1
    else:
        counts["prompts.no_margin"] += 1
    for chosen, rejected, margin in found:
        yield pair_of(row, chosen, rejected, by, margin, config.part(row))


def _imported(config: PairsConfig, rows: Path, counts: Counter[str], single: list[dict[str, Any]]) -> list[Pair]:
    """The pairs of preference rows, labels appended to `single`; rows that say nothing are counted and dropped."""
    made = []
    counts.update({f"imported.{what}": 0 for what in ("read", "empty", "identical", "labels", "kept")})
    for row in tables.read(rows, use="preferences"):
        counts["imported.read"] += 1
        chosen, rejected = row["chosen"] or "", row["rejected"] or ""
        if labels.is_label(row) and (chosen + rejected).strip():
            counts["imported.labels"] += 1
            single.append({**labels.imported(row), "held_out": config.part(row)})
        elif not chosen.strip() or not rejected.strip():
            counts["imported.empty"] += 1
        elif chosen.strip() == rejected.strip():
            counts["imported.identical"] += 1
        else:
            counts["imported.kept"] += 1
            better, worse = ({"text": text, "sample_id": None} for text in (chosen, rejected))
            made.append(pair_of(row, better, worse, "imported", None, config.part(row)))
    return made
