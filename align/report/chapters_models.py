"""The report's chapters on models: samples, pairs, the reward model, selection, training curves and sample answers."""

import math
from collections import Counter, defaultdict
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
from align.report.wording import count, nats, number, percent, plural, points, with_interval

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


def sampling(drawn: Path, fresh: Path, labelled: Path, metrics: Mapping[str, Metrics]) -> Chapter:
    """How many samples were drawn, how many were truncated, and how many prompts have both right and wrong ones."""
    chapter = Chapter("sampling", "What was drawn")
    body = []
    for label, folder, stage in (
        ("for preference pairs", drawn, "sample"),
        ("for rejection sampling", fresh, "resample"),
    ):
        table = columns(folder / "samples.parquet", ["row_id", "finish_reason", "n_tokens"])
        if table is None or not table.num_rows:
            chapter.note(f"There are no samples {label}.")
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
    chapter.table(names, body, "Truncated: the response reached the token limit before its end-of-turn token.")
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
        chapter.note("No sample was graded right or wrong, so how mixed the prompts are is not known.")
        return
    mixed = sum(0 < right[p] < n for p, n in graded.items())
    chapter.lead = (
        f"{count(mixed)} of {plural(len(graded), 'graded prompt')} ({percent(mixed / len(graded))} %) have both right "
        "and wrong samples; only those can give a pair."
    )
    most = max(graded.values())
    shown = Counter(right[p] for p in graded)
    uniform = {0: charts.GREY, most: charts.GREY}
    svg = charts.columns({k: shown.get(k, 0) for k in range(most + 1)}, x="right samples of a prompt", y="prompts",
                         key="mixed", colours=uniform)  # fmt: skip
    chapter.figures([("Right samples per prompt", svg, "Grey: no pair can be made where all are wrong or all right.")])


def pairs(labelled: Path, metrics: Metrics) -> Chapter:
    """How many pairs, by whom, and whether the chosen are longer than the rejected."""
    chapter = Chapter("pairs", "The preference pairs")
    table = pq.read_table(
        labelled / "pairs.parquet", columns=["row_id", "chosen", "rejected", "labelled_by", "held_out"]
    )
    n = table.num_rows
    held = pc.sum(table.column("held_out")).as_py() or 0
    labels = Counter(table.column("labelled_by").to_pylist())
    prompts = pc.count_distinct(table.column("row_id")).as_py()
    chapter.lead = f"{plural(n, 'pair')} on {plural(prompts, 'prompt')}; {count(held)} held out from training."
    chapter.facts(
        [
            ("imported" if by == "imported" else f"labelled by {by}", count(c))
            for by, c in sorted(labels.items(), key=str)
        ]
    )
    lengths = {s: pc.fill_null(pc.utf8_length(table.column(s)), 0).to_numpy() for s in SIDES}
    longer, shorter = (int((op(lengths["chosen"], lengths["rejected"])).sum()) for op in (np.greater, np.less))
    if n and longer + shorter:
        share = stats.wilson(longer, longer + shorter)
        mean = {side: number(float(values.mean())) for side, values in lengths.items()}
        text = (
            f"The chosen response is the longer one in {percent(share.value)} % of the pairs that differ in length "
            f"[{percent(share.low)}, {percent(share.high)}]; on average {mean['chosen']} against {mean['rejected']} "
            "characters."
        )
        if share.low > 0.5:
            chapter.note(f"{text} A model can learn from these pairs that longer is better.", warn=share.low > 0.6)
        else:
            chapter.note(text)
    if n:
        svg = charts.distribution(lengths, x="characters", key="pair-length", colours=SIDES, clip=0.99)
        chapter.figures([("Response length", svg, "Share of pairs per bin; the longest 1 % count in the last bin.")])
    if fates := [[label, number(metrics[k])] for k, label in FATES.items() if metrics.get(k)]:
        chapter.table(["what became of what was read", "number"], fates)
    return chapter


def reward(folder: Path) -> tuple[Chapter, Finding]:
    """Held-out accuracy against a length baseline, the margins, and calibration."""
    chapter = Chapter("reward", "The reward model")
    rows = tables.read(folder / "held_out.parquet") if (folder / "held_out.parquet").is_file() else []
    if not rows:
        text = "Not measured: no pair was held out from the reward model's training."
        chapter.note(text)
        return chapter, Finding("Reward model", "unknown", text)
    margins = np.array([r["chosen_score"] - r["rejected_score"] for r in rows])
    right = np.where(margins == 0, 0.5, margins > 0)
    extra = np.array([r["chosen_tokens"] - r["rejected_tokens"] for r in rows])
    longer = np.where(extra == 0, 0.5, extra > 0)
    rule, baseline = ("longer", longer) if longer.mean() >= 0.5 else ("shorter", 1 - longer)
    share, gain = stats.wilson(float(right.sum()), len(rows)), paired(right - baseline)
    verdict = kind_of(gain.verdict)
    accuracy = f"{percent(share.value)} % [{percent(share.low)}, {percent(share.high)}]"
    apart = f"{points(gain.value)} points [{points(gain.low, False)}, {points(gain.high, False)}]"
    text = (
        f"The reward model prefers the chosen response in {accuracy} of {plural(len(rows), 'held-out pair')}; always "
        f"taking the {rule} one is right in {percent(float(baseline.mean()))} %, a difference of {apart}"
        f"{doubt(verdict, gain.differ, gain.p)}."
    )
    chapter.lead = text
    figures = [(
        "Margin of the chosen response",
        charts.distribution({"margin": margins}, x="reward of chosen − rejected", key="reward-margin", rule=0.0),
        "Right of the line the reward model agrees with the label.",
    )]  # fmt: skip
    if points_ := _calibration(margins):
        svg = charts.calibration(points_, x="stated probability", y="share right", key="reward-calibration")
        figures.append(("Calibration", svg, "Held-out pairs in bins of equal size; on the dashed line it is as often "
                        "right as it says. Lines: 95 % intervals."))  # fmt: skip
    both = {side: [r[f"{side}_score"] for r in rows] for side in SIDES}
    figures.append(("Rewards", charts.distribution(both, x="reward", key="reward-scores", colours=SIDES), ""))
    chapter.figures(figures)
    file = folder / "reward_accuracy.parquet"
    if len(groups := tables.read(file) if file.is_file() else []) > 2:
        cells = [[g["by"], g["name"] or "", count(g["pairs"]), with_interval(g["accuracy"], g["low"], g["high"])]
                 for g in groups]  # fmt: skip
        chapter.table(["by", "name", "held-out pairs", "right %"], cells, text=2)
    return chapter, Finding("Reward model", verdict, text)


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
    chapter = Chapter("selection", "What rejection sampling chose")
    chosen = columns(selected / "selections.parquet", ["sample_id", "arm"])
    scores = columns(selected / "scores.parquet", ["sample_id", "score"])
    if chosen is None or scores is None:
        chapter.note("The selection is missing.")
        return chapter
    score_of = dict(zip(*(scores.column(n).to_pylist() for n in ("sample_id", "score")), strict=True))
    groups: dict[str, list[float]] = {"all samples": [s for s in score_of.values() if s is not None]}
    for row in chosen.to_pylist():
        score = score_of.get(row["sample_id"])
        if score is not None:
            groups.setdefault(f"{row['arm']} of n", []).append(score)
    mean = {g: math.fsum(v) / len(v) for g, v in groups.items() if v}
    if {"best of n", "random of n"} <= mean.keys():
        chapter.lead = (
            f"{plural(len(groups['best of n']), 'prompt')} kept. The best of n has a mean reward of "
            f"{number(mean['best of n'])}, a random one of the same n {number(mean['random of n'])}. The reward says "
            "how much the reward model likes them; whether they are better shows only in the evaluation."
        )
    if metrics.get("best_of.gamed_from"):
        chapter.lead += (
            f" The reward is being gamed: the best of {number(metrics['best_of.n'])} has a higher reward than the best "
            f"of {number(metrics['best_of.gamed_from'])}, and is shown to have a lower grade."
        )
    rest = [("samples scored", "samples"), ("of them eligible", "samples.eligible"), ("truncated", "samples.truncated"),
            ("prompts", "prompts"), ("prompts kept", "prompts.kept")]  # fmt: skip
    facts = [(label, number(metrics[k])) for label, k in rest if k in metrics]
    if "share.same" in metrics:
        facts.append(("both arms hold the same response", f"{percent(metrics['share.same'])} %"))
    for label, key in (("a random one", "grade.random"), ("the best of n by reward", "grade.best"),
                       ("the best of n by the grader", "grade.oracle")):  # fmt: skip
        if key in metrics:
            facts.append((f"mean grade of {label}", f"{percent(metrics[key])} %"))
    chapter.facts(facts)
    colours = {"all samples": charts.GREY, "best of n": charts.BLUE, "random of n": charts.ORANGE}
    groups = {g: v for g, v in groups.items() if v}
    if groups:
        svg = charts.distribution(groups, x="reward", key="selection", colours=colours)
        chapter.figures([("Rewards", svg, "Share of the responses per bin.")])
    return chapter


def training(stages: Mapping[str, tuple[Path, Metrics]]) -> Chapter:
    """Loss per training stage; on pairs also log-probabilities, with a warning where the chosen fall."""
    chapter = Chapter("training", "How training went")
    body = []
    for stage, (folder, m) in stages.items():
        log = _log(folder)
        if not log.get("loss"):
            chapter.note(f"{stage}: there is no training log.")
            continue
        trained = m.get("rows", m.get("pairs"))
        body.append([stage, number(trained), number(m.get("steps", int(log["loss"][-1][0]))),
                     number(m.get("loss.first", log["loss"][0][1])), number(m.get("loss.final", log["loss"][-1][1])),
                     number(m.get("rows.too_long", m.get("pairs.too_long")))])  # fmt: skip
    chapter.table(["stage", "rows or pairs", "steps", "first loss", "final loss", "too long"], body)
    for stage, (_, metrics) in stages.items():
        _shift(chapter, stage, metrics)
    chapter.figures(figure for stage, (folder, _) in stages.items() for figure in _curves(stage, _log(folder)))
    return chapter


def _curves(stage: str, log: Mapping[str, list[tuple[int, float]]]) -> list[tuple[str, str, str]]:
    found = []
    if log.get("loss"):
        svg = charts.lines({"loss": log["loss"]}, x="step", y="loss", key=f"{stage}-loss")
        found.append((f"{stage}: loss", svg, ""))
    for title, names, zero in (
        ("log-probability", {s: f"logps/{s}" for s in SIDES}, False),
        ("implicit reward", {**{s: f"rewards/{s}" for s in SIDES}, "margin": "rewards/margins"}, True),
    ):
        series = {label: log[n] for label, n in names.items() if log.get(n)}
        if series:
            colours = {**SIDES, "margin": charts.BLUE}
            key = f"{stage}-{title.replace(' ', '-')}"
            svg = charts.lines(series, x="step", y=title, key=key, colours=colours, zero=zero)
            found.append((f"{stage}: {title}", svg, "Relative to the reference, times beta." if zero else
                          "Of whole responses, in nats; batches differ."))  # fmt: skip
    accuracy = log.get("rewards/accuracies") or log.get("accuracy")
    if accuracy:
        svg = charts.lines({"accuracy": accuracy}, x="step", y="accuracy", key=f"{stage}-accuracy")
        found.append((f"{stage}: preference accuracy", svg, "On the pairs being trained on."))
    return found


def _shift(chapter: Chapter, stage: str, m: Metrics) -> None:
    """What training on pairs did to the likelihood of the chosen responses."""
    where, label = ("held_out", "held-out") if "logps.chosen_shift.held_out" in m else ("train", "training")
    what = "labels" if "labels" in m else "pairs"  # of KTO, or of DPO
    chosen, rejected = (m.get(f"logps.{s}_shift.{where}") for s in SIDES)
    if chosen is None or rejected is None:
        return
    text = (
        f"{stage} changed the log-probability of the chosen responses of {label} {what} by {nats(chosen)} nats on "
        f"average, that of the rejected by {nats(rejected)}."
    )
    if chosen < 0:
        text += " The chosen became less likely: a lower rate, an NLL term or fresher pairs are the cures."
    chapter.note(text, warn=chosen < 0)


def _log(folder: Path) -> dict[str, list[tuple[int, float]]]:
    log: dict[str, list[tuple[int, float]]] = defaultdict(list)
    if (folder / "training_log.parquet").is_file():
        for row in tables.read(folder / "training_log.parquet"):
            log[row["name"]].append((row["step"], row["value"]))
    return log
