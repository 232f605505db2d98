"""The report: every number right, everything escaped, nothing fetched, equal input gives equal bytes."""

import json
from pathlib import Path

from tasks.report import ReportConfig, report
from tests.artifacts import artifacts


def _report(folder: Path, name: str = "report", **inputs: Path) -> Path:
    out = folder / name
    out.mkdir()
    report(ReportConfig(), out, **inputs)
    return out


def test_page_table_and_summary(tmp_path: Path) -> None:
    inputs = artifacts(tmp_path)
    out = _report(tmp_path, **inputs)
    page = (out / "report.html").read_text()
    assert "<script" not in page and "onerror=alert(1)>" not in page
    table = json.loads((out / "summary.json").read_text())
    assert [row[0] for row in table["rows"]] == ["base", "sft_unfiltered", "sft", "sft_random", "sft_rs", "dpo"]
    again = _report(tmp_path, "again", **inputs)
    assert all((again / f.name).read_bytes() == f.read_bytes() for f in out.iterdir())
