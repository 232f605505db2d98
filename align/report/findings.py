"""The report's answer in plain words: for every stage what changed, and whether the evaluation shows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from align.paired import needed
from align.report.evidence import Difference, Evidence, Result
from align.report.outline import Outline
from align.report.wording import MINUS, count, percent, points, with_interval
from align.report.words import lowered, raised, say


@dataclass(frozen=True)
class Finding:
    """One claim: its verdict (a key of VERDICTS), and the sentences that carry it."""

    topic: str
    verdict: str
    text: str
    suite: str = ""
    """The suite it is about, where there are several."""
    asked: bool = False
    """Whether it answers a question of the outline by the evaluation."""


def findings(evidence: Evidence, measured: Mapping[str, Finding], filtered: Mapping[str, Any]) -> list[Finding]:
    """What each stage changed, in the order of the pipeline. `measured` are findings that a stage brings itself."""
    found = []
    for part in evidence.outline.parts:
        if part.stage in measured:
            found.append(measured[part.stage])
        for asked in part.questions:
            claims = [(suite, *compare(evidence, suite, asked.model, asked.against)) for suite in evidence.suites]
            if len({(verdict, text) for _, verdict, text in claims}) <= 1 or len(claims) == 1:
                nothing = ("", "unknown", say("Not measured: nothing was evaluated."))
                _, verdict, text = claims[0] if claims else nothing
                claims = [("", verdict, text)]
            if part.stage == "filter" and (read := filtered.get("read")):
                suite, verdict, text = claims[0]
                kept = say("{kept} of {read:row} were kept.", kept=int(filtered["kept"]), read=int(read))
                claims[0] = (suite, verdict, f"{kept} {text}")
            topic = say(asked.topic, round=part.round)
            found += [Finding(topic, verdict, text, suite, True) for suite, verdict, text in claims]
    return found


def compare(evidence: Evidence, suite: str, model: str, against: str) -> tuple[str, str]:
    """The verdict in the primary metric, and sentences for every metric."""
    for name in (model, against):
        if name not in evidence.models:
            part, title = evidence.outline.part(name), evidence.outline.title(name)
            if part and part.added_by:
                return "unknown", say("Not measured: {model} was not evaluated; {key} adds it.", model=title,
                                      key=part.added_by)  # fmt: skip
            return "unknown", say("Not measured: {model} was not evaluated.", model=title)
    pairs = [(mode, evidence.difference(suite, mode, model, against)) for mode in evidence.modes]
    graded = [(mode, d) for mode, d in pairs if d]
    if not graded:
        return "unknown", say("Not measured: no question is graded for both models.")
    verdict = next((d.verdict for mode, d in graded if mode == evidence.primary), "unknown")
    sentences = [
        _sentence(evidence.outline, metric(evidence, suite, mode), d, first=i == 0)
        for i, (mode, d) in enumerate(graded)
    ]
    seeded = next((d for _, d in graded if d.seeds > 1 and d.seed_sd is not None), None)
    if seeded and seeded.seed_sd is not None:
        text = "Over {n} seeds, whose means have a standard deviation of {sd} points; it is in the intervals."
        sentences.append(say(text, n=seeded.seeds, sd=points(seeded.seed_sd, sign=False)))
    if verdict == "unknown":
        sentences.insert(0, say("Not measured in the primary metric ({mode}).", mode=say(evidence.primary)))
    return verdict, " ".join(sentences)


def metric(evidence: Evidence, suite: str, mode: str) -> str:
    """What is measured on a suite in a mode: greedy accuracy."""
    return say(f"{mode} {evidence.measures[suite]}")


def interval(d: Difference) -> str:
    """The interval of a difference, in points."""
    return f"[{points(d.low, False)}, {points(d.high, False)}]"


def _sentence(outline: Outline, measure: str, d: Difference, first: bool) -> str:
    if not first:
        return say("{metric}: {points} points {interval}{doubt}.", metric=raised(measure), points=points(d.diff),
                   interval=interval(d), doubt=say(", no more than its seeds differ by") if d.within_seeds else
                   doubt(d.verdict, d.differ, d.p))  # fmt: skip
    who, other = raised(outline.title(d.model)), outline.title(d.against)
    told: dict[str, Any] = {"who": who, "other": other, "metric": measure, "interval": interval(d), "n": d.n,
                            "size": points(abs(d.diff), sign=False), "points": points(d.diff)}  # fmt: skip
    if d.verdict == "up":
        return say("{who} raised {metric} by {size} points over {other} {interval} on {n:question}.", **told)
    if d.verdict == "down":
        return say("{who} lowered {metric} by {size} points against {other} {interval} on {n:question}.", **told)
    if d.differ == 0:
        text = "{who} scores exactly as {other} does on {n:question}, in {metric}: {why}."
        return say(text, **told, why=few(0, None))
    if d.verdict == "few":
        text = (
            "{who} differs from {other} on too few questions to tell: {points} points of {metric} {interval} on "
            "{n:question}, but {why}."
        )
        return say(text, **told, why=few(d.differ, d.p))
    if d.within_seeds:
        text = "{who} differs from {other} by no more than its seeds do: {points} points of {metric} on {n:question}."
        return say(text, **told)
    text = (
        "{who} is not shown to differ from {other}: {points} points of {metric}, and the interval {interval} includes "
        "0, on {n:question}."
    )
    return say(text, **told)


def doubt(verdict: str, differ: int, p: float | None) -> str:
    """Why a difference that has just been stated is not shown; nothing where it is."""
    if verdict == "few":
        return say(", too few to tell: {why}", why=few(differ, p))
    return say(", an interval that includes 0") if verdict == "open" else ""


def few(differ: int, p: float | None) -> str:
    """Why so many questions that differ are too few."""
    if differ < needed():
        some = say("1 of them differs") if differ == 1 else say("{n} of them differ", n=differ)
        so_many = some if differ else say("none of them differs")
        return say("{so_many}, and {n} must before any difference can be shown", so_many=so_many, n=needed())
    return say("only {n} of them differ, and the exact test gives p = {p}", n=differ, p=f"{p:.2g}")


def verdicts(found: Sequence[Finding]) -> str:
    """Which stages are shown to help and, above all, which are not."""
    leads = {
        "up": "Shown to help: {topics}.", "down": "Shown to harm: {topics}.", "open": "Not shown to help: {topics}.",
        "few": "Too few to tell: {topics}.", "unknown": "Not measured: {topics}.",
    }  # fmt: skip
    said = []
    for verdict, lead in leads.items():
        topics = [lowered(f.topic) + (f" ({f.suite})" if f.suite else "")
                  for f in found if f.asked and f.verdict == verdict]  # fmt: skip
        if topics:
            said.append(say(lead, topics=", ".join(topics)))
    return " ".join(said)


def headline(evidence: Evidence) -> str:
    """One or two sentences: where the final model ends up."""
    final, name = evidence.final, evidence.outline.title
    several = len(evidence.suites) > 1
    told, silent = [], []
    for suite in evidence.suites:
        results = {m: evidence.result(suite, m, evidence.primary) for m in ("base", evidence.first, final or "")}
        last = results.get(final or "")
        if final is None or last is None or last.mean is None:
            silent.append(suite)
            continue
        before = [
            say("{share} % for {model}", share=percent(r.mean), model=name(m))
            for m, r in results.items() if m != final and r and r.mean is not None
        ]  # fmt: skip
        tail = say(", against {before}", before=say(" and ").join(before)) if before else ""
        how = metric(evidence, suite, evidence.primary)
        sentence = say(
            "The final model ({model}) answers {share} % of {n:held-out question} correctly ({how}){tail}."
            if evidence.measures[suite] == "accuracy"
            else "The final model ({model}) scores {share} % on {n:held-out question} ({how}){tail}.",
            model=final, share=percent(last.mean), n=last.graded, how=how, tail=tail,
        )  # fmt: skip
        told.append(f"{suite}: {lowered(sentence)}" if several else sentence)
    if silent:
        which = ", ".join(silent)
        told.append(
            say("No answer of {suites} is graded, so nothing is claimed about quality there.", suites=which) if told
            else say("No answer of {suites} is graded, so nothing is claimed about quality.", suites=which) if several
            else say("No answer is graded, so nothing is claimed about quality.")
        )  # fmt: skip
    return " ".join(told) or say("Nothing was evaluated.")


def summary(evidence: Evidence) -> dict[str, list[Any]]:
    """The result table, one row per model and suite: what `align run` prints."""
    several = len(evidence.suites) > 1
    modes = sorted(evidence.modes, key=lambda m: m != "greedy")
    columns = [say("suite")] * several + [
        say("model"),
        *(f"{say(mode)} %" for mode in modes),
        say("Δ {mode} v. {model}", mode=say(evidence.primary), model=evidence.first),
        "n",
    ]
    columns += [say("unreadable %"), say("ungraded %"), say("truncated %")]
    rows = []
    for suite in evidence.suites:
        for model in evidence.models:
            results = [evidence.result(suite, model, mode) for mode in modes]
            if not any(results):
                continue
            delta = evidence.difference(suite, evidence.primary, model, evidence.first)
            change = f"{points(delta.diff)} {interval(delta)}" if delta else ""
            change += f" {say('too few to tell')}" if delta and delta.verdict == "few" else ""
            row = [suite] * several + [model, *(accuracy(r) for r in results), change]
            row += [questions([r for r in results if r]), *totals([r for r in results if r])]
            rows.append([cell.replace(MINUS, "-") for cell in row])
    return {"columns": columns, "rows": rows}


def accuracy(r: Result | None) -> str:
    """A result as text: per cent with its interval, or that nothing was graded."""
    if r is None:
        return "–"
    return with_interval(r.mean, r.low, r.high) if r.mean is not None else say("ungraded")


def questions(results: list[Result]) -> str:
    """How many questions were asked; where fewer are graded, how many of them."""
    items, graded = max(r.items for r in results), max(r.graded for r in results)
    return count(items) if graded == items else say("{graded} of {items}", graded=graded, items=items)


def totals(results: list[Result]) -> list[str]:
    """The shares of answers that are unreadable, that are ungraded, and that were truncated at the token limit."""
    answers = sum(r.answers for r in results) or 1
    return [percent(sum(getattr(r, field) for r in results) / answers) for field in ("unreadable", "ungraded", "cut")]
