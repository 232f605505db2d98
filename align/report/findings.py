"""The report's answer in plain words: for every stage what changed, and whether the evaluation shows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from align.paired import needed
from align.report.evidence import Difference, Evidence, Result
from align.report.outline import Outline
from align.report.wording import MINUS, count, percent, plural, points, with_interval


@dataclass(frozen=True)
class Finding:
    """One claim: its verdict (a key of VERDICTS), and the sentences that carry it."""

    topic: str
    verdict: str
    text: str
    suite: str = ""
    """The suite it is about, where there are several."""


def findings(evidence: Evidence, measured: Mapping[str, Finding], filtered: Mapping[str, Any]) -> list[Finding]:
    """What each stage changed, in the order of the pipeline. `measured` are findings that a stage brings itself."""
    found = []
    for part in evidence.outline.parts:
        if part.stage in measured:
            found.append(measured[part.stage])
        for asked in part.questions:
            claims = [(suite, *compare(evidence, suite, asked.model, asked.against)) for suite in evidence.suites]
            if len({(verdict, text) for _, verdict, text in claims}) <= 1 or len(claims) == 1:
                _, verdict, text = claims[0] if claims else ("", "unknown", "Not measured: nothing was evaluated.")
                claims = [("", verdict, text)]
            if part.stage == "filter" and (read := filtered.get("read")):
                suite, verdict, text = claims[0]
                kept = f"{count(int(filtered['kept']))} of {plural(int(read), 'row')} were kept."
                claims[0] = (suite, verdict, f"{kept} {text}")
            found += [Finding(asked.topic, verdict, text, suite) for suite, verdict, text in claims]
    return found


def compare(evidence: Evidence, suite: str, model: str, against: str) -> tuple[str, str]:
    """The verdict in the primary metric, and sentences for every metric."""
    for name in (model, against):
        if name not in evidence.models:
            part = evidence.outline.part(name)
            adds = f"; {part.added_by} adds it" if part and part.added_by else ""
            return "unknown", f"Not measured: {evidence.outline.title(name)} was not evaluated{adds}."
    pairs = [(mode, evidence.difference(suite, mode, model, against)) for mode in evidence.modes]
    graded = [(mode, d) for mode, d in pairs if d]
    if not graded:
        return "unknown", "Not measured: no question is graded for both models."
    verdict = next((d.verdict for mode, d in graded if mode == evidence.primary), "unknown")
    measure = evidence.measures[suite]
    sentences = [
        _sentence(evidence.outline, f"{mode} {measure}", d, first=i == 0) for i, (mode, d) in enumerate(graded)
    ]
    if verdict == "unknown":
        sentences.insert(0, f"Not measured in the primary metric ({evidence.primary}).")
    return verdict, " ".join(sentences)


def _sentence(outline: Outline, metric: str, d: Difference, first: bool) -> str:
    interval = f"[{points(d.low, sign=False)}, {points(d.high, sign=False)}]"
    size = points(abs(d.diff), sign=False)
    if not first:
        return f"{metric.capitalize()}: {points(d.diff)} points {interval}{doubt(d.verdict, d.differ, d.p)}."
    who, other, where = outline.title(d.model), outline.title(d.against), f"on {plural(d.n, 'question')}"
    who = who[0].upper() + who[1:]
    if d.verdict == "up":
        return f"{who} raised {metric} by {size} points over {other} {interval} {where}."
    if d.verdict == "down":
        return f"{who} lowered {metric} by {size} points against {other} {interval} {where}."
    if d.differ == 0:
        return f"{who} scores exactly as {other} does {where}, in {metric}: {few(0, None)}."
    if d.verdict == "few":
        return (
            f"{who} differs from {other} on too few questions to tell: {points(d.diff)} points of {metric} {interval} "
            f"{where}, but {few(d.differ, d.p)}."
        )
    return (
        f"{who} is not shown to differ from {other}: {points(d.diff)} points of {metric}, "
        f"and the interval {interval} includes 0, {where}."
    )


def doubt(verdict: str, differ: int, p: float | None) -> str:
    """Why a difference that has just been stated is not shown; nothing where it is."""
    if verdict == "few":
        return f", too few to tell: {few(differ, p)}"
    return ", an interval that includes 0" if verdict == "open" else ""


def few(differ: int, p: float | None) -> str:
    """Why so many questions that differ are too few."""
    if differ < needed():
        so_many = {0: "none of them differs", 1: "1 of them differs"}.get(differ, f"{differ} of them differ")
        return f"{so_many}, and {needed()} must before any difference can be shown"
    return f"only {differ} of them differ, and the exact test gives p = {p:.2g}"


def verdicts(evidence: Evidence, found: Sequence[Finding]) -> str:
    """Which stages are shown to help and, above all, which are not."""
    leads = {"up": "Shown to help", "down": "Shown to harm", "open": "Not shown to help", "few": "Too few to tell",
             "unknown": "Not measured"}  # fmt: skip
    arms = [f for f in found if f.topic in {asked.topic for asked in evidence.outline.questions}]
    said = []
    for verdict, lead in leads.items():
        topics = [
            (f.topic if f.topic == "DPO" else f.topic[0].lower() + f.topic[1:]) + (f" ({f.suite})" if f.suite else "")
            for f in arms if f.verdict == verdict
        ]  # fmt: skip
        if topics:
            said.append(f"{lead}: {', '.join(topics)}.")
    return " ".join(said)


def headline(evidence: Evidence) -> str:
    """One or two sentences: where the final model ends up."""
    final, name = evidence.final, evidence.outline.title
    parts, silent = [], []
    for suite in evidence.suites:
        results = {m: evidence.result(suite, m, evidence.primary) for m in ("base", evidence.first, final or "")}
        last = results.get(final or "")
        if final is None or last is None or last.mean is None:
            silent.append(suite)
            continue
        before = [
            f"{percent(r.mean)} % for {name(m)}" for m, r in results.items() if m != final and r and r.mean is not None
        ]
        lead = f"{suite}: the" if len(evidence.suites) > 1 else "The"
        tail = f", against {' and '.join(before)}" if before else ""
        of = plural(last.graded, "held-out question")
        share, how = percent(last.mean), evidence.primary
        did = (
            f"answers {share} % of {of} correctly"
            if evidence.measures[suite] == "accuracy"
            else f"scores {share} % on {of}"
        )
        parts.append(f"{lead} final model ({final}) {did} ({how} {evidence.measures[suite]}){tail}.")
    if silent:
        which = f" of {', '.join(silent)}" if len(evidence.suites) > 1 else ""
        parts.append(f"No answer{which} is graded, so nothing is claimed about quality{' there' if parts else ''}.")
    return " ".join(parts) or "Nothing was evaluated."


def summary(evidence: Evidence) -> dict[str, list[Any]]:
    """The result table, one row per model and suite: what `align run` prints."""
    several = len(evidence.suites) > 1
    modes = sorted(evidence.modes, key=lambda m: m != "greedy")
    columns = ["suite"] * several + [
        "model",
        *(f"{mode} %" for mode in modes),
        f"Δ {evidence.primary} v. {evidence.first}",
        "n",
    ]
    columns += ["unreadable %", "ungraded %", "truncated %"]
    rows = []
    for suite in evidence.suites:
        for model in evidence.models:
            results = [evidence.result(suite, model, mode) for mode in modes]
            if not any(results):
                continue
            delta = evidence.difference(suite, evidence.primary, model, evidence.first)
            change = f"{points(delta.diff)} [{points(delta.low, False)}, {points(delta.high, False)}]" if delta else ""
            change += " too few to tell" if delta and delta.verdict == "few" else ""
            row = [suite] * several + [model, *(accuracy(r) for r in results), change]
            row += [questions([r for r in results if r]), *totals([r for r in results if r])]
            rows.append([cell.replace(MINUS, "-") for cell in row])
    return {"columns": columns, "rows": rows}


def accuracy(r: Result | None) -> str:
    """A result as text: per cent with its interval, or that nothing was graded."""
    if r is None:
        return "–"
    return with_interval(r.mean, r.low, r.high) if r.mean is not None else "ungraded"


def questions(results: list[Result]) -> str:
    """How many questions were asked; where fewer are graded, how many of them."""
    items, graded = max(r.items for r in results), max(r.graded for r in results)
    return count(items) if graded == items else f"{count(graded)} of {count(items)}"


def totals(results: list[Result]) -> list[str]:
    """The shares of answers that are unreadable, that are ungraded, and that were truncated at the token limit."""
    answers = sum(r.answers for r in results) or 1
    return [percent(sum(getattr(r, field) for r in results) / answers) for field in ("unreadable", "ungraded", "cut")]
