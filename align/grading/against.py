"""Chat suites: a judge compares each policy's response with a baseline's (AlpacaEval; MT-Bench's pairwise mode)."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.config import Config, Metrics
from align.errors import StageError
from align.grading.audit import Audit, audit
from align.grading.grade import Grade, correct, item_of, ungraded, wrong
from align.grading.judged import outcomes, preferred
from align.grading.length_control import difference, length_controlled
from align.grading.pairwise import Contest, PairJudge, Verdict
from align.grading.suites import turns_of
from align.stats import item_means, mean_interval

Row = dict[str, Any]
REFERENCE = "reference"


class Pairwise(Config):
    """A judge that says of each response whether it is better than a baseline's, asked in both orders."""

    judge: PairJudge
    """The judge."""
    baseline: str = REFERENCE
    """What responses are compared with: the rows' reference answers, or an evaluated model's responses, such as sft."""
    audit: Audit = Audit()
    """What the judge must hold before its verdicts count."""


@dataclass(frozen=True)
class Outcome:
    """What became of one answer."""

    grade: Grade
    longer: float | None
    """How many characters longer than the baseline's it is; None where there is none."""


def contested(
    config: Pairwise, answers: Sequence[Row], asked: Mapping[str, Row], rows: Path, cache: Path | None
) -> tuple[list[Outcome], Metrics]:
    """What the judge makes of each answer (ANSWERS with `model`) to the items `asked`: 1 better, 0.5 a tie, 0 worse.

    The baseline ties with itself, and equal texts tie, without a question; greedy answers are judged first, should
    max_questions end the asking. Answers of the judge are kept in `cache`. Raises StageError where the baseline is no
    model that answered, an item has no reference, or the judge fails its audit.
    """
    models = {a["model"] for a in answers}
    if config.baseline not in (REFERENCE, *models):
        raise StageError(
            f"pairwise.baseline is {config.baseline}, and no such model is evaluated; there are "
            f"{', '.join(sorted(models))}, and {REFERENCE}."
        )
    said = {_place(a, a["model"], _turn(a)): a["response"] for a in answers}
    contests = {at: c for at, a in enumerate(answers) if (c := _contest(config, a, asked[a["row_id"]], said))}
    order = sorted((at for at, c in contests.items() if c.first != c.second), key=lambda at: answers[at]["mode"])
    todo = [contests[at] for at in order]
    budget = config.judge.budget()
    people = preferred(rows)
    good: dict[str, Contest] = {}  # what a baseline says is better than nothing, which a policy's answer need not be
    for c in todo:
        good.setdefault(c.row_id, Contest(c.row_id, c.prompt, c.reference or c.second, "", c.reference))
    referred = config.baseline == REFERENCE or any(c.reference for c in todo)
    trusted = list(good.values()) if referred or not people else people
    metrics: Metrics = {**audit(config.audit, config.judge, trusted, todo, people, cache, budget)} if todo else {}
    verdicts = dict(zip(order, config.judge.compare(todo, cache, budget), strict=True)) if todo else {}
    metrics |= outcomes(list(verdicts.values()), budget)
    found = []
    for at, a in enumerate(answers):
        contest = contests.get(at)
        longer = difference(contest.first, contest.second) if contest else None
        found.append(Outcome(_grade(config, a, contest, verdicts.get(at)), longer))
    return found, metrics


def _grade(config: Pairwise, answer: Row, contest: Contest | None, verdict: Verdict | None) -> Grade:
    if contest is None:
        return ungraded(f"{config.baseline} has no answer to compare with")
    if verdict is None:
        own = answer["model"] == config.baseline
        return Grade(0.5, "scored", "it is the baseline" if own else "the same as the baseline's")
    words = " ".join(verdict.forward.split())[-300:]
    if verdict.winner == "none":
        return ungraded(f"the judge gave no verdict, or was not asked any more: {words}")
    if verdict.winner == "tie":
        return Grade(0.5, "scored", "a tie: " + ("the verdict flips with the order" if verdict.flipped else words))
    return correct(words) if verdict.winner == "first" else wrong(words)


def _contest(config: Pairwise, answer: Row, row: Row, said: Mapping[tuple[Any, ...], str]) -> Contest | None:
    """The answer as first against the baseline's; in a later turn the whole conversations. None without a baseline."""
    item, turn = item_of(row, answer["response"]), _turn(answer)
    questions = [item.prompt, *turns_of(row, turn)]
    listed = item.meta.get("reference")
    references = [str(r) for r in listed] if isinstance(listed, list) else [item.reference or ""]
    mine = [said.get(_place(answer, answer["model"], t)) for t in range(1, turn + 1)]
    if config.baseline == REFERENCE:
        theirs: list[str | None] = [r or None for r in references[:turn]]
        if len(theirs) < turn or None in theirs:
            raise StageError(f"Row {item.row_id} has no reference answer to turn {turn}; name a model as baseline.")
        reference = None  # it would be judged against itself
    else:
        theirs = [said.get(_place(answer, config.baseline, t)) for t in range(1, turn + 1)]
        reference = references[turn - 1] if len(references) >= turn and references[turn - 1] else None
    if None in mine or None in theirs:
        return None
    first, second = (_told("Answer", [str(t) for t in texts]) for texts in (mine, theirs))
    return Contest(item.row_id, _told("Question", questions), first, second, reference)


def _told(what: str, texts: Sequence[str]) -> str:
    """One text as it is; of several turns each under its number."""
    if len(texts) == 1:
        return texts[0]
    return "\n\n".join(f"({what} {turn})\n{text}" for turn, text in enumerate(texts, 1))


def _turn(answer: Row) -> int:
    return int(answer.get("turn") or 1)


def _place(answer: Row, model: str, turn: int) -> tuple[Any, ...]:
    return model, answer["row_id"], answer["mode"], answer["sample_index"], turn


def win_rates(suite: str, baseline: str, graded: Sequence[Row], seed: int) -> Iterator[Row]:
    """WIN_RATES rows of graded answers to a suite, which know how much `longer` than the baseline's they are."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for a in graded:
        if a["score"] is not None and a["model"] != baseline:
            groups[a["mode"], a["model"]].append(a)
    for (mode, model), of in groups.items():
        scores: dict[str, list[float | None]] = defaultdict(list)
        for a in of:
            scores[a["row_id"]].append(a["score"])
        raw = mean_interval(list(item_means(scores).values()))
        lc = length_controlled(
            [a["score"] for a in of], [a["longer"] for a in of], [a["row_id"] for a in of], seed=seed
        )
        count = {value: sum(a["score"] == value for a in of) for value in (1.0, 0.5, 0.0)}
        yield {
            "suite": suite, "mode": mode, "model": model, "baseline": baseline, "n": raw.n, "wins": count[1.0],
            "ties": count[0.5], "losses": count[0.0], "win_rate": raw.value, "low": raw.low, "high": raw.high,
            "lc_win_rate": lc.win_rate.value, "lc_low": lc.win_rate.low, "lc_high": lc.win_rate.high,
            "length_effect": lc.effect, "longer": sum(a["longer"] for a in of) / len(of),
        }  # fmt: skip


def about(rates: Sequence[Row]) -> Metrics:
    """Win rates with their 95 % intervals, raw and length-controlled, as metrics."""
    metrics: Metrics = {}
    for r in rates:
        at = f"{r['suite']}.{r['mode']}.{r['model']}"
        metrics |= {f"win_rate.{at}": r["win_rate"], f"win_rate.{at}.low": r["low"], f"win_rate.{at}.high": r["high"],
                    f"lc_win_rate.{at}": r["lc_win_rate"], f"lc_win_rate.{at}.low": r["lc_low"],
                    f"lc_win_rate.{at}.high": r["lc_high"]}  # fmt: skip
    return metrics
