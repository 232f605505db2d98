"""The seam to Prefect: a stage as a cached Prefect task.

The store is the one cache: a task asks it under a lock that the kernel releases, and returns Prefect's own `Cached`
state on a hit. Prefect's result records would be a second truth about the same thing, to be kept from disagreeing with
artifacts that were deleted or damaged; so they are off.
"""

from collections.abc import Callable
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, State

from storage import build
from storage.build import Output
from storage.store import Attempt, Store
from tasks.lib.config import Config


@task(cache_policy=NO_CACHE, persist_result=False, log_prints=False)
def run_stage(
    name: str,
    function: Callable[..., dict[str, Any]],
    config: Config,
    inputs: dict[str, Any],
    files: dict[str, str | None],
    store: Store,
    refresh: bool,
) -> Any:
    """Run one stage, or find that it has run. `inputs` are configs and the attempts of earlier stages."""
    resolved = {
        role: Output(value.artifact, files[role]) if isinstance(value, Attempt) else value
        for role, value in inputs.items()
    }
    request = build.request(store, name, function, config, resolved)
    attempt, ran = build.build(store, request, refresh)
    get_run_logger().info("%s %s → %s", name, "ran" if ran else "cached", attempt.artifact)
    publish(store, attempt)
    return attempt if ran else cached(attempt)


def cached(attempt: Attempt) -> State[Attempt]:
    """The state that Prefect shows for a hit."""
    return Completed(name="Cached", message=f"{attempt.artifact}, made {attempt.created_at}", data=attempt)


def publish(store: Store, attempt: Attempt) -> None:
    """Show an attempt in the Prefect UI: its metrics as a table, the filter's funnel, the report."""
    folder = store.root / "artifacts" / attempt.artifact
    slug = attempt.stage.replace("_", "-")
    table = [{"metric": k, "value": round(v, 4) if isinstance(v, float) else v} for k, v in attempt.metrics.items()]
    create_table_artifact(table, key=f"{slug}-metrics", description=f"`{attempt.artifact}`\n\n`{folder}`")
    if attempt.stage == "filter":
        create_table_artifact(funnel(attempt.metrics), key="filter-funnel", description="Rows in, dropped, kept")
    if attempt.stage == "report":
        page = folder / "report.html"
        create_link_artifact(page.as_uri(), link_text="report.html", key="report", description=str(page))
        summary = folder / "summary.md"
        if summary.is_file():
            create_markdown_artifact(summary.read_text(encoding="utf-8"), key="report-summary")


def funnel(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """The filter's metrics as rows of a table: read, then every rule that dropped something, then kept."""
    drops = [(k.removeprefix("dropped."), -v) for k, v in metrics.items() if k.startswith("dropped.") and v]
    steps = [("read", metrics.get("read")), *drops, ("kept", metrics.get("kept"))]
    return [{"step": step, "rows": rows} for step, rows in steps]
