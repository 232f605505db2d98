"""A sweep: a recipe run at many points of some settings, and which of them is shown to be better."""

import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from align import tables
from align.errors import AlignError, InputError
from align.seeds import mean_of_seeds, seeded_difference
from align.stats import item_means
from flows import promotion
from flows.graph import parents
from flows.points import Point, Sweep
from flows.processes import serving
from flows.recipe import Recipe, load
from flows.run import run
from flows.seeds import seeds
from flows.show import newest_of, say
from flows.space import Space, space
from flows.stages import final, row
from storage.store import Store

Scores = dict[str, list[dict[str, float]]]
"""Suite -> item -> mean score, of each seed."""


def sweep(
    recipe: str,
    overrides: Sequence[str],
    store: Store,
    model: str | None = None,
    trials: int | None = None,
    seed: int = 0,
) -> Sweep:
    """Run `recipe` with every combination of the values that `overrides` list: `dotted.key=a,b,c` has three.

    With `trials`, which lets them be ranges too, a search (flows.trials) runs so many points instead; where there are
    no more combinations than that, all of them. What the runs share is computed once. Settings are checked before the
    first run; one that fails leaves the others. Raises InputError for what no recipe holds, and where none of the
    overrides has several values.
    """
    asked = space(overrides, trials=trials)
    searched = trials is not None and trials < asked.size
    if searched:
        from flows.trials import available

        available()
    first, *_ = [load(recipe, [*asked.fixed, *s]) for s in (asked.edges() if searched else asked.points())]
    compared = _model(first, model)
    n = trials if trials is not None and searched else int(asked.size)
    tried: list[Point] = []
    found: list[Scores] = []
    with serving():
        for point in _points(asked, n, seed, load(recipe, asked.fixed) if searched else None):
            tried.append(point)
            say(f"{len(tried)} of {n}: {point.name}", sys.stderr)
            with promotion.without():
                found.append(_one(point, recipe, [*asked.fixed, *point.settings], store, compared))
    level = compare(tried, found, n)
    ranked = sorted(tried, key=lambda p: -p.mean)
    words = ["align", "run", recipe, *(w for o in [*asked.fixed, *ranked[0].settings] for w in ("--set", o))]
    command = shlex.join([*words, "--store", store.where]) if ranked[0].results else ""
    return Sweep(
        compared, first.evaluate.primary, level, ranked, tried[0], command, asked.axes, seed if searched else None
    )


def _points(asked: Space, n: int, seed: int, recipe: Recipe | None) -> Iterator[Point]:
    """What is run: `n` points of a search from `recipe` on, or all."""
    if recipe is None:
        return map(Point, asked.points())
    from flows.trials import Search

    return Search(asked, n, seed, recipe).points()


def compare(tried: Sequence[Point], found: Sequence[Scores], n: int) -> float:
    """Write into every point but the first how it differs from that; returns the level of the intervals.

    Those of all `n` points and their suites hold together at 95 % (Bonferroni; Dunn, 1961): whichever point is best, on
    whichever suite, at most 5 % of sweeps over settings that change nothing call it better.
    """
    suites = {suite for scores in found for suite in scores}
    level = 1 - 0.05 / max(1, (n - 1) * len(suites))
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


def _one(point: Point, recipe: str, overrides: list[str], store: Store, model: str) -> Scores:
    """Run one point; what it came to is written into it. Returns the scores of its items."""
    try:
        loaded, outcome = load(recipe, overrides), run(recipe, overrides, store)
    except AlignError as error:
        point.error = str(error)
        say(f"align: {error}", sys.stderr)
        return {}
    point.run_id = outcome.run_id
    evaluated = next((s.artifact for s in outcome.stages if s.stage == "evaluate"), None)
    artifact = store.artifact(evaluated) if evaluated else None
    named = newest_of(store, outcome.run_id) if model == "newest" else model
    folder = store.fetch(artifact.id, "evaluations.parquet").parent if artifact else None
    scores = scores_of(folder, loaded.evaluate.primary, _seeds(loaded, named)) if folder else {}
    point.results = {suite: mean_of_seeds(found) for suite, found in scores.items()}
    return scores


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
    return {suite: each for suite, each in found.items() if each}
