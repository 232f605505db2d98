"""Several seeds of the last policy: what the stages of each are called, and which policies differ in nothing else."""

from typing import TYPE_CHECKING

from tasks.evaluate import Seeds

if TYPE_CHECKING:
    from flows.recipe import Recipe

MARK = "s"


def of_seed(name: str, k: int) -> str:
    """The node of a stage with seed k: those of the first have the stage's own name."""
    return name if k == 1 else f"{name}_{MARK}{k}"


def further(recipe: "Recipe", name: str) -> range:
    """Which seeds a stage has beside its first: those of the recipe's last policy."""
    from flows.stages import final

    return range(2, recipe.chain.seeds + 1 if name == final(recipe) else 2)


def seeds(recipe: "Recipe") -> Seeds | None:
    """The last policy with those of its further seeds; None where it has one."""
    from flows.stages import final

    last = final(recipe)
    return Seeds(of={last: tuple(of_seed(last, k) for k in further(recipe, last))}) if recipe.chain.seeds > 1 else None
