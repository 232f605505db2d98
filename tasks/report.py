"""report: one self-contained page that says what each stage changed, and whether the evaluation shows that it helps."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from align.config import Config
from align.errors import InputError


class ReportConfig(Config):
    """Settings of report."""

    title: str = "Alignment report"
    """Title of the page."""
    examples: int = Field(3, ge=0)
    """Dropped rows that are shown per filter rule."""
    answers: int = Field(8, ge=0)
    """Evaluation questions whose answers by every model are shown."""


def report(
    config: ReportConfig,
    out: Path,
    *,
    data: Path,
    filtered: Path,
    drawn: Path,
    labelled: Path,
    reward: Path,
    fresh: Path,
    selected: Path,
    graded: Path,
    **arms: Path,
) -> dict[str, float | int | str]:
    """Write report.html, summary.json (the result table) and summary.md from the artifacts of all stages.

    `arms` are the training artifacts that were evaluated, by name. The page depends on the artifacts alone: it holds no
    time, path or random choice, and fetches nothing. Raises InputError if a stage's artifact is incomplete.
    """
    from align.report import answers, chapters, chapters_models, page
    from align.report.evidence import load
    from align.report.findings import findings, headline, summary, verdicts

    folders = {"data": data, "filtered": filtered, "drawn": drawn, "labelled": labelled, "reward": reward,
               "fresh": fresh, "selected": selected, "graded": graded, **arms}  # fmt: skip
    metrics = {name: _metrics(folder) for name, folder in folders.items()}
    evidence = load(graded, metrics["graded"])
    order = [name for name in ("sft_unfiltered", "sft", "reward", "sft_random", "sft_rs", "dpo") if name in folders]
    stages = {n: (folders[n], metrics[n]) for n in [*order, *sorted(arms.keys() - set(order))]}
    judge, judged = chapters_models.reward(reward)
    found = findings(evidence, judged, metrics["filtered"])
    body = [
        chapters.ingest(data, metrics["data"]),
        chapters.funnel(filtered, data, metrics["filtered"], config.examples),
        chapters_models.sampling(drawn, fresh, labelled, metrics),
        chapters_models.pairs(labelled, metrics["labelled"]),
        judge,
        chapters_models.selection(selected, metrics["selected"]),
        chapters_models.training(stages),
        answers.answers(graded, data, evidence, config.answers),
    ]
    table = summary(evidence)
    lead = [headline(evidence), verdicts(found)]
    html = page.html(config.title, lead, found, evidence, body)
    (out / "report.html").write_text(html, encoding="utf-8")
    (out / "summary.json").write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / "summary.md").write_text(page.markdown(config.title, lead, found, table), encoding="utf-8")
    return {
        "models": len(evidence.models),
        "suites": len(evidence.suites),
        "primary": evidence.primary,
        **{f"findings.{verdict}": sum(f.verdict == verdict for f in found) for verdict in page.VERDICTS},
        "bytes": len(html.encode()),
    }


def _metrics(folder: Path) -> Mapping[str, Any]:
    """What a stage reported, as it lies in its artifact."""
    path = folder / "metrics.json"
    if not path.is_file():
        raise InputError(f"{folder.name} holds no metrics.json, so it is not the artifact of a finished stage.")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
