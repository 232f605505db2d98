"""A sweep: a recipe run with every combination of some settings, and which of them is shown to be better."""

import itertools
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from align import tables
from align.errors import AlignError, InputError
from align.paired import Paired
from align.report.wording import MINUS, points, with_interval
from align.seeds import mean_of_seeds, seeded_difference
from align.stats import Interval, item_means
from flows import promotion
from flows.graph import parents
from flows.processes import serving
from flows.recipe import Recipe, load
from flows.run import run
from flows.seeds import seeds
from flows.show import newest_of, say
from flows.stages import final, row
from storage.store import Store

MOST = 1_000  # combinations; each is a run
_OPEN, _CLOSE, _QUOTES = "[{(", "]})", "'\""

Scores = dict[str, list[dict[str, float]]]
"""Suite -> item -> mean score, of each seed."""


@dataclass
class Point:
    """One combination: its settings, and what came of its run."""

    settings: tuple[str, ...]
    """Those that differ between points, as `dotted.key=value`."""
    run_id: str = ""
    error: str = ""
    results: dict[str, Interval] = field(default_factory=dict)
    """The model's score in each suite, in the primary mode."""
    against: dict[str, Paired] = field(default_factory=dict)
    """Its paired difference from the first point in each suite, at a level that accounts for the number of points."""

    @property
    def mean(self) -> float:
        """The mean over suites, by which points are ranked; below every score where there is none."""
        return sum(r.value for r in self.results.values()) / len(self.results) if self.results else -1.0


@dataclass(frozen=True)
class Sweep:
    """All points of a sweep, best first."""

    model: str
    mode: str
    level: float
    """The level of each difference's interval: those of all points and suites hold together at 95 % (Bonferroni; Dunn,
    1961)."""
    points: list[Point]
    first: Point
    """The point that the others are compared with."""
    command: str
    """What runs the best point by itself; "" where none has a result."""

    def verdict(self) -> str:
        """What the sweep shows, in a sentence."""
        best = self.points[0]
        if not best.results:
            return "No run has a result."
        name = ", ".join(best.settings) or "the recipe as it is"
        if best is self.first or not best.against:
            return f"Best by its mean is {name}, the first point." if best is self.first else f"Best is {name}."
        shown = [suite for suite, d in best.against.items() if d.verdict == "better"]
        rest = f"over {', '.join(self.first.settings)}"
        if not shown:
            return f"Best by its mean is {name}, which is not shown to be better: no interval {rest} excludes 0."
        where = f" on {', '.join(shown)}" if len(best.against) > 1 else ""
        return f"Best by its mean is {name}, shown to be better{where} {rest}."


def sweep(recipe: str, overrides: Sequence[str], store: Store, model: str | None = None) -> Sweep:
    """Run `recipe` with every combination of the values that `overrides` list: `dotted.key=a,b,c` has three.

    What the runs share is computed once. All are checked before the first begins; one that fails leaves the others.
    Raises InputError for what no recipe holds, and where none of the overrides lists several values.
    """
    fixed, axes = grid(overrides)
    tried = [Point(settings) for settings in itertools.product(*axes)]
    recipes = [load(recipe, [*fixed, *point.settings]) for point in tried]
    compared = [_model(loaded, model) for loaded in recipes][0]
    found: list[Scores] = []
    with serving():
        for i, (point, loaded) in enumerate(zip(tried, recipes, strict=True), 1):
            say(f"{i} of {len(tried)}: {', '.join(point.settings)}", sys.stderr)
            with promotion.without():
                found.append(_one(point, recipe, [*fixed, *point.settings], loaded, store, compared))
    mode, level = recipes[0].evaluate.primary, compare(tried, found)
    ranked = sorted(tried, key=lambda p: -p.mean)
    words = ["align", "run", recipe, *(w for o in [*fixed, *ranked[0].settings] for w in ("--set", o))]
    words += ["--store", str(store.root)]
    command = shlex.join(words) if ranked[0].results else ""
    return Sweep(compared, mode, level, ranked, tried[0], command)


def compare(tried: Sequence[Point], found: Sequence[Scores]) -> float:
    """Write into each point what its scores are and how they differ from the first point's; returns the level.

    Whichever point is best, on whichever suite, at most 5 % of sweeps over settings that change nothing call it better.
    """
    suites = {suite for scores in found for suite in scores}
    level = 1 - 0.05 / max(1, (len(tried) - 1) * len(suites))
    for point, scores in zip(tried, found, strict=True):
        point.results = {suite: mean_of_seeds(seeds) for suite, seeds in scores.items()}
    for point, scores in zip(tried[1:], found[1:], strict=True):
        for suite in sorted(scores.keys() & found[0].keys()):
            if set.intersection(*(set(items) for items in (*scores[suite], *found[0][suite]))):
                point.against[suite] = seeded_difference(scores[suite], found[0][suite], level=level)
    return level


def _model(recipe: Recipe, asked: str | None) -> str:
    """The model whose score counts: `asked`, or the last of the chain; newest stands for what the rounds of each run
    end with."""
    there = [name.removeprefix("answer_") for name in parents(recipe) if row(name).name in ("answer", "newest")]
    if (asked and asked not in there) or not there:
        raise InputError(f"--model {asked or ''}: this recipe evaluates {', '.join(there) or 'no model'}.")
    return asked or final(recipe)


def grid(overrides: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """The overrides with one value, and those with several, each as a list of overrides."""
    fixed, axes = [], []
    for text in overrides:
        key, equals, written = text.partition("=")
        values = list(_values(written))
        if equals and len(values) > 1:
            if again := next((v for i, v in enumerate(values) if v in values[:i]), None):
                raise InputError(f"--set {text}: {again} stands there twice; every value is run once.")
            axes.append([f"{key}={value}" for value in values])
        else:
            fixed.append(text)
    if not axes:
        raise InputError("A sweep needs a setting with several values, for instance --set dpo.beta=0.05,0.1,0.2.")
    if (n := len(list(itertools.product(*axes)))) > MOST:
        raise InputError(f"These settings have {n} combinations; {MOST} is the most that a sweep runs.")
    return fixed, axes


def _values(text: str) -> Iterator[str]:
    """The parts between commas that stand in no bracket and no quotes."""
    begun, depth, quote = 0, 0, ""
    for i, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in _QUOTES and not text[begun:i].strip():
            quote = letter
        elif letter in _OPEN + _CLOSE:
            depth += 1 if letter in _OPEN else -1
        elif letter == "," and depth == 0:
            yield text[begun:i].strip()
            begun = i + 1
    yield text[begun:].strip()


def _one(point: Point, recipe: str, overrides: list[str], loaded: Recipe, store: Store, model: str) -> Scores:
    """Run one point; its run or error is written into it. Returns the scores of its items."""
    try:
        outcome = run(recipe, overrides, store)
    except AlignError as error:
        point.error = str(error)
        say(f"align: {error}", sys.stderr)
        return {}
    point.run_id = outcome.run_id
    evaluated = next((s.artifact for s in outcome.stages if s.stage == "evaluate"), None)
    artifact = store.artifact(evaluated) if evaluated else None
    named = newest_of(store, outcome.run_id) if model == "newest" else model
    return scores_of(artifact.path, loaded.evaluate.primary, _seeds(loaded, named)) if artifact else {}


def _seeds(recipe: Recipe, model: str) -> tuple[str, ...]:
    """The model with its further seeds."""
    known = seeds(recipe)
    return (model, *(known.of.get(model, ()) if known else ()))


def scores_of(folder: Path, mode: str, models: Sequence[str]) -> Scores:
    """The items' mean scores of each of the models, which are seeds of one policy, in an evaluate artifact."""
    scores: dict[str, dict[str, dict[str, list[float | None]]]] = {}
    for r in tables.read(folder / "evaluations.parquet", mode=mode):
        if r["model"] in models:
            items = scores.setdefault(r["suite"], {}).setdefault(r["model"], {})
            items.setdefault(r["row_id"], []).append(r["score"])
    found = {suite: [means for items in of.values() if (means := item_means(items))] for suite, of in scores.items()}
    return {suite: seeds for suite, seeds in found.items() if seeds}


def as_rows(found: Sweep) -> tuple[list[str], list[list[Any]]]:
    """The sweep as a table: a point in a row, best first."""
    keys = [setting.partition("=")[0] for setting in found.first.settings]
    suites = sorted({suite for point in found.points for suite in point.results})
    names = [*keys]
    for suite in suites:
        lead = f"{suite} " if len(suites) > 1 else ""
        names += [f"{lead}{found.mode} %", f"{lead}Δ v. first"]
    lines: list[list[Any]] = []
    for point in found.points:
        line: list[Any] = [setting.partition("=")[2] for setting in point.settings]
        for suite in suites:
            result, against = point.results.get(suite), point.against.get(suite)
            line.append("" if result is None else with_interval(result.value, result.low, result.high))
            line.append("first" if point is found.first else _difference(against))
        lines.append([*line, point.run_id or f"failed: {point.error}"])
    return [*names, "run"], lines


def _difference(d: Paired | None) -> str:
    if d is None:
        return ""
    return f"{points(d.value)} [{points(d.low, False)}, {points(d.high, False)}] {d.verdict}".replace(MINUS, "-")


def as_json(found: Sweep) -> dict[str, Any]:
    """The sweep for programs: shares in 0..1."""
    return {
        "model": found.model, "mode": found.mode, "level": found.level, "command": found.command,
        "verdict": found.verdict(),
        "points": [
            {"settings": list(p.settings), "run_id": p.run_id, "error": p.error, "first": p is found.first,
             "results": {s: r._asdict() for s, r in p.results.items()},
             "against_first": {s: d._asdict() for s, d in p.against.items()}}
            for p in found.points
        ],
    }  # fmt: skip
