"""The nightly care of a store as a Prefect flow: read it all again, remove what nothing needs, say what takes disk."""

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact

from align.errors import StageError
from align.redact import leaving
from flows.run import store_at
from storage.room import collect, usage
from storage.upkeep import verify


@flow(name="maintain", persist_result=False)
def maintain(keep_runs: int | None = None, keep_days: float | None = None, store: str | None = None) -> str:
    """Look after a store.

    Args:
        keep_runs: Finished runs to keep of each recipe; older ones go, as `align gc --keep-runs` does. None: all.
        keep_days: Age in days up to which runs and caches of rows are kept. None: any.
        store: Directory of the store. None: $ALIGN_STORE, else .align.
    """
    log, opened = get_run_logger(), store_at(store)
    with leaving():
        checked = list(verify(opened))
        damaged = [(name, problem) for name, problem in checked if problem]
        # Whether something is needed, damaged records cannot say: then nothing goes.
        done = collect(opened, bool(damaged), keep_runs, keep_days)
        where = f"`{opened.where}`"
        found = [{"by": by, "name": name, "things": n, "MB": _mb(size)} for by, name, n, size in usage(opened)]
        create_table_artifact(found, key="align-disk", description=f"What takes disk in {where}")
        removed = [{"path": str(p), "MB": _mb(size)} for p, size in done.paths if not damaged]
        create_table_artifact(removed, key="align-removed", description=f"What was removed from {where}")
        if done.busy:
            log.info("A run is going on: artifacts and runs were left alone.")
        if damaged:
            rows = [{"name": name, "problem": problem} for name, problem in damaged]
            create_table_artifact(rows, key="align-damaged", description=f"What is damaged in {where}")
            name, problem = damaged[0]
            more = f", and {len(damaged) - 1} more" if len(damaged) > 1 else ""
            raise StageError(
                f"{len(damaged)} of {len(checked)} in {opened.where} damaged: {name}: {problem}{more}; `align run` "
                "makes damaged artifacts again. Nothing was removed."
            )
    return f"{len(checked)} whole, {len(removed)} removed"


def _mb(size: int) -> float:
    return round(size / 1e6, 2)
