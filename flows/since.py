"""What has come since the champion's run: whether there is anything, before a run begins."""

from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from align.errors import InputError
from flows.chain import Champion
from flows.processes import Processes
from flows.recipe import Recipe
from flows.stages import TABLE
from storage import build, identity, runs
from storage.store import Store
from tasks.fresh import unknown

_SAME = ("path", "hub", "revision", "quantization", "adapter")  # of a base, for an adapter to fit on it


def goes_on(store: Store, recipe: Recipe, champion: Champion) -> Champion:
    """The champion with the rows that it knew. Raises InputError where a run cannot go on from it."""
    try:
        own, other = (identity.canonical(store, base) for base in (recipe.base, champion.base))
    except FileNotFoundError as error:
        raise InputError(f"base: {error.filename or error.args[0]} does not exist.") from None
    if any(own[name] != other[name] for name in _SAME):
        raise InputError(
            f"The champion of {recipe.name} (run {champion.run_id}) is of another base, {champion.base.name}, so that "
            f"no run on {recipe.base.name} can go on from it; set chain.rows to all."
        )
    read = {s["artifact"] for s in runs.stages(store, champion.run_id) if s["stage"] == "ingest"}
    known = next((name for name in read if name and store.artifact(name)), None)
    if known is None:
        raise InputError(
            f"What run {champion.run_id} read, which made the champion of {recipe.name}, is not in {store.where} any "
            "more, so that nobody knows what is new; set chain.rows to all."
        )
    return champion.model_copy(update={"rows": known})


def nothing_new(store: Store, recipe: Recipe) -> str:
    """A sentence where a recipe (with its champion) goes on from it and nothing has come to learn from; else "".

    Reads the data where they changed. What the recipe says besides does not count: its settings may be others.
    """
    champion, stage = recipe.champion, TABLE["ingest"]
    if champion is None or not champion.rows:
        return ""
    with store.in_use(), Processes() as processes:

        def call(*asked: Any) -> dict[str, Any]:
            return processes.run(asked[0], asked[1], asked[2], asked[3], models=False)

        asked = build.request(store, "ingest", stage.function, stage.config_of(recipe), {})
        attempt, _ = build.build(store, asked, call=call)
        if attempt.artifact != champion.rows:
            read = store.fetch(attempt.artifact, "rows.parquet")
            table = pq.read_table(read, columns=["row_id", "split"])
            table = table.filter(pc.not_equal(table["split"], "evaluation"))
            if pc.any(unknown(table, store.fetch(champion.rows, "rows.parquet"))).as_py():
                return ""
    return (
        f"nothing new: no row and no label has come to {recipe.name} since run {champion.run_id}, which made its "
        "champion; `--set chain.rows=all` runs on everything"
    )
