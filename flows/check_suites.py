"""What of a recipe's suites is wrong: those that name nothing, and baselines that nobody evaluates."""

from collections.abc import Iterator
from difflib import get_close_matches

from align.grading.against import REFERENCE
from align.text import short
from flows.recipe import Recipe
from flows.stages import contender, present
from tasks.ingest import Source


def splits(recipe: Recipe, source: Source) -> set[str]:
    """The splits that rows of a source can be in."""
    fixed = {"preferences": "preference", "evaluation": "evaluation"}.get(source.use)
    return {fixed} if fixed else {name for name, share in recipe.ingest.split.items() if share > 0}


def problems(recipe: Recipe) -> Iterator[str]:
    """Mistakes as sentences that begin with the key."""
    sources = recipe.ingest.sources
    evaluated = {name for name, s in sources.items() if "evaluation" in splits(recipe, s)}
    found = "*" in recipe.evaluate.suites and any(sources[n].use != "instructions" for n in evaluated)
    for name in recipe.evaluate.suites:
        if name == "*" or name in evaluated:
            found = found or name in evaluated
            continue
        near = get_close_matches(name[:100], evaluated, 1)
        others = f"did you mean {near[0]}?" if near else f"sources that have some: {', '.join(evaluated) or 'none'}."
        what = "has no evaluation rows" if name in sources else "names no source"
        yield f"evaluate.suites.{short(name)}: {what}; {others}"
        found = True  # one sentence is enough
    if sources and not found and not recipe.evaluate.benchmarks.tasks:
        yield "evaluate.suites: there are 0 evaluation items; give ingest a source with use: evaluation."
    models = {
        "base",
        *recipe.chain.policies,
        *(s.name for s in present(recipe) if s.policy),
        *(["champion"] if contender(recipe) else []),
    }
    for name, suite in recipe.evaluate.suites.items():
        baseline = suite.pairwise.baseline if suite.pairwise else REFERENCE
        if baseline not in (REFERENCE, *models):
            yield (
                f"evaluate.suites.{short(name)}.pairwise.baseline: {short(baseline)} is no model of this recipe; there "
                f"are {REFERENCE}, {', '.join(sorted(models))}."
            )
