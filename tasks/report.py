"""report: one self-contained page that says what each stage changed, and whether the evaluation shows that it helps."""

import json
from pathlib import Path
from typing import Literal

from pydantic import Field

from align.config import Config, Metrics
from align.report.outline import Outline


class ReportConfig(Config):
    """Settings of report."""

    title: str = ""
    """Title of the page; empty: one in its language."""
    language: Literal["en", "ko"] = "en"
    """The language of the page: English or Korean."""
    examples: int = Field(3, ge=0)
    """Dropped rows that are shown per filter rule."""
    answers: int = Field(20, ge=0)
    """Evaluation items whose answers by every model are shown: those on which the stages differ most."""


def report(config: ReportConfig, out: Path, *, outline: Outline, **stages: Path) -> Metrics:
    """Write report.html, page.json (what it says, as JSON), summary.json (the result table) and summary.md from the
    artifacts of all stages, by name; and hacking.parquet (HACKING).

    The page depends on the artifacts alone: it holds no time, path or random choice, and fetches nothing. Raises
    InputError if a stage's artifact is incomplete.
    """
    from align import tables
    from align.report import page
    from align.report.content import content
    from align.report.evidence import VERDICTS

    found = content(outline, stages, title=config.title, language=config.language, examples=config.examples,
                    items=config.answers)  # fmt: skip
    tables.write(out / "hacking.parquet", found["hacking"], tables.HACKING)
    html = page.html(found)
    (out / "report.html").write_text(html, encoding="utf-8")
    (out / "page.json").write_text(json.dumps(found, ensure_ascii=False) + "\n", encoding="utf-8")
    table = json.dumps(found["summary"], indent=1, ensure_ascii=False)
    (out / "summary.json").write_text(table + "\n", encoding="utf-8")
    (out / "summary.md").write_text(page.markdown(found), encoding="utf-8")
    verdicts = [finding["verdict"] for finding in found["findings"]]
    results = found["results"]
    return {
        "models": len(results["models"]),
        "suites": len(results["suites"]),
        "primary": results["primary"],
        **{f"findings.{verdict}": verdicts.count(verdict) for verdict in VERDICTS},
        "hacking": sum(row["found"] for row in found["hacking"]),
        "bytes": len(html.encode()),
    }
