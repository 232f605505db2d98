"""Whether the final model may become champion: better where it has to be, no guard broken, enough of it graded."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pyarrow.parquet as pq
from pydantic import Field

from align import tables
from align.config import EXECUTION, Config, Metrics
from align.errors import StageError
from align.grading.suites import OTHERS
from align.models.files import read_json
from align.report.numbers import MINUS, count, percent, plural, points
from tasks.evaluate import Mode

Rule = dict[str, Any]
"""A row of PROMOTION."""


class PromoteConfig(Config):
    """When the final model of a run becomes the champion of its recipe."""

    against: str = "none"
    """The model that it has to be better than: sft, another that is evaluated, or champion (sft until there is one).
    none leaves the stage out."""
    suites: tuple[str, ...] = ()
    """Suites on each of which it has to be shown to be better; empty: all that have no guard."""
    mode: Mode | None = None
    """The mode that counts; null: evaluate.primary."""
    max_ungraded: float = Field(default=0.05, ge=0, le=1)
    """The largest share of the answers to a suite, of either model, that may be ungraded."""
    approve: Annotated[bool, EXECUTION] = False
    """Whether a person has to approve first: by resuming the paused flow run in the Prefect UI, or by
    `align promote RUN`."""

    def contradictions(self) -> Iterator[str]:
        for name in self.changed("suites", "mode", "max_ungraded", "approve") if self.against == "none" else ():
            yield f"{name}: has no effect where against is none; leave it out, or set that to sft or champion."


class Contest(Config):
    """Which models are compared, and what guards the suites."""

    model: str
    """The model that the recipe ends with; newest: the one that its rounds turn out to end with."""
    against: str
    """The evaluated model that it is compared with."""
    mode: Mode
    """The mode that counts."""
    guards: dict[str, float | None]
    """The tolerance of each suite that the recipe names, `*` for the others; null: no guard."""
    note: str = ""
    """What has to be said before everything else."""

    def tolerance(self, suite: str) -> float | None:
        """How far a suite may fall; None where it has no guard."""
        return self.guards[suite] if suite in self.guards else self.guards.get(OTHERS)


def promote(config: PromoteConfig, out: Path, *, graded: Path, contest: Contest, newest: Path | None = None) -> Metrics:
    """Decide by the evaluation in `graded` (the artifact of evaluate) whether the final model may become champion.
    `newest` is the artifact of that stage, which says which model this is where there are several rounds: their gates
    chose it by prompts that are no evaluation items, so that what is decided here is decided on items that chose
    nothing.

    Writes promotion.parquet (PROMOTION) and promotion.json (promoted, model, against, mode, verdict, reasons). It may
    where every rule `better` and `ungraded` holds and no guard is broken. A guard is broken where the paired interval
    lies below 0 and the mean fall exceeds the tolerance, or where nothing can be compared; the exact test for few
    items is not asked, so that a guard errs on the safe side. It holds where the interval's lower end is within the
    tolerance. In between it is open: it is named, and does not decide.
    """
    if newest:
        contest = contest.model_copy(update={"model": read_json(newest / "metrics.json", StageError)["policy"]})
    rules = list(_rules(config, contest, graded))
    tables.write(out / "promotion.parquet", rules, tables.PROMOTION)
    failed = [rule for rule in rules if rule["held"] is False]
    told = failed or [rule for rule in rules if rule["rule"] == "better"]
    told = told + [rule for rule in rules if rule not in told and _worth_telling(rule)]
    promoted = not failed
    reasons = [*filter(None, [contest.note]), *(rule["text"] for rule in told)]
    verdict = {
        "promoted": promoted, "model": contest.model, "against": contest.against, "mode": contest.mode,
        "verdict": "; ".join(reasons), "reasons": reasons,
    }  # fmt: skip
    text = json.dumps(verdict, indent=1, ensure_ascii=False)
    (out / "promotion.json").write_text(f"{text}\n", encoding="utf-8")
    guards = [rule["held"] for rule in rules if rule["rule"] == "guard"]
    return {
        "promoted": int(promoted), "model": contest.model, "against": contest.against, "failed": len(failed),
        "guards.held": guards.count(True), "guards.open": guards.count(None), "guards.broken": guards.count(False),
    }  # fmt: skip


def _worth_telling(rule: Rule) -> bool:
    """Every guard, and every other suite that is shown to have fallen."""
    return rule["rule"] == "guard" or (rule["rule"] == "watched" and rule["high"] < 0)


def _rules(config: PromoteConfig, contest: Contest, graded: Path) -> Iterator[Rule]:
    """Every rule with what became of it, those that have to be better first."""
    compared = {
        row["suite"]: row
        for row in tables.read(graded / "comparisons.parquet", mode=contest.mode, model=contest.model)
        if row["against"] == contest.against
    }
    shares = _ungraded(graded, contest)
    suites = sorted(set(compared) | {suite for suite, _ in shares})
    goals = list(config.suites) or [suite for suite in suites if contest.tolerance(suite) is None]
    guards = [suite for suite in suites if contest.tolerance(suite) is not None]
    guards += [name for name, limit in contest.guards.items() if limit is not None and name not in (*suites, OTHERS)]

    def rule(name: str, suite: str | None, held: bool | None, text: str, **more: Any) -> Rule:
        found = compared.get(suite or "", {})
        what = {"rule": name, "suite": suite, "mode": contest.mode, "model": contest.model, "held": held}
        what |= {"against": contest.against, "n": found.get("n"), "text": f"{suite}: {text}" if suite else text}
        return what | {"diff": found.get("diff"), "low": found.get("diff_low"), "high": found.get("diff_high")} | more

    if contest.model == contest.against:  # of several rounds, where none was shown to help
        text = f"the rounds end with {_name(contest.model)}, the model that the final one has to be better than"
        yield rule("better", None, False, text)
        return
    if not goals:
        text = "every suite has a guard, so that none is left to be better on; name one in promote.suites"
        yield rule("better", None, False, text)
    for suite in goals:
        yield rule("better", suite, *_better(compared.get(suite), contest))
    for suite in guards:
        limit = contest.tolerance(suite) or 0.0
        yield rule("guard", suite, *_guard(compared.get(suite), contest, limit), limit=limit)
    for suite in dict.fromkeys([*goals, *guards]):
        for model in dict.fromkeys([contest.model, contest.against]):
            share = shares.get((suite, model))
            if share is not None:
                held = share <= config.max_ungraded
                than = "" if held else f", more than {percent(config.max_ungraded)} %"
                text = f"{percent(share)} % of the answers of {_name(model)} are ungraded{than}"
                yield rule("ungraded", suite, held, text, model=model, against=None, n=None, share=share,
                           limit=config.max_ungraded, diff=None, low=None, high=None)  # fmt: skip
    for suite in compared:
        if suite not in (*goals, *guards):
            yield rule("watched", suite, None, _moved(compared[suite], contest))


def _ungraded(graded: Path, contest: Contest) -> dict[tuple[str, str], float]:
    """The share of the answers of either model to each suite that are ungraded."""
    path, columns = graded / "evaluations.parquet", ["suite", "model", "mode", "status"]
    counted = pq.read_table(path, columns=columns).group_by(columns).aggregate([([], "count_all")]).to_pylist()
    total: Counter[tuple[str, str]] = Counter()
    without: Counter[tuple[str, str]] = Counter()
    for row in counted:
        if row["mode"] == contest.mode and row["model"] in (contest.model, contest.against):
            at = (row["suite"], row["model"])
            total[at] += row["count_all"]
            without[at] += row["count_all"] if row["status"] == "ungraded" else 0
    return {at: without[at] / n for at, n in total.items()}


def _better(found: Rule | None, contest: Contest) -> tuple[bool, str]:
    if found is None:
        return False, _nothing(contest)
    return found["verdict"] == "better", _moved(found, contest)


def _guard(found: Rule | None, contest: Contest, limit: float) -> tuple[bool | None, str]:
    if found is None:
        return False, _nothing(contest)
    text, allowed = _moved(found, contest), points(limit, sign=False)
    if found["diff_high"] < 0 and -found["diff"] > limit:
        return False, f"{text}, and a fall of {allowed} is allowed"
    if found["diff_low"] >= -limit:
        return True, f"{text}, which holds the guard"
    return None, f"{text}, which does not show that a fall stays within the {allowed} allowed"


def _nothing(contest: Contest) -> str:
    return f"nothing is graded for both {_name(contest.model)} and {_name(contest.against)}"


def _moved(found: Rule, contest: Contest) -> str:
    """How the model stands to the other on a suite, with the interval."""
    model, other = _name(contest.model), _name(contest.against)
    interval = f"[{points(found['diff_low'], sign=False)}, {points(found['diff_high'], sign=False)}]"
    seeds = f", over {plural(found['seeds'], 'seed')}" if (found["seeds"] or 1) > 1 else ""
    on, size = f"on {plural(found['n'], 'item')}{seeds}", points(abs(found["diff"]), sign=False)
    if found["verdict"] == "too few to tell":
        differ = f"{count(found['differ'])} of them"
        said = f"{model} differs from {other} by {points(found['diff'])} points {interval} {on}, but only in {differ}"
    elif found["verdict"] == "not shown" and not found["diff_low"] <= 0 <= found["diff_high"]:
        moved = points(found["diff"])
        said = f"{model} differs from {other} by no more than its seeds do: {moved} points {interval} {on}"
    elif found["diff_low"] > 0:
        said = f"{model} is {size} points above {other} {interval} {on}"
    elif found["diff_high"] < 0:
        said = f"{model} fell by {size} points against {other} {interval} {on}"
    else:
        said = f"{model} is not shown to differ from {other}: {points(found['diff'])} points {interval} {on}"
    return said.replace(MINUS, "-")


def _name(model: str) -> str:
    return "the champion" if model == "champion" else model
