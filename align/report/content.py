"""What the page of a run says, as JSON values, from artifacts. A run that goes on has only some of them."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from align.errors import InputError
from align.report import (
    FORMAT,
    answers,
    chapters,
    chapters_models,
    chapters_training,
    hacking,
    opening,
    page,
    rounds,
)
from align.report.chapters import Chapter
from align.report.evidence import Evidence, load
from align.report.findings import Finding, findings, headline, summary, verdicts
from align.report.outline import Outline
from align.report.words import Language, speaking

Content = dict[str, Any]


def content(
    outline: Outline, stages: Mapping[str, Path], *, title: str, language: Language, examples: int, items: int
) -> Content:
    """Everything on the page, from artifact directories by the names of their stages.

    It depends on them alone: it holds no time, path or random choice. `examples` are shown of each filter rule, and
    `items` of the evaluation. Raises InputError for an artifact that is incomplete.
    """
    with speaking(language):
        return {"format": FORMAT, "language": language, "title": title, **_content(outline, stages, examples, items)}


def _content(outline: Outline, stages: Mapping[str, Path], examples: int, items: int) -> Content:
    metrics = {name: _metrics(folder) for name, folder in stages.items()}
    planned = [part.stage for part in outline.parts if part.stage.partition("_")[0] == "gate"]
    gates = {name: metrics[name] for name in planned if name in metrics}
    outline = rounds.took_place(outline, metrics)
    body = _data(stages, metrics, examples)
    measured = rounds.findings(gates, len(planned))
    if "reward" in stages:
        chapter, measured["reward"] = chapters_models.reward(stages["reward"])
        body.append(chapter)
    if "select" in stages:
        body.append(chapters_models.selection(stages["select"], metrics["select"]))
    if gates:
        body.append(rounds.chapter(gates, len(planned), metrics))
    logged = {name: (stages[name], metrics[name]) for name in sorted(stages, key=outline.place)
              if (stages[name] / "training_log.parquet").is_file()}  # fmt: skip
    if logged:
        body.append(chapters_training.training(logged))
    told: Content = {"chain": None, "promotion": opening.promotion(stages.get("promote")), "lead": [], "findings": [],
                     "results": None, "summary": None, "table": None, "hacking": []}  # fmt: skip
    if "evaluate" in stages:
        evidence = load(stages["evaluate"], metrics["evaluate"], outline)
        found = findings(evidence, measured, metrics.get("filter", {}))
        told |= _evaluated(evidence, found)
        if "ingest" in stages:
            body.insert(0, answers.answers(stages["evaluate"], stages["ingest"], evidence, items))
        graded, data, diagnosed = stages["evaluate"], stages.get("ingest"), stages.get("diagnose")
        told["hacking"] = hacking.rows(graded, evidence, metrics, diagnosed)
        if signs := hacking.chapter(told["hacking"], graded, data, diagnosed, evidence):
            body.insert(1, signs)
    return {**told, "chapters": [asdict(chapter) for chapter in body]}


def _data(stages: Mapping[str, Path], metrics: Mapping[str, Mapping[str, Any]], examples: int) -> list[Chapter]:
    """The chapters on what was read, kept, drawn and labelled."""
    body = []
    data, drawn, fresh = (stages.get(name) for name in ("ingest", "sample", "resample"))
    if data:
        body.append(chapters.ingest(data, metrics["ingest"]))
        if "filter" in stages:
            body.append(chapters.funnel(stages["filter"], data, metrics["filter"], examples))
    if drawn or fresh:
        body.append(chapters_models.sampling(drawn, fresh, stages.get("pairs"), metrics))
    if "pairs" in stages:
        body.append(chapters_models.pairs(stages["pairs"], metrics["pairs"]))
    return body


def _evaluated(evidence: Evidence, found: list[Finding]) -> Content:
    """What the evaluation shows."""
    with speaking("en"):
        table = summary(evidence)
    lead = [headline(evidence), verdicts(found), opening.falls(evidence)]
    return {
        "chain": opening.chain(evidence), "lead": [text for text in lead if text],
        "findings": [asdict(f) for f in found], "results": page.results(evidence), "summary": table,
        "table": summary(evidence),
    }  # fmt: skip


def _metrics(folder: Path) -> Mapping[str, Any]:
    """What a stage reported, as it lies in its artifact."""
    path = folder / "metrics.json"
    if not path.is_file():
        raise InputError(f"{folder.name} holds no metrics.json, so it is not the artifact of a finished stage.")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
