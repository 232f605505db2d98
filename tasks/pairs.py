"""Preference pairs: from graded samples of a policy, or from preferences that somebody else labelled."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from align import tables
from align.config import Config, Metrics, Seed
from align.data import labels
from align.data.pairing import Strategy, about_lengths, combine, sift
from align.errors import InputError, StageError
from align.grading.audit import Audit
from align.grading.grade import STATUSES, Grade, item_of
from align.grading.graders import AnyGrader, NoGrader, grade_all
from align.grading.judged import contests, judged, verdict_rows
from align.grading.pairwise import PairJudge
from align.text import digest, normalise

Pair = dict[str, Any]
OF_GRADES = ("grader", "strategy", "min_margin", "reject_truncated", "use_reference")
"""Settings of pairs that are made of graded samples."""
OF_SAMPLES = (*OF_GRADES, "judge", "max_pairs_per_prompt")
"""Settings of pairs that are made of samples."""


class PairsConfig(Config):
    """Settings of pairs."""

    origin: Literal["samples", "imported", "both"] = "samples"
    """Where pairs come from: graded samples, the rows of preference sources, or both."""
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
    min_margin: float = Field(default=0.0, ge=0, lt=1)
    """Scores of a pair differ by more than this."""
    reject_truncated: bool = False
    """Allow responses cut off by the token limit as rejected ones; they are never chosen."""
    use_reference: bool = False
    """Where no sample of a prompt is correct, choose the row's reference instead."""
    max_similarity: float = Field(default=1.0, gt=0, le=1)
    """Pairs whose responses share more of their word triples than this (Jaccard) are dropped."""
    balance_length: bool = False
    """Drop pairs, by hash, until the longer response is chosen as often as the shorter; those held out stay."""
    held_out: float = Field(default=0.1, ge=0, lt=1)
    """Share of the prompts, by hash, whose pairs measure the reward model instead of training it."""
    seed: Seed = 0
    """Seed of the random choices and of the held-out hash."""

    def contradictions(self) -> Iterator[str]:
        for name in self.changed(*OF_SAMPLES) if self.origin == "imported" else ():
            yield f"{name}: has no effect where origin is imported; leave it out, or set origin to samples or both."
        for name in self.changed(*OF_GRADES) if self.judge else ():
            yield f"{name}: has no effect where a judge compares samples; leave it out, or leave judge out."
        for name in self.changed("audit") if self.judge is None else ():
            yield f"{name}: is of the judge, and there is none; leave it out, or set judge."


def pairs(
    config: PairsConfig, out: Path, *, rows: Path, samples: Path | None = None, cache: Path | None = None
) -> Metrics:
    """Label samples (SAMPLES) of prompts in `rows` (ROWS), or import preferences.

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
            made, scores, lengths = _from_samples(config, rows, samples, counts, single)
    if config.origin != "samples":
        made += _imported(config, rows, counts, single)
    unique = list({p["pair_id"]: p for p in made}.values())
    unique, sifted = sift(unique, config.max_similarity, config.balance_length, config.seed)
    counts.update(sifted)
    held_out = sum(p["held_out"] for p in unique)
    if len(unique) == held_out:
        raise StageError(_nothing(config, counts, held_out))
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


def _drawn(rows: Path, samples: Path) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """The samples, and the rows of their prompts by id."""
    drawn = tables.read(samples)
    asked = {s["row_id"] for s in drawn}
    columns = ["row_id", "messages", "prompt", "response", "calls", "reference", "meta"]
    known = {r["row_id"]: r for r in tables.read(rows, columns=columns) if r["row_id"] in asked}
    if missing := sorted(asked - known.keys()):
        raise StageError(f"{len(missing)} prompts of the samples are not among the rows, such as {missing[0]}.")
    return drawn, known


def _from_verdicts(
    config: PairsConfig, judge: PairJudge, out: Path, rows: Path, samples: Path, cache: Path | None,
    counts: Counter[str],
) -> tuple[list[Pair], dict[str, int]]:  # fmt: skip
    """Pairs of the samples between which a judge decides, and tokens per sample id."""
    drawn, known = _drawn(rows, samples)
    todo = list(contests(drawn, known, config.max_pairs_per_prompt, config.seed))
    found, metrics = judged(judge, config.audit, todo, rows, cache)
    counts.update(metrics)
    counts.update(samples=len(drawn), prompts=len({s["row_id"] for s in drawn}))
    tables.write(out / "verdicts.parquet", verdict_rows(judge, found), tables.VERDICTS)
    made = []
    for a, b, c, v in found:
        if v.winner in ("first", "second"):
            chosen, rejected = (a, b) if v.winner == "first" else (b, a)
            made.append(_pair(config, known[c.row_id], chosen["text"], rejected["text"], judge.name, None,
                              chosen["sample_id"], rejected["sample_id"]))  # fmt: skip
    return made, {s["sample_id"]: s["n_tokens"] for s in drawn}


def _from_samples(
    config: PairsConfig, rows: Path, samples: Path, counts: Counter[str], single: list[dict[str, Any]]
) -> tuple[list[Pair], list[dict[str, Any]], dict[str, int]]:
    """Pairs, SCORES rows and tokens per sample id; appends labels to `single`."""
    drawn, known = _drawn(rows, samples)
    grades = grade_all(config.grader, [item_of(known[s["row_id"]], s["text"]) for s in drawn])
    scores = [
        {"sample_id": s["sample_id"], "scored_by": config.grader.name, **vars(g)}
        for s, g in zip(drawn, grades, strict=True)
    ]
    counts.update(samples=len(drawn), truncated=sum(s["finish_reason"] == "truncated" for s in drawn))
    for status in STATUSES:
        counts[status] = sum(g.status == status for g in grades)
    groups: dict[str, list[tuple[dict[str, Any], Grade]]] = defaultdict(list)
    for sample, grade in zip(drawn, grades, strict=True):
        groups[sample["row_id"]].append((sample, grade))
    counts.update({f"prompts.{why}": 0 for why in ("paired", "all_correct", "all_wrong", "ungraded", "no_margin")})
    counts.update(prompts=len(groups), identical=0, reference_chosen=0)
    made = [pair for row_id, group in groups.items() for pair in _of_prompt(config, known[row_id], group, counts)]
    for row_id, group in groups.items():
        found = labels.graded(
            known[row_id], group, config.grader.name, truncated=config.reject_truncated,
            reference=config.use_reference and not known[row_id].get("calls"),
        )  # fmt: skip
        single += ({**x, "held_out": _held_out(config, known[row_id])} for x in found)
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
    by = config.grader.name
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
        yield _pair(
            config, row, chosen["text"], rejected["text"], by, margin, chosen["sample_id"], rejected["sample_id"]
        )


def _imported(config: PairsConfig, rows: Path, counts: Counter[str], single: list[dict[str, Any]]) -> list[Pair]:
    """The pairs of preference rows, labels appended to `single`; rows that say nothing are counted and dropped."""
    made = []
    counts.update({f"imported.{what}": 0 for what in ("read", "empty", "identical", "labels", "kept")})
    for row in tables.read(rows, use="preferences"):
        counts["imported.read"] += 1
        chosen, rejected = row["chosen"] or "", row["rejected"] or ""
        if labels.is_label(row) and (chosen + rejected).strip():
            counts["imported.labels"] += 1
            single.append({**labels.imported(row), "held_out": _held_out(config, row)})
        elif not chosen.strip() or not rejected.strip():
            counts["imported.empty"] += 1
        elif chosen.strip() == rejected.strip():
            counts["imported.identical"] += 1
        else:
            counts["imported.kept"] += 1
            made.append(_pair(config, row, chosen, rejected, "imported", None, None, None))
    return made


def _pair(
    config: PairsConfig,
    row: dict[str, Any],
    chosen: str,
    rejected: str,
    labelled_by: str,
    margin: float | None,
    chosen_id: str | None,
    rejected_id: str | None,
) -> Pair:
    return {
        "pair_id": digest(row["row_id"], chosen, rejected),
        "row_id": row["row_id"],
        "chosen_id": chosen_id,
        "rejected_id": rejected_id,
        "messages": row["messages"],
        "chosen": chosen,
        "rejected": rejected,
        "margin": margin,
        "labelled_by": labelled_by,
        "held_out": _held_out(config, row),
    }


def _held_out(config: PairsConfig, row: dict[str, Any]) -> bool:
    return int(digest(str(config.seed), "held out", normalise(row["prompt"])), 16) / 16**16 < config.held_out


def _nothing(config: PairsConfig, counts: Counter[str], held_out: int) -> str:
    """Why there is no pair to train on, and what to do."""
    if held_out:
        return f"All {held_out} pairs are held out, none is left to train on; lower pairs.held_out or add prompts."
    told = []
    if config.judge is not None and config.origin != "imported":
        told.append(f"of {counts['prompts']} prompts the judge decided no pair (it saw {counts['judge.tie']} ties)")
    elif config.origin != "imported":
        told.append(
            f"of {counts['prompts']} prompts {counts['prompts.all_correct']} have only correct responses, "
            f"{counts['prompts.all_wrong']} only wrong ones, {counts['prompts.ungraded']} none that was graded, and "
            f"{counts['prompts.no_margin']} none that may be paired "
            f"({counts['truncated']} of {counts['samples']} samples are truncated)"
        )
    if config.origin != "samples":
        told.append(
            f"of {counts['imported.read']} preference rows {counts['imported.empty']} are empty and "
            f"{counts['imported.identical']} prefer nothing, and {counts['imported.labels']} are labels of single "
            "responses, from which dpo learns with loss_type kto, but no reward model"
        )
    if dropped := counts["dropped.similar"] + counts["dropped.length"]:
        told.append(f"{dropped} pairs were dropped by max_similarity and balance_length")
    if config.origin == "imported":
        advice = "add a source with use: preferences"
    elif counts["ungraded"] == counts["samples"] > 0:
        advice = "set pairs.grader"
    else:
        advice = "change sample.temperature, raise sample.n, or train the policy further before sampling"
    return f"0 pairs: {'; '.join(told)}. To get some, {advice}."
