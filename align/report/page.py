"""The report as HTML and as Markdown."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from align.report import charts
from align.report.evidence import VERDICTS, Difference, Evidence
from align.report.findings import accuracy, interval, metric, questions, totals
from align.report.opening import told
from align.report.wording import count, percent, points
from align.report.words import Language, say, speaking, spoken

TEMPLATE = "templates/report.html.jinja"
SCRIPT = "templates/examples.js"


def html(content: Mapping[str, Any], more: Sequence[Mapping[str, Any]] = (), **extra: Any) -> str:
    """The page of what align/report/content.py found, complete in itself, with chapters `more` behind its own.

    Everything that comes from data is escaped. `extra` are further values of the template.
    """
    language: Language = content["language"]
    with speaking(language):
        given = {**content, "title": content["title"] or say("Alignment report"), **extra}
        chapters = [*content["chapters"], *more]
        browsed = any(block["kind"] == "examples" for chapter in chapters for block in chapter["blocks"])
        return render(
            TEMPLATE, **given | {"chapters": chapters, "verdicts": VERDICTS, "script": SCRIPT if browsed else ""}
        )


def render(template: str, **values: Any) -> str:
    """A template beside the report's, filled in, in the language that is spoken.

    Everything is escaped but what a template passes through `svg`. The page may load nothing, and runs no script but
    the file `script` beside the template, which is put into it.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    path = Path(__file__).parent / template
    environment = Environment(
        loader=FileSystemLoader(path.parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["svg"] = Markup  # only ever applied to charts, whose texts the renderer has escaped
    script = values.pop("script", "")
    code = (Path(__file__).parent / script).read_text(encoding="utf-8") if script else ""
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    allowed = f"'sha256-{digest}'" if code else "'none'"
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed}; base-uri 'none'; form-action 'none'"
    environment.globals |= {"say": say, "language": spoken(), "code": Markup(code), "policy": policy}
    return environment.get_template(path.name).render(**values)


def results(evidence: Evidence) -> dict[str, Any]:
    """The result table and the forest plots of each suite."""
    return {
        "models": evidence.models, "primary": evidence.primary, "first": evidence.first,
        "suites": [_suite(evidence, suite) for suite in evidence.suites],
    }  # fmt: skip


def _suite(evidence: Evidence, suite: str) -> dict[str, Any]:
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
    shown = [{"mode": mode, "metric": metric(evidence, suite, mode)} for mode in modes]
    return {
        "name": suite,
        "modes": shown,
        "rows": rows,
        "plots": _plots(evidence, suite),
        "power": _power(evidence, suite),
    }


def _power(evidence: Evidence, suite: str) -> str:
    """How small a difference the items can show: the largest over the differences of two of the chain's policies."""
    chain = [m for m in evidence.models if m != "base"]
    pairs = [evidence.difference(suite, evidence.primary, a, b) for a in chain for b in chain]
    known = [(d.detectable, d.n) for d in pairs if d and d.detectable is not None]
    if not known:
        return ""
    size, n = max(known)
    text = "{n:question} show a true difference of {points} points between two of the policies in four cases of five."
    return say(text, n=n, points=points(size, sign=False))


def _plots(evidence: Evidence, suite: str) -> list[dict[str, Any]]:
    """A forest plot per metric, the primary first, of the comparisons that the findings are about."""
    plots = []
    pairs = {(asked.model, asked.against) for asked in evidence.outline.questions}
    for mode in evidence.modes:
        found = [d for (s, m, *_), d in evidence.differences.items() if (s, m) == (suite, mode) and _later(evidence, d)]
        # differences to an untuned base are so large that beside them no other could be read
        asked = [d for d in found if (d.model, d.against) in pairs]
        data = [_line(d) for d in asked if d.against != "base"] or [_line(d) for d in found]
        if data:
            key = f"forest-{evidence.suites.index(suite)}-{mode}"
            plots.append({
                "title": metric(evidence, suite, mode),
                "primary": mode == evidence.primary,
                "svg": charts.forest(data, x=say("percentage points"), key=key),
                "rows": [
                    (d.model, d.against, points(d.diff), interval(d), count(d.n), count(d.differ),
                     say(VERDICTS[d.verdict])) for d in found
                ],
            })  # fmt: skip
    return plots


def _later(evidence: Evidence, d: Difference) -> bool:
    """Whether the model stands after the one that it is compared with: of each pair one direction is enough."""
    return evidence.outline.place(d.model) > evidence.outline.place(d.against)


def _line(d: Difference) -> dict[str, Any]:
    ends = {k: round(100 * v, 3) for k, v in (("diff", d.diff), ("low", d.low), ("high", d.high))}
    return {"label": f"{d.model} \u2212 {d.against}", "kind": d.verdict, **ends}


def markdown(content: Mapping[str, Any]) -> str:
    """The findings and the result table for the Prefect UI and a README."""

    def line(cells: Sequence[Any]) -> str:
        return f"| {' | '.join(str(c).replace('|', chr(92) + '|') for c in cells)} |"

    with speaking(content["language"]):
        title = content["title"] or say("Alignment report")
        names = {finding["verdict"]: say(VERDICTS[finding["verdict"]]) for finding in content["findings"]}
    table = content["table"]
    rule = ["---", *("---:" for _ in table["columns"][1:])]
    result = [line(table["columns"]), line(rule), *map(line, table["rows"])]
    claims = [
        f"- **{f['topic']}{' · ' if f['suite'] else ''}{f['suite']}** ({names[f['verdict']]}): {f['text']}"
        for f in content["findings"]
    ]
    promoted = [told(content["promotion"])] if content["promotion"] else []
    lead = [content["chain"]["text"], *promoted, *content["lead"]]
    # names of suites come from recipes: what is markup in them stays text
    return escape("\n".join([f"# {title}", "", "\n\n".join(lead), "", *result, "", *claims, ""]), quote=False)
