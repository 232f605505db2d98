"""What the page begins with: whether the chain helped, and whether the final model may become champion."""

import json
from pathlib import Path
from typing import Any

from align import tables
from align.report.evidence import Difference, Evidence
from align.report.findings import few, interval, metric
from align.report.wording import percent, points
from align.report.words import say

CHAIN = {
    "up": "The chain helped: {final} scores {after} %, {first} {before} %: {points} points {interval} "
    "({metric}, {n:question}).",
    "down": "The chain did harm: {final} scores {after} %, {first} {before} %: {points} points {interval} "
    "({metric}, {n:question}).",
    "open": "The chain is not shown to help: {final} scores {after} %, {first} {before} %: {points} points, and the "
    "interval {interval} includes 0 ({metric}, {n:question}).",
    "seeds": "The chain is not shown to help: {final} scores {after} %, {first} {before} %: {points} points "
    "{interval}, no more than seeds differ by ({metric}, {n:question}).",
    "few": "Too few questions to tell whether the chain helped: {final} scores {after} %, {first} {before} %: {points} "
    "points {interval}, but {why} ({metric}, {n:question}).",
}
PART = {"up": "better on {suite} ({numbers})", "down": "worse on {suite} ({numbers})",
        "open": "not shown on {suite} ({numbers})", "few": "too few to tell on {suite} ({numbers})"}  # fmt: skip
ORDER = ("down", "few", "open", "up")
"""Of several suites the first verdict here that one has is the chain's."""


def chain(evidence: Evidence) -> dict[str, str]:
    """One sentence on the final model against the first policy of the chain (SFT), with its verdict."""
    first, final = evidence.first, evidence.final
    if final is None:
        return {"verdict": "unknown", "text": say("Whether the chain helped is not measured: no policy was evaluated.")}
    if final == first:
        first = "base"
    found = {s: d for s in evidence.suites if (d := evidence.difference(s, evidence.primary, final, first))}
    if not found:
        text = "Whether the chain helped is not measured: no question is graded for both {final} and {first}."
        return {"verdict": "unknown", "text": say(text, final=final, first=first)}
    verdict = min((d.verdict for d in found.values()), key=ORDER.index)
    if len(evidence.suites) == 1:
        ((suite, d),) = found.items()
        return {"verdict": verdict, "text": _sentence(evidence, suite, d)}
    parts = [
        say(PART[d.verdict], suite=suite, numbers=say(
            "{before} % → {after} %, {points} points {interval}", **_numbers(evidence, suite, d)))
        for suite, d in found.items()
    ]  # fmt: skip
    text = say("From {first} to {final}: {parts}.", first=first, final=final, parts="; ".join(parts))
    return {"verdict": verdict, "text": text}


def _sentence(evidence: Evidence, suite: str, d: Difference) -> str:
    why = few(d.differ, d.p) if d.verdict == "few" else ""
    told = {"final": d.model, "first": d.against, "metric": metric(evidence, suite, evidence.primary), "n": d.n}
    return say(CHAIN["seeds" if d.within_seeds else d.verdict], why=why, **told, **_numbers(evidence, suite, d))


def _numbers(evidence: Evidence, suite: str, d: Difference) -> dict[str, str]:
    means = (evidence.result(suite, m, evidence.primary) for m in (d.against, d.model))
    before, after = (percent(r.mean if r else None) for r in means)
    return {"before": before, "after": after, "points": points(d.diff), "interval": interval(d)}


def falls(evidence: Evidence) -> str:
    """Every suite on which the final model is shown to have fallen, against the base or an earlier policy of the chain,
    with its interval, whether or not something guards it; "" where there is none."""
    final = evidence.final
    chain = ["base", *(m for m in evidence.outline.policies if m in evidence.models)]
    before = chain[: chain.index(final)] if final in chain else []
    found = [
        say("{suite} {points} points {interval} against {model} ({n:question})", suite=suite, points=points(d.diff),
            interval=interval(d), model=evidence.outline.title(other), n=d.n)
        for suite in evidence.suites for other in before
        if (d := evidence.difference(suite, evidence.primary, final or "", other)) and d.verdict == "down"
    ]  # fmt: skip
    return say("Shown to have fallen in {model}: {falls}.", model=final, falls="; ".join(found)) if found else ""


def promotion(folder: Path | None) -> dict[str, Any] | None:
    """What the stage promote decided and by which rules, broken ones first; None where nothing was to be decided."""
    if folder is None:
        return None
    said = json.loads((folder / "promotion.json").read_text(encoding="utf-8"))
    rows = tables.read(folder / "promotion.parquet")
    texts = {row["text"] for row in rows}
    notes = [say(reason) for reason in said["reasons"][:1] if reason not in texts]
    ordered = sorted(rows, key=lambda row: (row["held"] is not False, row["rule"] == "watched"))
    text = "{model} is fit to be champion" if said["promoted"] else "{model} does not become champion"
    return {
        "promoted": said["promoted"], "text": say(text, model=said["model"]), "notes": notes,
        "rules": [{"held": row["held"], "text": _rule(row)} for row in ordered],
    }  # fmt: skip


def _rule(row: dict[str, Any]) -> str:
    """A rule with what was measured."""
    told = {"suite": row["suite"], "model": row["model"], "against": row["against"], "n": row["n"] or 0}
    if row["rule"] == "ungraded":
        text = "{suite}: {share} % of the answers of {model} are ungraded, {limit} % may be"
        return say(text, **told, share=percent(row["share"]), limit=percent(row["limit"]))
    if row["suite"] is None:
        return say("every suite has a guard, so that none is left to be better on")
    if row["diff"] is None:
        return say("{suite}: nothing is graded for both {model} and {against}", **told)
    told |= {"points": points(row["diff"]), "interval": f"[{points(row['low'], False)}, {points(row['high'], False)}]"}
    if row["rule"] == "guard":
        text = "{suite}: {model} against {against} {points} points {interval} on {n:item}, a fall of {limit} is allowed"
        return say(text, **told, limit=points(row["limit"] or 0.0, False))
    if row["rule"] == "watched":
        return say("{suite}: {model} against {against} {points} points {interval} on {n:item}, decides nothing", **told)
    text = "{suite}: {model} has to be better than {against}: {points} points {interval} on {n:item}"
    return say(text, **told)


def told(promoted: dict[str, Any]) -> str:
    """The decision in one sentence, for a README and the Prefect UI."""
    return f"{promoted['text']}: {'; '.join([*promoted['notes'], *(rule['text'] for rule in promoted['rules'])])}."
