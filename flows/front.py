"""`align report --all`: the front page of a store, with the final model of every run, recipe by recipe, over time."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from align import tables
from align.errors import InputError
from align.report import charts, page
from align.report.chapters import Chapter
from align.report.wording import percent, with_interval
from align.report.words import Language, say, speaking
from flows import pages, reporting
from flows.show import final_of
from storage import champions, runs
from storage.store import Store, now

SHOWN = 40  # runs in a chart, the latest


@dataclass(frozen=True)
class Score:
    """What a run's final model scores on a suite in the primary mode, as shares; None where nothing is graded."""

    suite: str
    mode: str
    mean: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Entry:
    """A run on the front page."""

    run_id: str
    recipe: str
    status: str
    started_at: str
    final: str | None
    scores: tuple[Score, ...]
    champion: int | None
    """Which champion of its recipe its final model became."""
    reigns: bool
    """Whether that still is the champion."""
    verdict: str
    """Why it was promoted, or was not, in English; "" where that was not asked."""
    page: Path | None = None


def entries(store: Store) -> list[Entry]:
    """All runs in which something came of, oldest first."""
    crowned = {(c.recipe, c.run_id): c for c in champions.all_of(store)}
    reigning = {(c.recipe, c.run_id) for c in champions.every(store)}
    found = []
    for run in runs.history(store):
        stages = {s["stage"]: s for s in runs.stages(store, run["run_id"]) if s["artifact"]}
        if not stages and run["status"] != "running":
            continue
        at = (run["recipe"], run["run_id"])
        try:
            final = final_of(store, run["run_id"]) if "evaluate" in stages else None
        except InputError:  # of another version, or its rounds have not ended
            final = None
        champion = crowned.get(at)
        found.append(Entry(
            run["run_id"], run["recipe"], run["status"], run["started_at"], final,
            tuple(_scores(store, stages["evaluate"], final)) if final else (), champion.number if champion else None,
            at in reigning, champion.verdict if champion else _verdict(store, stages.get("promote")),
        ))  # fmt: skip
    return found


def _scores(store: Store, evaluated: dict[str, Any], final: str) -> list[Score]:
    artifact, mode = store.artifact(evaluated["artifact"]), evaluated["metrics"].get("primary", "greedy")
    if artifact is None or store.damage(artifact, "comparisons.parquet"):
        return []
    rows = tables.read(store.fetch(artifact.id, "comparisons.parquet"), mode=mode, model=final)
    alone = sorted((r for r in rows if r["against"] is None), key=lambda r: str(r["suite"]))
    return [Score(r["suite"], mode, r["mean"], r["low"], r["high"], r["n"]) for r in alone]


def _verdict(store: Store, decided: dict[str, Any] | None) -> str:
    said = store.content(decided["artifact"], "promotion.json") if decided else None
    return str(said.get("verdict", "")) if isinstance(said, dict) else ""


def write(store: Store) -> tuple[Path, list[Entry]]:
    """Make the front page; where it lies, and what is on it. Pages of runs are made where that is quick.

    Raises InputError for a store without runs.
    """
    found = [_with_page(store, entry) for entry in entries(store)]
    if not found:
        raise InputError(f"No run in {store.where} has finished a stage; `align run` makes one.")
    asked = runs.source(store, found[-1].run_id).get("report") or {}
    language: Language = asked["language"] if asked.get("language") in get_args(Language) else "en"
    with speaking(language):
        return pages.keep(store, "index", _html(store, found)), found


def _with_page(store: Store, entry: Entry) -> Entry:
    """The run with its page, where one is there or what the stages show is written down already."""
    path = pages.kept(store, entry.run_id)
    of = reporting.recorded(
        store, {name: getattr(entry, name) for name in ("run_id", "recipe", "status", "started_at")}
    )
    if of.written is not None and (entry.status == "running" or not path.exists()):
        path = reporting.write(of)
    return Entry(**{**vars(entry), "page": path}) if path.exists() else entry


def _html(store: Store, found: list[Entry]) -> str:
    recipes = list(dict.fromkeys(entry.recipe for entry in reversed(found)))
    chapters = [_chapter(i, name, [e for e in found if e.recipe == name]) for i, name in enumerate(recipes)]
    lead = say("{n:run} of {m:recipe}.", n=len(found), m=len(recipes))
    made = say("Made {now} UTC.", now=reporting.minute(now()))
    return page.render("templates/compare.html.jinja", title=say("Runs"), lead=[lead], chapters=chapters, made=made)


def _chapter(i: int, recipe: str, found: list[Entry]) -> Chapter:
    """The runs of a recipe, the latest first, and how their final models score over time."""
    chapter = Chapter(f"recipe-{i}", recipe)
    if champion := next((e for e in reversed(found) if e.reigns), None):
        told = {"model": champion.final or "", "run": champion.run_id, "scores": _told(champion.scores)}
        chapter.lead = say("Champion: {model} of run {run}, {scores}.", **told)
    else:
        chapter.lead = say("There is no champion.")
    suites = list(dict.fromkeys(s.suite for e in found for s in e.scores))
    chapter.figures((_figure(i, k, suite, found[-SHOWN:]) for k, suite in enumerate(suites)), wide=True)
    scored = [{s.suite: s for s in e.scores} for e in found]
    body = [
        [{"href": e.page.as_uri(), "text": e.run_id} if e.page else e.run_id, _standing(e),
         *(_score(of[s]) if s in of else "–" for s in suites), e.final or "–", say(e.status),
         reporting.minute(e.started_at)] for e, of in zip(reversed(found), reversed(scored), strict=True)
    ]  # fmt: skip
    first, last = ("run", "promotion"), ("final model", "status", "started (UTC)")
    columns = [*map(say, first), *(f"{suite}, %" for suite in suites), *map(say, last)]
    chapter.table(columns, body, text=2)
    if why := [[e.run_id, e.verdict] for e in reversed(found) if e.verdict]:
        chapter.table([say("run"), say("why")], why, text=2, foreign=(1,), fold=say("Verdicts on promotion"))
    return chapter


def _standing(entry: Entry) -> str:
    if entry.champion is None:
        return say("not promoted") if entry.verdict else "–"
    return say("champion {n}, the present one" if entry.reigns else "champion {n}", n=entry.champion)


def _score(s: Score) -> str:
    return with_interval(s.mean, s.low, s.high)


def _told(scores: tuple[Score, ...]) -> str:
    shares = ((s, say("{share} %", share=percent(s.mean))) for s in scores)
    return "; ".join(f"{s.suite} {share} ({say(s.mode)})" for s, share in shares) or "–"


def _figure(i: int, k: int, suite: str, found: list[Entry]) -> tuple[str, str, str]:
    """The final models' scores with their intervals, the latest first."""
    lines = [
        {"label": e.run_id[:15], "kind": "up" if e.champion else "open", "diff": round(100 * s.mean, 3),
         "low": round(100 * (s.low or 0.0), 3), "high": round(100 * (s.high or 0.0), 3)}
        for e in reversed(found) for s in e.scores if s.suite == suite and s.mean is not None
    ]  # fmt: skip
    svg = charts.forest(lines, x=say("score of the final model, %"), key=f"runs-{i}-{k}") if lines else ""
    return suite, svg, say("Green: promoted. Lines are 95 % intervals.")


def as_json(path: Path, found: list[Entry]) -> dict[str, Any]:
    """The front page as JSON."""
    return {"page": str(path), "runs": [asdict(entry) for entry in found]}
