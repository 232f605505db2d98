"""The report as HTML and as Markdown."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from align.report import charts
from align.report.chapters import Chapter
from align.report.evidence import VERDICTS, Difference, Evidence
from align.report.findings import Finding, accuracy, questions, totals
from align.report.wording import count, percent, points

TEMPLATE = "templates/report.html.jinja"


def html(
    title: str, lead: Sequence[str], findings: Sequence[Finding], evidence: Evidence, chapters: Sequence[Chapter]
) -> str:
    """The page, complete in itself. Everything that comes from data is escaped."""
    return render(
        TEMPLATE,
        title=title,
        lead=lead,
        findings=findings,
        verdicts=VERDICTS,
        suites=[_suite(evidence, suite) for suite in evidence.suites],
        primary=evidence.primary,
        first=evidence.first,
        chapters=chapters,
    )


def render(template: str, **values: Any) -> str:
    """A template beside the report's, filled in. Everything is escaped but what a template passes through `svg`."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    path = Path(__file__).parent / template
    environment = Environment(
        loader=FileSystemLoader(path.parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["svg"] = Markup  # only ever applied to charts, whose texts the renderer has escaped
    return environment.get_template(path.name).render(**values)


def _suite(evidence: Evidence, suite: str) -> dict[str, Any]:
    """The result table and the forest plots of a suite."""
    modes = sorted(evidence.modes, key=lambda m: m != "greedy")
    rows = []
    for model in evidence.models:
        results = {m: r for m in modes if (r := evidence.result(suite, model, m))}
        if not results:
            continue
        delta = evidence.difference(suite, evidence.primary, model, evidence.first)
        rows.append({
            "model": model,
            "what": title if (title := evidence.outline.title(model)).casefold() != model else "",
            "control": evidence.outline.is_control(model),
            "cells": [
                {"mean": percent(r.mean), "interval": accuracy(r).partition(" ")[2], "graded": r.mean is not None}
                if (r := results.get(m)) else None for m in modes
            ],
            "delta": {"value": points(delta.diff), "low": points(delta.low, False), "high": points(delta.high, False),
                      "verdict": delta.verdict} if delta else None,
            "questions": questions(list(results.values())),
            "answers": count(sum(r.answers for r in results.values())),
            "totals": totals(list(results.values())),
        })  # fmt: skip
    measure, plots = evidence.measures[suite], _plots(evidence, suite)
    return {"name": suite, "measure": measure, "modes": modes, "rows": rows, "plots": plots}


def _plots(evidence: Evidence, suite: str) -> list[dict[str, Any]]:
    """A forest plot per metric, the primary first, of the comparisons that the findings are about."""
    plots = []
    pairs = {(asked.model, asked.against) for asked in evidence.outline.questions}
    for mode in evidence.modes:
        metric = f"{mode} {evidence.measures[suite]}"
        found = [d for (s, m, *_), d in evidence.differences.items() if (s, m) == (suite, mode) and _later(evidence, d)]
        # differences to an untuned base are so large that beside them no other could be read
        asked = [d for d in found if (d.model, d.against) in pairs]
        data = [_line(d) for d in asked if d.against != "base"] or [_line(d) for d in found]
        if data:
            key = f"forest-{evidence.suites.index(suite)}-{mode}"
            plots.append({
                "title": metric,
                "primary": mode == evidence.primary,
                "svg": charts.forest(data, x="percentage points", key=key),
                "rows": [
                    (d.model, d.against, points(d.diff), span(d), count(d.n), count(d.differ), VERDICTS[d.verdict])
                    for d in found
                ],
            })  # fmt: skip
    return plots


def _later(evidence: Evidence, d: Difference) -> bool:
    """Whether the model stands after the one that it is compared with: of each pair one direction is enough."""
    return evidence.outline.place(d.model) > evidence.outline.place(d.against)


def span(d: Difference) -> str:
    """The interval of a difference, in points."""
    return f"[{points(d.low, False)}, {points(d.high, False)}]"


def _line(d: Difference) -> dict[str, Any]:
    ends = {k: round(100 * v, 3) for k, v in (("diff", d.diff), ("low", d.low), ("high", d.high))}
    return {"label": f"{d.model} \u2212 {d.against}", "kind": d.verdict, **ends}


def markdown(title: str, lead: Sequence[str], findings: Sequence[Finding], table: Mapping[str, Sequence[Any]]) -> str:
    """The findings and the result table for the Prefect UI and a README."""

    def line(cells: Sequence[Any]) -> str:
        return f"| {' | '.join(str(c).replace('|', chr(92) + '|') for c in cells)} |"

    rule = ["---", *("---:" for _ in table["columns"][1:])]
    result = [line(table["columns"]), line(rule), *map(line, table["rows"])]
    claims = [f"- **{f.topic}{' · ' if f.suite else ''}{f.suite}** ({VERDICTS[f.verdict]}): {f.text}" for f in findings]
    # names of suites come from recipes: what is markup in them stays text
    return escape("\n".join([f"# {title}", "", "\n\n".join(lead), "", *result, "", *claims, ""]), quote=False)
