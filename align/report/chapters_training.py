"""The report's chapter on training: losses, and on pairs what became of log-probabilities and implicit rewards."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from align import tables
from align.report import charts
from align.report.chapters import Chapter
from align.report.chapters_models import SIDES
from align.report.wording import nats, number
from align.report.words import say

Metrics = Mapping[str, Any]


def training(stages: Mapping[str, tuple[Path, Metrics]]) -> Chapter:
    """Loss per training stage; on pairs also log-probabilities, with a warning where the chosen fall."""
    chapter = Chapter("training", say("How training went"))
    body = []
    for stage, (folder, m) in stages.items():
        log = _log(folder)
        if not log.get("loss"):
            chapter.note(say("{stage}: there is no training log.", stage=stage))
            continue
        trained = m.get("rows", m.get("pairs"))
        body.append([stage, number(trained), number(m.get("steps", int(log["loss"][-1][0]))),
                     number(m.get("loss.first", log["loss"][0][1])), number(m.get("loss.final", log["loss"][-1][1])),
                     number(m.get("rows.too_long", m.get("pairs.too_long")))])  # fmt: skip
    names = ["stage", "rows or pairs", "steps", "first loss", "final loss", "too long"]
    chapter.table([say(name) for name in names], body)
    for stage, (_, metrics) in stages.items():
        _shift(chapter, stage, metrics)
    chapter.figures(figure for stage, (folder, _) in stages.items() for figure in _curves(stage, _log(folder)))
    return chapter


def _curves(stage: str, log: Mapping[str, list[tuple[int, float]]]) -> list[tuple[str, str, str]]:
    found = []
    if log.get("loss"):
        svg = charts.lines({say("loss"): log["loss"]}, x=say("step"), y=say("loss"), key=f"{stage}-loss")
        found.append((f"{stage}: {say('loss')}", svg, ""))
    for title, names, zero in (
        ("log-probability", {s: f"logps/{s}" for s in SIDES}, False),
        ("implicit reward", {**{s: f"rewards/{s}" for s in SIDES}, "margin": "rewards/margins"}, True),
    ):
        series = {say(label): log[n] for label, n in names.items() if log.get(n)}
        if series:
            colours = {say(label): c for label, c in {**SIDES, "margin": charts.BLUE}.items()}
            key = f"{stage}-{title.replace(' ', '-')}"
            svg = charts.lines(series, x=say("step"), y=say(title), key=key, colours=colours, zero=zero)
            told = say("Relative to the reference, times beta.") if zero else say(
                "Of whole responses, in nats; batches differ.")  # fmt: skip
            found.append((f"{stage}: {say(title)}", svg, told))
    accuracy = log.get("rewards/accuracies") or log.get("accuracy")
    if accuracy:
        what = say("accuracy")
        svg = charts.lines({what: accuracy}, x=say("step"), y=what, key=f"{stage}-accuracy")
        found.append((f"{stage}: {say('preference accuracy')}", svg, say("On the pairs being trained on.")))
    return found


def _shift(chapter: Chapter, stage: str, m: Metrics) -> None:
    """What training on pairs did to the likelihood of the chosen responses."""
    where, label = ("held_out", "held-out") if "logps.chosen_shift.held_out" in m else ("train", "training")
    what = say(f"{label} labels" if "labels" in m else f"{label} pairs")  # of KTO, or of DPO
    chosen, rejected = (m.get(f"logps.{s}_shift.{where}") for s in SIDES)
    if chosen is None or rejected is None:
        return
    text = say(
        "{stage} changed the log-probability of the chosen responses of {what} by {chosen} nats on average, that of "
        "the rejected by {rejected}.", stage=stage, what=what, chosen=nats(chosen), rejected=nats(rejected),
    )  # fmt: skip
    if chosen < 0:
        cure = "The chosen became less likely: a lower rate, an NLL term or fresher pairs are the cures."
        text = f"{text} {say(cure)}"
    chapter.note(text, warn=chosen < 0)


def _log(folder: Path) -> dict[str, list[tuple[int, float]]]:
    log: dict[str, list[tuple[int, float]]] = defaultdict(list)
    if (folder / "training_log.parquet").is_file():
        for row in tables.read(folder / "training_log.parquet"):
            log[row["name"]].append((row["step"], row["value"]))
    return log
