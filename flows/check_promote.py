"""What a run would stumble on in promote and the guards of suites."""

from collections.abc import Iterator
from difflib import get_close_matches

from align.grading.suites import OTHERS
from align.text import quote
from flows.graph import parents
from flows.recipe import Recipe
from flows.stages import final


def problems(recipe: Recipe) -> Iterator[str]:
    """Mistakes as sentences that begin with the key."""
    asked, suites = recipe.promote, recipe.evaluate.suites
    if recipe.chain.rows == "new" and asked.against != "champion":
        yield "chain.rows: is new, which goes on from the champion; set promote.against to champion."
    guards = [name for name, suite in suites.items() if suite.guard is not None]
    if asked.against == "none":
        for name in guards:
            yield f"evaluate.suites.{name}.guard: has no effect where promote.against is none; set one of them."
        return
    last = final(recipe)
    there = ["champion", *(n.removeprefix("answer_") for n in parents(recipe) if n.startswith("answer_"))]
    if asked.against == last:
        yield f"promote.against: is {last}, the model that is to be promoted; name another, such as sft or champion."
    elif asked.against not in there:
        near = get_close_matches(asked.against[:100], there, 1)
        others = ", ".join(dict.fromkeys(n for n in there if n != last))
        hint = f"did you mean {near[0]}?" if near else f"there are {others}."
        yield f"promote.against: no model that is evaluated is called {quote(asked.against)}; {hint}"
    public = recipe.evaluate.benchmarks.tasks
    for name in asked.suites:
        if name not in (*suites, *public) and (OTHERS not in suites or name not in recipe.ingest.sources):
            near = get_close_matches(name[:100], suites, 1)
            hint = f"did you mean {near[0]}?" if near else f"evaluate.suites has {', '.join(suites)}."
            yield f"promote.suites: {quote(name)} is not evaluated; {hint}"
    if not asked.suites and len(guards) == len(suites) and not public:
        yield "promote.suites: every suite has a guard, so that none is left to be better on; name one."
    if asked.mode == "sampled" and not recipe.evaluate.n:
        yield "promote.mode: is sampled, but evaluate.n is 0."
