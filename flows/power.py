"""What an evaluation will be able to show, as `align plan` says it before anything is evaluated."""

from collections.abc import Iterator, Mapping

from align.grading.suites import OTHERS
from align.power import detectable, worst_error
from flows.recipe import Recipe
from storage.store import Attempt


def note(recipe: Recipe, before: Mapping[str, Attempt]) -> str:
    """The smallest difference that each suite can show, or "" where nothing is known. `before` are the attempts of an
    earlier run, whose evaluation says how much the items vary."""
    return "; ".join(_suites(recipe, before))


def _suites(recipe: Recipe, before: Mapping[str, Attempt]) -> Iterator[str]:
    last = before["evaluate"].metrics if "evaluate" in before else {}
    known = {name.removeprefix("items."): int(n) for name, n in last.items() if name.startswith("items.")}
    limits = {name: limit for name, limit in recipe.evaluate.limits.items() if name != OTHERS}
    for suite in dict.fromkeys([*limits, *known]):
        limit = recipe.evaluate.limits.get(suite, recipe.evaluate.limits.get(OTHERS))
        most = _most(recipe, before, suite) if limit is None else limit
        n = min(known[suite], limit or known[suite]) if suite in known else most
        if not n:
            continue
        measured = last.get(f"detectable.{suite}")
        if suite in known and isinstance(measured, int | float):
            size, how = float(measured) * (known[suite] / n) ** 0.5, "by the last evaluation"
        else:
            size, how = detectable(worst_error(n)), "at worst, right and wrong answers that correlate by 0.5"
        yield f"{n} items of {suite} show differences of {100 * size:.1f} points or more ({how})"


def _most(recipe: Recipe, before: Mapping[str, Attempt], suite: str) -> int:
    """How many items a suite may have, by what ingest read; 0 where that is not known."""
    counts = before["ingest"].metrics if "ingest" in before else {}
    source = recipe.ingest.sources.get(suite)
    name = f"rows.{suite}" if source and source.use == "evaluation" else "split.evaluation"
    alone = name.startswith("rows") or len(recipe.evaluate.suites) == 1
    return int(counts.get(name, 0)) if alone else 0
