"""`align report`: the page of a run, made from the store; of one that goes on, how far it is.

What the stages show lies in the artifact of report as JSON, and is made anew where that is not there (yet). What is the
run's own, its costs, lineage and settings, is read from the records.
"""

import shlex
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from pydantic import ValidationError

from align import whole
from align.comparison.settings import clean, settings
from align.errors import AlignError, InputError
from align.redact import redact
from align.report import FORMAT
from align.report.chapters_run import Cost, Made, Running, Settings
from flows.processes import GPU_PEAK, PEAK
from flows.recipe import Recipe, load
from flows.show import run_of
from flows.stages import outline, row
from storage import champions, going, runs
from storage.store import Artifact, Attempt, Store, now
from storage.views import connect

REFRESH = 10
"""Seconds after which a browser reads the page of a run that goes on anew."""


@dataclass
class Recorded:
    """A run with everything that is on record about it."""

    store: Store
    run: dict[str, Any]
    stages: list[dict[str, Any]]
    recipe: Recipe | None
    """None where it is of another version."""

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.run["run_id"])

    @property
    def artifacts(self) -> dict[str, Artifact]:
        """The artifacts that there are, by stage."""
        made = [s for s in self.stages if s["artifact"]]
        found = self.store.each(lambda s: self.store.artifact(s["artifact"]), made)
        return {s["stage"]: artifact for s, artifact in zip(made, found, strict=True) if artifact}

    @property
    def running(self) -> dict[str, dict[str, Any]]:
        """The stages that are running, with what they told of their progress."""
        return going.running(self.store, self.id) if self.run["status"] == "running" else {}

    @property
    def written(self) -> dict[str, Any] | None:
        """What the page shows of the stages, where the stage report has written that down."""
        report = self.artifacts.get("report")
        found = self.store.content(report.id, "page.json") if report else None
        return found if isinstance(found, dict) and found.get("format") == FORMAT else None

    def attempt(self, stage: dict[str, Any]) -> Attempt | None:
        """The attempt that answers for a stage; None where its record is gone or damaged."""
        made = self.store.attempts(stage["key"]) if stage["key"] else []
        return next((a for a in reversed(made) if a.artifact == stage["artifact"]), None)


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


def recorded(store: Store, run: dict[str, Any]) -> Recorded:
    """A run as the store knows it."""
    try:
        recipe = Recipe.model_validate(runs.source(store, run["run_id"]))
    except ValidationError:
        recipe = None
    return Recorded(store, run, runs.stages(store, run["run_id"]), recipe)


def write(of: Recorded) -> Path:
    """Make the page of a run; where it lies. In a store that takes no files it is a folder of its own.

    Raises InputError for a run of another version that has no report.
    """
    content = html(of).encode("utf-8", "surrogatepass")
    path = of.store.root / "cache" / "reports" / f"{of.id}.html"
    try:
        whole.write(path, content)
    except OSError:
        path = Path(mkdtemp(prefix="align-report-")) / "report.html"
        whole.write(path, content)
    return path


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
    return {"page": str(path), **run, **told, "stages": [asdict(cost) for cost in _costs(of)]}


def html(of: Recorded) -> str:
    """The page of a run."""
    from align.report import chapters_run, page
    from align.report.words import say, speaking

    found = _content(of)
    costs = _costs(of)
    alive = of.running
    running = [Running(stage, str(told.get("label", "")), int(told.get("done", 0)), told.get("total"))
               for stage, told in alive.items()]  # fmt: skip
    with speaking(found["language"]):
        first = [chapters_run.progress(costs, running)] if of.run["status"] == "running" else []
        last = [chapters_run.costs(costs), chapters_run.lineage(_lineage(of)), chapters_run.settings(_settings(of))]
        told = {"run": of.id, "recipe": of.run["recipe"], "at": minute(of.run["started_at"]), "now": minute(now()),
                "command": f"`align report {of.id} --follow`"}  # fmt: skip
        text = {
            "running": "Run {run} of {recipe}, started {at} UTC, goes on. Made {now} UTC; {command} renews it.",
            "done": "Run {run} of {recipe}, started {at} UTC. Made {now} UTC.",
            "failed": "Run {run} of {recipe}, started {at} UTC, failed. Made {now} UTC.",
        }.get(of.run["status"], "Run {run} of {recipe}, started {at} UTC, was interrupted. Made {now} UTC.")
        made = say(text, **told)
        crowned = _crowned(of)
    refresh = {"refresh": REFRESH} if first else {}
    found["chapters"] = [*map(chapters_run.as_dict, first), *found["chapters"]]
    return page.html(found, [chapters_run.as_dict(chapter) for chapter in last], made=made, crowned=crowned,
                     **refresh)  # fmt: skip


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


def _costs(of: Recorded) -> list[Cost]:
    """What each stage cost, and those that are to come."""
    makers = _makers(of)
    found = {}
    for stage in of.stages:
        attempt, metrics = of.attempt(stage), stage["metrics"]
        load = _load(stage["stage"])
        tokens = int(metrics["tokens"]) if metrics.get("tokens") else None
        found[stage["stage"]] = Cost(
            stage=stage["stage"], status=stage["status"], run=makers.get(stage["artifact"], ""),
            seconds=stage["seconds"] if stage["status"] == "ran" else None,
            made_in=attempt.seconds if attempt else None,
            drawn=tokens if load == "sample" else None,
            trained=tokens if load in ("sft", "dpo", "reward", "grpo") else None,
            peak_mb=_whole(metrics.get(PEAK)), gpu_mb=_whole(metrics.get(GPU_PEAK)), reason=redact(stage["reason"]),
        )  # fmt: skip
    order = runs.planned(of.store, of.id)[1] or list(found)
    if of.run["status"] != "running":
        return [found[name] for name in dict.fromkeys([*order, *found]) if name in found]
    rest = (Cost(name, "running" if name in of.running else "to come") for name in order if name not in found)
    return [*found.values(), *rest]


def _whole(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) else None


def _load(stage: str) -> str | None:
    try:
        return row(stage).load
    except KeyError:  # of another version
        return None


def _makers(of: Recorded) -> dict[str, str]:
    """By artifact the run that made it, of those that this run found."""
    cached = [s["artifact"] for s in of.stages if s["status"] == "cached"]
    if not cached:
        return {}
    ran = "SELECT artifact, min(run_id) FROM all_stage_runs WHERE status = 'ran'"
    query = f"{ran} AND list_contains($1, artifact) GROUP BY 1"
    return dict(connect(of.store, query).execute(query, [cached]).fetchall())


def _lineage(of: Recorded) -> list[Made]:
    there = of.artifacts
    found = []
    for stage in of.stages:
        artifact, attempt = there.get(stage["stage"]), of.attempt(stage)
        if artifact:
            parents = attempt.inputs if attempt else {}
            found.append(Made(stage["stage"], artifact.id, artifact.digest(), [
                f"{role}: {_parent(value)}" for role, value in parents.items()
            ]))  # fmt: skip
    return found


def _parent(value: Mapping[str, Any]) -> str:
    if "artifact" not in value:
        return f"sha256 {str(value['digest'])[:16]}"
    return f"{value['artifact']}/{value['file']}" if value.get("file") else str(value["artifact"])


def _settings(of: Recorded) -> Settings:
    from ruamel.yaml import YAML

    source, words = runs.source(of.store, of.id), runs.planned(of.store, of.id)[0]
    text = StringIO()
    YAML().dump(clean(_own(source)), text)
    versions: dict[str, list[str]] = {}
    for attempt in filter(None, map(of.attempt, of.stages)):
        for library, version in attempt.versions.items():
            if version not in versions.setdefault(library, []):
                versions[library].append(version)
    command = f"align run {shlex.join(words)}" if words else ""
    return Settings(command, _changed(words, source), text.getvalue(), versions)


def _changed(words: list[str], source: dict[str, Any]) -> list[str] | None:
    """The settings in which what was asked for is another recipe today; None where it cannot be read."""
    if not words:
        return []
    given = [value for option, value in zip(words, words[1:], strict=False) if option == "--set"]
    try:
        today = load(words[0], given).model_dump(mode="json")
    except AlignError:
        return None
    return [s.key for s in settings(_own(source), _own(today))]


def _own(source: dict[str, Any]) -> dict[str, Any]:
    """What a recipe itself says: its champion is the store's."""
    return {name: value for name, value in source.items() if name not in ("champion", "extends")}
