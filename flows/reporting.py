"""`align report`: the page of a run, made from the store; of one that goes on, how far it is.

What the stages show lies in the artifact of report as JSON, and is made anew where that is not there (yet). What is the
run's own, its costs, lineage and settings, is read from the records.
"""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from align.errors import InputError
from align.report.chapters_run import Running
from flows import pages
from flows import recorded as records
from flows.recorded import Recorded, recorded
from flows.show import run_of
from flows.stages import outline
from storage import champions, runs
from storage.store import Artifact, Store, now

REFRESH = 10
"""Seconds after which a browser reads the page of a run that goes on anew."""


def chosen(store: Store, name: str | None) -> Recorded:
    """The run that is meant: of that name, else the one that goes on, else the latest with a report, else the latest in
    which a stage came to something. Raises InputError where there is none."""
    if name is not None:
        return recorded(store, run_of(store, name))
    history = runs.history(store)
    if history and history[-1]["status"] == "running":
        return recorded(store, history[-1])
    some: Recorded | None = None
    for run in reversed(history):
        found = recorded(store, run)
        if "report" in found.artifacts:
            return found
        some = some or (found if found.artifacts else None)
    if some is None:
        raise InputError(f"No run in {store.where} has finished a stage; `align run` makes one.")
    return some


def write(of: Recorded) -> Path:
    """Make the page of a run; where it lies. In a store that takes no files it is a folder of its own.

    Raises InputError for a run of another version that has no report.
    """
    return pages.keep(of.store, of.id, html(of))


def follow(of: Recorded) -> None:
    """Make the page anew now and then while its run goes on, until that is over or KeyboardInterrupt."""
    while of.run["status"] == "running":
        time.sleep(REFRESH / 2)
        of = recorded(of.store, run_of(of.store, of.id))
        write(of)


def as_json(of: Recorded, path: Path) -> dict[str, Any]:
    """What the page says of the run, without texts and charts."""
    found = _content(of)
    told = {name: found[name] for name in ("chain", "promotion", "findings", "summary")}
    run = {name: of.run[name] for name in ("run_id", "recipe", "status", "started_at")}
    return {"page": str(path), **run, **told, "stages": [asdict(cost) for cost in records.costs(of)]}


def html(of: Recorded) -> str:
    """The page of a run."""
    from align.report import chapters_run, page
    from align.report.words import say, speaking

    found, status = _content(of), of.run["status"]
    with speaking(found["language"]):
        costs = records.costs(of)
        spent = chapters_run.costs(costs)
        last = [chapters_run.lineage(records.lineage(of)), chapters_run.settings(records.settings(of))]
        first = {"running": [chapters_run.progress(costs, _running(of)), spent], "done": []}.get(status, [spent])
        text = {
            "running": "Run {run} of {recipe}, started {at} UTC, goes on. Made {now} UTC; {command} renews it.",
            "done": "Run {run} of {recipe}, started {at} UTC. Made {now} UTC.",
            "failed": "Run {run} of {recipe}, started {at} UTC, failed. Made {now} UTC.",
        }.get(status, "Run {run} of {recipe}, started {at} UTC, was interrupted. Made {now} UTC.")
        made = say(
            text, run=of.id, recipe=of.run["recipe"], at=minute(of.run["started_at"]), now=minute(now()),
            command=f"`align report {of.id} --follow`",
        )  # fmt: skip
        crowned = _crowned(of)
    before, after = ([chapters_run.as_dict(c) for c in part] for part in (first, [*([] if first else [spent]), *last]))
    found = {**found, "chapters": [*before, *found["chapters"]]}
    refresh = {"refresh": REFRESH} if status == "running" else {}
    return page.html(found, after, made=made, crowned=crowned, **refresh)


def _running(of: Recorded) -> list[Running]:
    """What the stages that are running told of their progress."""
    return [
        Running(stage, str(told.get("label", "")), int(told.get("done", 0)), told.get("total"))
        for stage, told in of.running.items()
    ]


def _crowned(of: Recorded) -> str:
    """Whether the run's final model was promoted, and still is the champion."""
    from align.report.words import say

    history = champions.history(of.store, of.run["recipe"])
    mine = next((c for c in reversed(history) if c.run_id == of.id), None)
    if mine is None:
        return ""
    text = "{model} is the champion of {recipe}." if mine is history[-1] else "{model} was a champion of {recipe}."
    return say(text, model=mine.model, recipe=mine.recipe)


def minute(at: str) -> str:
    """A time of the records for people."""
    return at[:19].replace("T", " ")


def _content(of: Recorded) -> dict[str, Any]:
    """What the stages show: as the stage report wrote it, else of those that are done."""
    from align.report.content import content

    if (found := of.written) is not None:
        return found
    if of.recipe is None:
        raise InputError(
            f"Run {of.id} is of another version, which this one cannot read; `align show {of.id}` shows it."
        )
    asked = of.recipe.report
    folders = {stage: _shown(of.store, artifact) for stage, artifact in of.artifacts.items() if stage != "report"}
    return content(outline(of.recipe), folders, title=asked.title, language=asked.language, examples=asked.examples,
                   items=asked.answers)  # fmt: skip


def _shown(store: Store, artifact: Artifact) -> Path:
    """The directory of an artifact with all files but weights, to be read."""
    shown = [name for name in artifact.files if not name.startswith(("adapter/", "model/"))]
    store.each(lambda name: store.fetch(artifact.id, name), shown)
    return artifact.path
