"""A sweep: a recipe run at many points of some settings, and which of them is shown to be better."""

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

from align import tables
from align.errors import AlignError, InputError
from align.seeds import mean_of_seeds, seeded_difference
from align.stats import item_means
from flows import beside, promotion
from flows.graph import parents
from flows.points import Point, Sweep
from flows.processes import serving
from flows.recipe import Recipe, load
from flows.run import run
from flows.seeds import seeds
from flows.show import newest_of, say
from flows.space import Space, space
from flows.stages import final, row
from storage import runs
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
    at_once: int | None = None,
) -> Sweep:
    """Run `recipe` with every combination of the values that `overrides` list: `dotted.key=a,b,c` has three.

    With `trials`, which lets them be ranges too, a search (flows.trials) runs so many points instead; where there are
    no more combinations than that, all of them. Where this machine has several devices, points run side by side
    (flows.beside), at most `at_once`, a search's in batches; else one after another. What the runs share is computed
    once. Settings are checked before the first run; one that fails leaves the others. Raises InputError for what no
    recipe holds, and where none of the overrides has several values.
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
    places = beside.places(first, at_once)
    alone = len(places) < 2
    with serving() if alone else nullcontext():
        for points in _batches(asked, n, seed, load(recipe, asked.fixed) if searched else None, len(places)):
            names = [f"{len(tried) + k} of {n}" for k in range(1, len(points) + 1)]
            if alone:
                _in_turn(points, names, recipe, asked.fixed, store)
            else:
                beside.run_all(points, names, recipe, asked.fixed, store, places)
            tried += points
            found += [_scored(p, load(recipe, [*asked.fixed, *p.settings]), store, compared) for p in points]
    level = compare(tried, found, n)
    ranked = sorted(tried, key=lambda p: -p.mean)
    words = ["align", "run", recipe, *(w for o in [*asked.fixed, *ranked[0].settings] for w in ("--set", o))]
    command = shlex.join([*words, "--store", store.where]) if ranked[0].results else ""
    return Sweep(
        compared, first.evaluate.primary, level, ranked, tried[0], command, asked.axes, seed if searched else None
    )


def _batches(asked: Space, n: int, seed: int, recipe: Recipe | None, places: int) -> Iterator[list[Point]]:
    """What is run: `n` points of a search from `recipe` on, as many at once as there are places, or all."""
    if recipe is None:
        return iter([[Point(settings) for settings in asked.points()]])
    from flows.trials import Search

    return Search(asked, n, seed, recipe).batches(places)


def _in_turn(
    points: Sequence[Point], names: Sequence[str], recipe: str, fixed: Sequence[str], store: Store
) -> None:  # fmt: skip
    """Run one after another; what came of each is written into it."""
    for point, name in zip(points, names, strict=True):
        say(f"{name}: {point.name}", sys.stderr)
        try:
            with promotion.without():
                point.run_id = run(recipe, [*fixed, *point.settings], store).run_id
        except AlignError as error:
            point.error = str(error)
            say(f"align: {error}", sys.stderr)


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


def _scored(point: Point, recipe: Recipe, store: Store, model: str) -> Scores:
    """The scores of the items of a point that ran with this recipe; their means are written into it."""
    if point.error or not point.run_id:
        return {}
    stages = runs.stages(store, point.run_id)
    evaluated = next((s["artifact"] for s in stages if s["stage"] == "evaluate"), None)
    artifact = store.artifact(evaluated) if evaluated else None
    named = newest_of(store, point.run_id) if model == "newest" else model
    folder = store.fetch(artifact.id, "evaluations.parquet").parent if artifact else None
    scores = scores_of(folder, recipe.evaluate.primary, _seeds(recipe, named)) if folder else {}
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
