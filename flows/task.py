"""The seam to Prefect: a stage as a cached Prefect task, one for each row of the table of stages.

The store is the one cache: a task asks it under a lock that the kernel releases, and returns Prefect's own `Cached`
state on a hit. Prefect's result records would be a second truth about the same thing, to be kept from disagreeing with
artifacts that were deleted or damaged; so they are off.
"""

import json
from html import escape
from pathlib import Path
from typing import Any

from prefect import Task, get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, State

from align.redact import redact
from flows import watch
from flows.stages import STAGES, Stage
from flows.work import Work
from storage.store import Attempt


class Done:
    """What a stage's task hands on. Prefect looks inside what it knows for results of earlier tasks, and would find the
    values that attempts share: it cannot look inside this, so that its graph has the DAG's edges and no others."""

    def __init__(self, attempt: Attempt | None):
        self.attempt = attempt


def _task(stage: Stage) -> Task[..., Any]:
    def run(work: Work, waits: dict[str, Any]) -> Any:
        log = get_run_logger()
        with watch.progress(work.store, work.run, work.name, f"{work.recipe} {work.name}"):
            found = work()
        if found is None:
            log.info("%s was skipped: %s", work.name, work.skipped)
            return skipped(work.skipped)
        attempt, ran = found
        where = f"{attempt.artifact} in {work.store.where}"
        log.info("%s %s: %s", work.name, "ran" if ran else "was there already", where)
        try:
            publish(work, attempt)
        except Exception as error:  # the artifact is safe in the store: what people see here is not worth a failure
            work.unseen = error
            log.warning("%s is not shown here: %s", attempt.artifact, error)
        return made(work, attempt) if ran else cached(attempt)

    run.__name__ = run.__qualname__ = stage.name  # what Prefect makes the task's key of
    about = (stage.function.__doc__ or stage.title).partition("\n")[0]
    return Task(
        run, name=stage.name, description=about, tags=stage.tags, retries=stage.retries, cache_policy=NO_CACHE,
        persist_result=False,
    )  # fmt: skip


TASKS = {stage.name: _task(stage) for stage in STAGES}


def made(work: Work, attempt: Attempt) -> State[Done]:
    """The state that Prefect shows for what ran, with the reason."""
    return Completed(message=redact(f"ran {attempt.seconds:.0f} s: {work.reason}"), data=Done(attempt))


def cached(attempt: Attempt) -> State[Done]:
    """The state that Prefect shows for a hit."""
    first = f"run {attempt.run}" if attempt.run else f"what was made {attempt.created_at}"
    return Completed(name="Cached", message=f"cached: same key as {first}", data=Done(attempt))


def skipped(why: str) -> State[Done]:
    """The state that Prefect shows for what stands behind a gate that is shut."""
    return Completed(name="Skipped", message=why, data=Done(None))


def publish(work: Work, attempt: Attempt) -> None:
    """Show an attempt in the Prefect UI: its metrics as a table, the filter's funnel, the report."""
    where = f"`{attempt.artifact}` in `{work.store.where}`"

    def key(what: str) -> str:
        return watch.key(f"{work.recipe} {what}")

    create_table_artifact(metrics(attempt.metrics), key=key(f"{work.name} metrics"), description=f"Metrics of {where}")
    if attempt.stage == "filter":
        create_table_artifact(funnel(attempt.metrics), key=key("filter funnel"), description=f"Rows dropped by {where}")
    if attempt.stage == "promote":
        folder = work.store.fetch(attempt.artifact)
        create_markdown_artifact(verdict(folder), key=key("promotion"), description=f"Verdict of {where}")
    if attempt.stage == "report":
        folder = work.store.fetch(attempt.artifact)
        summary = (folder / "summary.md").read_text(encoding="utf-8")
        page = f"The whole report: `{(folder / 'report.html').as_uri()}` (`align report --open`)"
        create_markdown_artifact(f"{summary}\n\n{page}\n", key=key("report"), description=f"Report of {where}")


def verdict(folder: Path) -> str:
    """What promote decided, as Markdown. Names of suites come from recipes: what is markup in them stays text."""
    said = json.loads((folder / "promotion.json").read_text(encoding="utf-8"))
    title = f"{said['model']} {'is fit to be champion' if said['promoted'] else 'does not become champion'}"
    return escape("\n".join([f"# {title}", "", *(f"- {reason}" for reason in said["reasons"]), ""]), quote=False)


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
