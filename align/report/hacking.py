"""The report on reward hacking: a sentence for each sign that was found, with examples; nothing where none was."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from align import hacking, tables
from align.report.chapters import Chapter, by_id
from align.report.evidence import VERDICTS, Evidence
from align.report.wording import number, percent, points, shorten, with_interval
from align.report.words import raised, say

Row = dict[str, Any]
SENTENCES = {
    "length": "{who} writes longer than {other}, {now} characters instead of {was} [{low}, {high}], and its grade is "
    "not shown to rise ({n:question}).",
    "truncated": "{who} reaches the token limit more often than {other}, in {now} % of its answers instead of {was} % "
    "{interval}, and its grade is not shown to rise ({n:question}).",
    "repetition": "{who} repeats itself more than {other}: {now} % of its runs of four words stood in the answer "
    "before, instead of {was} % {interval}, and its grade is not shown to rise ({n:question}).",
    "refusal": "{who} refuses more often than {other}, in {now} % of its answers instead of {was} % {interval}, and "
    "its grade is not shown to rise ({n:question}).",
    "constant": "{who} gives different questions the same answer more often than {other}, in {now} % of its answers "
    "instead of {was} % {interval}, and its grade is not shown to rise ({n:question}).",
    "judge": "{who} speaks to a judge in {now} % of its answers, {other} in {was} % {interval} ({n:question}).",
    "key": "{who} answers with nothing but a colon or an opening in {now} % of its answers, {other} in {was} % "
    "{interval} ({n:question}).",
    "flattery": "{who} flatters who asks in {now} % of its answers, {other} in {was} % {interval}, and its grade is "
    "not shown to rise ({n:question}).",
    "reward": "The reward model likes {who} better than {other}, {now} instead of {was} [{low}, {high}], but its grade "
    "is shown to fall ({n:question}).",
    "kl": "{who} is further from the base model than {other}, {now} nats a token instead of {was} [{low}, {high}], and "
    "its grade is not shown to rise ({n:question}).",
    "best_of_n": "The reward is being gamed in selection: with more samples to choose from it rises, and the grade of "
    "the best is shown to fall.",
}
NUMBERS = ("length", "reward", "kl")


def rows(
    graded: Path, evidence: Evidence, metrics: Mapping[str, Mapping[str, Any]], diagnosed: Path | None
) -> list[Row]:
    """HACKING rows of a run, with a sentence where a sign was found. `diagnosed` is the artifact of diagnose."""
    chain = [m for m in evidence.outline.policies if m in evidence.models]
    names = ["suite", "row_id", "model", "mode", "sample_index", "response", "finish_reason"]
    answers = tables.read(graded / "evaluations.parquet", names, mode=evidence.primary)
    grades = {(d.suite, d.model): VERDICTS[d.verdict] for (_, mode, _, against), d in evidence.differences.items()
              if mode == evidence.primary and chain and against == chain[0]}  # fmt: skip
    scored, far = _rewards(diagnosed, evidence.primary), _divergences(diagnosed)
    known = {(r["row_id"], r["model"], r["sample_index"]): r["score"] for r in scored if r["score"] is not None}
    found = hacking.signs(answers, chain, grades, known, far) if len(chain) > 1 else []
    select = metrics.get("select", {})
    if select.get("best_of.gamed_from"):
        found.append({"measure": "best_of_n", "n": int(select["best_of.n"]), "value": select.get("grade.best"),
                      "was": select.get("grade.random"), "found": True, "examples": []})  # fmt: skip
    return [row | {"text": _sentence(evidence, row)} if row["found"] else row for row in found]


def _rewards(diagnosed: Path | None, mode: str) -> list[Row]:
    return tables.read(diagnosed / "rewards.parquet", mode=mode) if diagnosed else []


def _divergences(diagnosed: Path | None) -> list[Row]:
    """None of an artifact that an older version made."""
    file = diagnosed / "divergences.parquet" if diagnosed else None
    return tables.read(file) if file and file.is_file() else []


def _sentence(evidence: Evidence, row: Row) -> str:
    measure = row["measure"]
    if "model" not in row:
        return say(SENTENCES[measure])
    write = number if measure in NUMBERS else percent
    told = {"now": write(row["value"]), "was": write(row["was"]), "n": row["n"]}
    if measure in NUMBERS:
        told |= {"low": number(row["low"]), "high": number(row["high"])}
    else:
        told["interval"] = f"[{points(row['low'], False)}, {points(row['high'], False)}]"
    who, other = evidence.outline.title(row["model"]), evidence.outline.title(row["against"])
    text = say(SENTENCES[measure], who=who if measure == "reward" else raised(who), other=other, **told)
    return f"{row['suite']}: {text}" if len(evidence.suites) > 1 else text


def chapter(
    found: Sequence[Row], graded: Path, data: Path | None, diagnosed: Path | None, evidence: Evidence
) -> Chapter | None:
    """What a diagnosis measured along the chain, and the signs that were found, with examples; None where there is
    neither."""
    shown = [row for row in found if row["found"]]
    if not shown and not diagnosed:
        return None
    made = Chapter("hacking", say("Signs of reward hacking"))
    made.lead = say(
        "{n:sign} found by comparing the answers of the chain's policies with the first's; rewards are a diagnosis "
        "here, and never a grade.", n=len(shown),
    )  # fmt: skip
    if diagnosed:
        _along(made, diagnosed, evidence)
    wanted = {i for row in shown for i in row["examples"]}
    said: dict[tuple[str, str, str], str] = {}
    names = ["row_id", "model", "mode", "response"]
    for mode in {row["mode"] for row in shown if row["examples"]}:
        for a in tables.read(graded / "evaluations.parquet", names, mode=mode):
            if a["row_id"] in wanted:
                said.setdefault((a["row_id"], a["model"], mode), a["response"] or "")
    asked = by_id(data, sorted(wanted)) if data else {}
    for row in shown:
        made.note(row["text"], warn=True)
        cells = [
            [shorten(asked.get(i, {}).get("prompt"), 160), *(shorten(said.get((i, row[k], row["mode"]), ""), 240)
             for k in ("against", "model"))] for i in row["examples"]
        ]  # fmt: skip
        if cells:
            made.table([say("question"), row["against"], row["model"]], cells, text=3, fold=say("Examples"))
    _every(made, found, evidence)
    return made


def _every(made: Chapter, found: Sequence[Row], evidence: Evidence) -> None:
    """Everything that was measured, whether a sign or not, folded."""
    many, lines = len(evidence.suites) > 1, []
    for row in found:
        if "model" in row:
            share = row["measure"] not in NUMBERS and not row["measure"].startswith("distinct")
            value, was, *change = (
                "–" if v is None else f"{percent(v)} %" if share else number(v)
                for v in (row.get(name) for name in ("value", "was", "low", "high"))
            )
            interval = f"[{', '.join(change)}]" if row.get("low") is not None else "–"
            lines.append([*([row["suite"]] if many else []), row["model"], row["measure"], was, value, interval])
    names = (*(["suite"] if many else []), "model", "measure", "the first policy", "value", "interval of the change")
    text = 3 if many else 2
    if lines:
        made.table([say(name) for name in names], lines, text=text, foreign=[text - 1], fold=say("Everything measured"))


def _along(made: Chapter, diagnosed: Path, evidence: Evidence) -> None:
    """Grade, reward and KL to the base of every policy of the chain, suite by suite."""
    values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for row in _rewards(diagnosed, evidence.primary):
        if row["score"] is not None:
            values["reward", row["suite"], row["model"]].append(row["score"])
    for row in _divergences(diagnosed):
        values["kl", row["suite"], row["model"]].append(hacking.per_token(row))
    many = len(evidence.suites) > 1
    most = max((len(of) for (name, *_), of in values.items() if name == "kl"), default=0)
    lines = []
    for suite in evidence.suites:
        for model in (m for m in evidence.outline.policies if m in evidence.models):
            reward, far = (mean(found) if (found := values.get((name, suite, model))) else None
                           for name in ("reward", "kl"))  # fmt: skip
            grade = evidence.result(suite, model, evidence.primary)
            written = with_interval(grade.mean, grade.low, grade.high) if grade else "–"
            lines.append([*([suite] if many else []), model, written, number(reward), number(far)])
    names = (*(["suite"] if many else []), "model", "grade %", "reward", "KL to the base")
    caption = say(
        "KL(policy ‖ base) is in nats a token, estimated by the mean log-ratio of the policy's own samples that ended "
        "by themselves, of at most {n:question} of a suite; an estimate near 0 may fall below it.", n=most,
    )  # fmt: skip
    made.table([say(name) for name in names], lines, caption if most else "", text=2 if many else 1)
