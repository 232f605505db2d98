"""report: one self-contained page that says what each stage changed, and whether the evaluation shows that it helps."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from align.config import Config, Metrics
from align.errors import InputError
from align.report.outline import Outline


class ReportConfig(Config):
    """Settings of report."""

    title: str = "Alignment report"
    """Title of the page."""
    examples: int = Field(3, ge=0)
    """Dropped rows that are shown per filter rule."""
    answers: int = Field(8, ge=0)
    """Evaluation questions whose answers by every model are shown."""


def report(config: ReportConfig, out: Path, *, outline: Outline, **stages: Path) -> Metrics:
    """Write report.html, summary.json (the result table) and summary.md from the artifacts of all stages, by name.

    The page depends on the artifacts alone: it holds no time, path or random choice, and fetches nothing. Raises
    InputError if a stage's artifact is incomplete.
    """
    from align.report import answers, chapters, chapters_models, page, rounds
    from align.report.evidence import VERDICTS, load
    from align.report.findings import findings, headline, summary, verdicts

    metrics = {name: _metrics(folder) for name, folder in stages.items()}
    data, filtered, graded = stages["ingest"], stages["filter"], stages["evaluate"]
    planned = [part.stage for part in outline.parts if part.stage.partition("_")[0] == "gate"]
    gates = {name: metrics[name] for name in planned if name in metrics}
    outline = rounds.took_place(outline, metrics)
    evidence = load(graded, metrics["evaluate"], outline)
    reward, judged = chapters_models.reward(stages["reward"])
    measured = {"reward": judged, **rounds.findings(gates, len(planned))}
    found = findings(evidence, measured, metrics["filter"])
    logged = {name: (stages[name], metrics[name]) for name in sorted(stages, key=outline.place)
              if (stages[name] / "training_log.parquet").is_file()}  # fmt: skip
    body = [
        chapters.ingest(data, metrics["ingest"]),
        chapters.funnel(filtered, data, metrics["filter"], config.examples),
        chapters_models.sampling(stages["sample"], stages["resample"], stages["pairs"], metrics),
        chapters_models.pairs(stages["pairs"], metrics["pairs"]),
        reward,
        chapters_models.selection(stages["select"], metrics["select"]),
        *([rounds.chapter(gates, len(planned))] if gates else []),
        chapters_models.training(logged),
        answers.answers(graded, data, evidence, config.answers),
    ]
    table = summary(evidence)
    lead = [*_promotion(stages.get("promote")), headline(evidence), verdicts(evidence, found)]
    html = page.html(config.title, lead, found, evidence, body)
    (out / "report.html").write_text(html, encoding="utf-8")
    (out / "summary.json").write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / "summary.md").write_text(page.markdown(config.title, lead, found, table), encoding="utf-8")
    return {
        "models": len(evidence.models),
        "suites": len(evidence.suites),
        "primary": evidence.primary,
        **{f"findings.{verdict}": sum(f.verdict == verdict for f in found) for verdict in VERDICTS},
        "bytes": len(html.encode()),
    }


def _promotion(folder: Path | None) -> list[str]:
    """Whether the final model may become champion, and why, where that was asked."""
    if folder is None:
        return []
    said = json.loads((folder / "promotion.json").read_text(encoding="utf-8"))
    may = "is fit to be champion" if said["promoted"] else "does not become champion"
    return [f"{said['model']} {may}: {said['verdict']}."]


def _metrics(folder: Path) -> Mapping[str, Any]:
    """What a stage reported, as it lies in its artifact."""
    path = folder / "metrics.json"
    if not path.is_file():
        raise InputError(f"{folder.name} holds no metrics.json, so it is not the artifact of a finished stage.")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
