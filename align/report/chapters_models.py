"""The report's chapters on models: samples, pairs, the reward model and selection."""

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from align import stats, tables
from align.paired import paired
from align.report import charts
from align.report.chapters import Chapter, columns
from align.report.evidence import kind_of
from align.report.findings import Finding, doubt
from align.report.wording import count, number, percent, points, with_interval
from align.report.words import say

Metrics = Mapping[str, Any]
FATES = {
    "samples": "samples", "unreadable": "samples that the grader could not read (they count as wrong)",
    "ungraded": "samples that could not be graded", "truncated": "samples truncated",
    "identical": "samples equal to another of their prompt", "prompts": "prompts",
    "prompts.paired": "prompts with a pair", "prompts.all_correct": "prompts with right samples only",
    "prompts.all_wrong": "prompts with wrong samples only", "prompts.ungraded": "prompts without a graded sample",
    "prompts.no_margin": "prompts whose samples may not be paired",
    "reference_chosen": "pairs whose chosen response is the reference", "imported.read": "imported preferences",
    "imported.labels": "of them labels of single responses",
    "imported.empty": "of them with an empty response", "imported.identical": "of them with two equal responses",
}  # fmt: skip
SIDES = {"chosen": charts.GREEN, "rejected": charts.RED}


def sampling(drawn: Path | None, fresh: Path | None, labelled: Path | None, metrics: Mapping[str, Metrics]) -> Chapter:
    """How many samples were drawn, how many were truncated, and how many prompts have both right and wrong ones.

    Of a run that goes on, artifacts may be missing.
    """
    chapter = Chapter("sampling", say("What was drawn"))
    body = []
    for label, folder, stage in (
        (say("for preference pairs"), drawn, "sample"),
        (say("for rejection sampling"), fresh, "resample"),
    ):
        if folder is None:
            continue
        table = columns(folder / "samples.parquet", ["row_id", "finish_reason", "n_tokens"])
        if table is None or not table.num_rows:
            chapter.note(say("There are no samples {what}.", what=label))
            continue
        cut = pc.sum(pc.equal(table.column("finish_reason"), "truncated")).as_py() or 0
        prompts = pc.count_distinct(table.column("row_id")).as_py()
        left = metrics[stage].get("prompts_too_long")
        body.append([
            label, count(prompts), count(table.num_rows), number(table.num_rows / prompts),
            number(float(pc.mean(table.column("n_tokens")).as_py() or 0)), f"{percent(cut / table.num_rows)} %",
            number(left),
        ])  # fmt: skip
    names = ["samples", "prompts", "samples", "per prompt", "mean tokens", "truncated", "prompts too long"]
    caption = say("Truncated: the response reached the token limit before its end-of-turn token.")
    chapter.table([say(name) for name in names], body, caption)
    if drawn and labelled:
        _mixed(chapter, drawn, labelled)
    return chapter


def _mixed(chapter: Chapter, drawn: Path, labelled: Path) -> None:
    scores = columns(labelled / "scores.parquet", ["sample_id", "status"])
    samples = columns(drawn / "samples.parquet", ["sample_id", "row_id"])
    if scores is None or samples is None:
        return
    prompt_of = dict(zip(*(samples.column(n).to_pylist() for n in ("sample_id", "row_id")), strict=True))
    right: Counter[str] = Counter()
    graded: Counter[str] = Counter()
    for row in scores.to_pylist():
        if row["status"] in ("correct", "wrong", "unreadable") and row["sample_id"] in prompt_of:
            graded[prompt_of[row["sample_id"]]] += 1
            right[prompt_of[row["sample_id"]]] += row["status"] == "correct"
    if not graded:
        chapter.note(say("No sample was graded right or wrong, so how mixed the prompts are is not known."))
        return
    mixed = sum(0 < right[p] < n for p, n in graded.items())
    chapter.lead = say(
        "{mixed} of {n:graded prompt} ({share} %) have both right and wrong samples; only those can give a pair.",
        mixed=mixed, n=len(graded), share=percent(mixed / len(graded)),
    )  # fmt: skip
    most = max(graded.values())
    shown = Counter(right[p] for p in graded)
    uniform = {0: charts.GREY, most: charts.GREY}
    svg = charts.columns({k: shown.get(k, 0) for k in range(most + 1)}, x=say("right samples of a prompt"),
                         y=say("prompts"), key="mixed", colours=uniform)  # fmt: skip
    told = say("Grey: no pair can be made where all are wrong or all right.")
    chapter.figures([(say("Right samples per prompt"), svg, told)])


def pairs(labelled: Path, metrics: Metrics) -> Chapter:
    """How many pairs, by whom, and whether the chosen are longer than the rejected."""
    chapter = Chapter("pairs", say("The preference pairs"))
    table = pq.read_table(
        labelled / "pairs.parquet", columns=["row_id", "chosen", "rejected", "labelled_by", "held_out"]
    )
    n = table.num_rows
    held = pc.sum(table.column("held_out")).as_py() or 0
    labels = Counter(table.column("labelled_by").to_pylist())
    prompts = pc.count_distinct(table.column("row_id")).as_py()
    text = "{pairs:pair} on {prompts:prompt}; {held} held out from training."
    chapter.lead = say(text, pairs=n, prompts=prompts, held=held)
    chapter.facts(
        [
            (say("imported") if by == "imported" else say("labelled by {grader}", grader=by), count(c))
            for by, c in sorted(labels.items(), key=str)
        ]
    )
    lengths = {s: pc.fill_null(pc.utf8_length(table.column(s)), 0).to_numpy() for s in SIDES}
    longer, shorter = (int((op(lengths["chosen"], lengths["rejected"])).sum()) for op in (np.greater, np.less))
    if n and longer + shorter:
        share = stats.wilson(longer, longer + shorter)
        mean = {side: number(float(values.mean())) for side, values in lengths.items()}
        text = say(
            "The chosen response is the longer one in {share} % of the pairs that differ in length [{low}, {high}]; on "
            "average {chosen} against {rejected} characters.",
            share=percent(share.value), low=percent(share.low), high=percent(share.high), **mean,
        )  # fmt: skip
        if share.low > 0.5:
            lesson = say("A model can learn from these pairs that longer is better.")
            chapter.note(f"{text} {lesson}", warn=share.low > 0.6)
        else:
            chapter.note(text)
    if n:
        named, colours = {say(s): of for s, of in lengths.items()}, {say(s): c for s, c in SIDES.items()}
        svg = charts.distribution(named, x=say("characters"), key="pair-length", colours=colours, clip=0.99)
        told = say("Share of pairs per bin; the longest 1 % count in the last bin.")
        chapter.figures([(say("Response length"), svg, told)])
    if fates := [[say(label), number(metrics[k])] for k, label in FATES.items() if metrics.get(k)]:
        chapter.table([say("what became of what was read"), say("number")], fates)
    return chapter


def reward(folder: Path) -> tuple[Chapter, Finding]:
    """Held-out accuracy against a length baseline, the margins, and calibration."""
    chapter = Chapter("reward", say("The reward model"))
    rows = tables.read(folder / "held_out.parquet") if (folder / "held_out.parquet").is_file() else []
    if not rows:
        text = say("Not measured: no pair was held out from the reward model's training.")
        chapter.note(text)
        return chapter, Finding(say("Reward model"), "unknown", text)
    margins = np.array([r["chosen_score"] - r["rejected_score"] for r in rows])
    right = np.where(margins == 0, 0.5, margins > 0)
    extra = np.array([r["chosen_tokens"] - r["rejected_tokens"] for r in rows])
    longer = np.where(extra == 0, 0.5, extra > 0)
    baseline = longer if longer.mean() >= 0.5 else 1 - longer
    share, gain = stats.wilson(float(right.sum()), len(rows)), paired(right - baseline)
    verdict = kind_of(gain.verdict)
    accuracy = say("{share} %", share=percent(share.value)) + f" [{percent(share.low)}, {percent(share.high)}]"
    apart = say("{points} points", points=points(gain.value))
    apart += (
        f" [{points(max(-1.0, gain.low), False)}, {points(min(1.0, gain.high), False)}]"  # shares differ by 1 at most
    )
    text = say(
        "The reward model prefers the chosen response in {accuracy} of {n:held-out pair}; always taking the longer one "
        "is right in {baseline} %, a difference of {apart}{doubt}." if baseline is longer else
        "The reward model prefers the chosen response in {accuracy} of {n:held-out pair}; always taking the shorter "
        "one is right in {baseline} %, a difference of {apart}{doubt}.",
        accuracy=accuracy, n=len(rows), baseline=percent(float(baseline.mean())), apart=apart,
        doubt=doubt(verdict, gain.differ, gain.p),
    )  # fmt: skip
    chapter.lead = text
    x = say("reward of chosen − rejected")
    figures = [(
        say("Margin of the chosen response"),
        charts.distribution({say("margin"): margins}, x=x, key="reward-margin", rule=0.0),
        say("Right of the line the reward model agrees with the label."),
    )]  # fmt: skip
    if points_ := _calibration(margins):
        svg = charts.calibration(points_, x=say("stated probability"), y=say("share right"), key="reward-calibration")
        told = (
            "Held-out pairs in bins of equal size; on the dashed line it is as often right as it says. Lines: 95 % "
            "intervals."
        )
        figures.append((say("Calibration"), svg, say(told)))
    both = {say(side): [r[f"{side}_score"] for r in rows] for side in SIDES}
    colours = {say(side): colour for side, colour in SIDES.items()}
    svg = charts.distribution(both, x=say("reward"), key="reward-scores", colours=colours)
    figures.append((say("Rewards"), svg, ""))
    chapter.figures(figures)
    file = folder / "reward_accuracy.parquet"
    if len(groups := tables.read(file) if file.is_file() else []) > 2:
        by = {"all": say("all"), "source": say("source"), "category": say("category")}
        cells = [[by[g["by"]], g["name"] or "", count(g["pairs"]), with_interval(g["accuracy"], g["low"], g["high"])]
                 for g in groups]  # fmt: skip
        chapter.table([say("by"), say("name"), say("held-out pairs"), say("right %")], cells, text=2)
    return chapter, Finding(say("Reward model"), verdict, text)


def _calibration(margins: Any) -> list[tuple[float, float, float, float, int]]:
    """(mean stated probability of its choice, share right, low, high, n) in up to 8 bins of equal size."""
    decided = margins[margins != 0]
    order = decided[np.argsort(np.abs(decided), kind="stable")]
    bins = min(8, len(order) // 10)
    found = []
    for part in np.array_split(order, bins) if bins else []:
        right = stats.wilson(int((part > 0).sum()), len(part))
        stated = float((1 / (1 + np.exp(-np.abs(part)))).mean())
        found.append((stated, right.value, right.low, right.high, len(part)))
    return found


def selection(selected: Path, metrics: Metrics) -> Chapter:
    """The rewards of the best of n beside those of the random of n and of everything that was drawn."""
    chapter = Chapter("selection", say("What rejection sampling chose"))
    chosen = columns(selected / "selections.parquet", ["sample_id", "arm"])
    scores = columns(selected / "scores.parquet", ["sample_id", "score"])
    if chosen is None or scores is None:
        chapter.note(say("The selection is missing."))
        return chapter
    score_of = dict(zip(*(scores.column(n).to_pylist() for n in ("sample_id", "score")), strict=True))
    groups: dict[str, list[float]] = {"all samples": [s for s in score_of.values() if s is not None]}
    for row in chosen.to_pylist():
        score = score_of.get(row["sample_id"])
        if score is not None:
            groups.setdefault(f"{row['arm']} of n", []).append(score)
    mean = {g: math.fsum(v) / len(v) for g, v in groups.items() if v}
    if {"best of n", "random of n"} <= mean.keys():
        chapter.lead = say(
            "{n:prompt} kept. The best of n has a mean reward of {best}, a random one of the same n {random}. The "
            "reward says how much the reward model likes them; whether they are better shows only in the evaluation.",
            n=len(groups["best of n"]), best=number(mean["best of n"]), random=number(mean["random of n"]),
        )  # fmt: skip
    if metrics.get("best_of.gamed_from"):
        chapter.lead += " " + say(
            "The reward is being gamed: the best of {n} has a higher reward than the best of {less}, and is shown to "
            "have a lower grade.", n=number(metrics["best_of.n"]), less=number(metrics["best_of.gamed_from"]),
        )  # fmt: skip
    rest = [("samples scored", "samples"), ("of them eligible", "samples.eligible"), ("truncated", "samples.truncated"),
            ("prompts", "prompts"), ("prompts kept", "prompts.kept")]  # fmt: skip
    facts = [(say(label), number(metrics[k])) for label, k in rest if k in metrics]
    if "share.same" in metrics:
        facts.append((say("both arms hold the same response"), f"{percent(metrics['share.same'])} %"))
    for label, key in (("mean grade of a random one", "grade.random"),
                       ("mean grade of the best of n by reward", "grade.best"),
                       ("mean grade of the best of n by the grader", "grade.oracle")):  # fmt: skip
        if key in metrics:
            facts.append((say(label), f"{percent(metrics[key])} %"))
    chapter.facts(facts)
    colours = {"all samples": charts.GREY, "best of n": charts.BLUE, "random of n": charts.ORANGE}
    groups = {say(g): v for g, v in groups.items() if v}
    if groups:
        named = {say(g): colour for g, colour in colours.items()}
        svg = charts.distribution(groups, x=say("reward"), key="selection", colours=named)
        chapter.figures([(say("Rewards"), svg, say("Share of the responses per bin."))])
    return chapter
