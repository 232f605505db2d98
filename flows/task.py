"""The seam to Prefect: a stage as a cached Prefect task.

The store is the one cache: a task asks it under a lock that the kernel releases, and returns Prefect's own `Cached`
state on a hit. Prefect's result records would be a second truth about the same thing, to be kept from disagreeing with
artifacts that were deleted or damaged; so they are off.
"""

from collections.abc import Callable
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, State

from align.config import Config
from storage import build
from storage.build import Output
from storage.store import Attempt, Store


class Done:
    """What a stage's task hands on. Prefect looks inside what it knows for results of earlier tasks, and would find the
    values that attempts share: it cannot look inside this, so that its graph has the DAG's edges and no others."""

    def __init__(self, attempt: Attempt):
        self.attempt = attempt


@task(cache_policy=NO_CACHE, persist_result=False)
def run_stage(
    name: str,
    function: Callable[..., dict[str, Any]],
    config: Config,
    inputs: dict[str, Done | Config],
    files: dict[str, str | None],
    store: Store,
    refresh: bool,
) -> Any:
    """Run one stage, or find that it has run: a Done. `files` are the files of the inputs that are meant."""
    log = get_run_logger()
    resolved = {
        role: Output(value.attempt.artifact, files[role]) if isinstance(value, Done) else value
        for role, value in inputs.items()
    }
    request = build.request(store, name, function, config, resolved)
    attempt, ran = build.build(store, request, refresh)
    log.info("%s %s: %s", name, "ran" if ran else "was there already", store.root / "artifacts" / attempt.artifact)
    try:
        publish(store, attempt)
    except Exception as error:  # the artifact is safe in the store: what people see of it here is not worth a failure
        log.warning("%s is not shown here: %s", attempt.artifact, error)
    return Done(attempt) if ran else cached(attempt)


def cached(attempt: Attempt) -> State[Done]:
    """The state that Prefect shows for a hit."""
    return Completed(name="Cached", message=f"{attempt.artifact}, made {attempt.created_at}", data=Done(attempt))


def publish(store: Store, attempt: Attempt) -> None:
    """Show an attempt in the Prefect UI: its metrics as a table, the filter's funnel, the report."""
    folder = store.root / "artifacts" / attempt.artifact
    slug, where = attempt.stage.replace("_", "-"), f"`{attempt.artifact}` in `{store.root}`"
    create_table_artifact(metrics(attempt.metrics), key=f"{slug}-metrics", description=f"Metrics of {where}")
    if attempt.stage == "filter":
        create_table_artifact(funnel(attempt.metrics), key="filter-funnel", description=f"Rows dropped by {where}")
    if attempt.stage == "report":
        summary = (folder / "summary.md").read_text(encoding="utf-8")
        page = f"The whole report: `{folder / 'report.html'}` (`align report --open`)"
        create_markdown_artifact(f"{summary}\n\n{page}\n", key="report", description=f"Report of {where}")


def metrics(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Metrics as rows of a table, numbers with four significant digits."""
    shown = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in sorted(values.items())}
    return [{"metric": name, "value": value} for name, value in shown.items()]


def funnel(values: dict[str, Any]) -> list[dict[str, Any]]:
    """The filter's metrics as rows of a table: read, kept, then the rules, those that dropped most first."""
    drops = {k.removeprefix("dropped."): v for k, v in values.items() if k.startswith("dropped.") and v}
    ends = [{"step": step, "rows": values.get(step)} for step in ("read", "kept")]
    steps = sorted(drops.items(), key=lambda drop: (-drop[1], drop[0]))
    return [*ends, *({"step": f"dropped: {rule}", "rows": -rows} for rule, rows in steps)]
