"""A run with everything on record about it: what it cost, where its artifacts come from, how it is done again."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from typing import Any

from pydantic import ValidationError

from align.comparison.settings import clean
from align.comparison.settings import settings as differing
from align.errors import AlignError
from align.redact import redact
from align.report import FORMAT
from align.report.chapters_run import Cost, Made, Settings
from flows.processes import GPU_PEAK, PEAK
from flows.recipe import Recipe, load
from flows.stages import row
from storage import going, runs
from storage.store import Artifact, Attempt, Store
from storage.views import connect


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
        return runs.attempt_of(self.store, stage)


def recorded(store: Store, run: dict[str, Any]) -> Recorded:
    """A run as the store knows it."""
    try:
        recipe = Recipe.model_validate(runs.source(store, run["run_id"]))
    except ValidationError:
        recipe = None
    return Recorded(store, run, runs.stages(store, run["run_id"]), recipe)


def costs(of: Recorded) -> list[Cost]:
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


def lineage(of: Recorded) -> list[Made]:
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


def settings(of: Recorded) -> Settings:
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
    return [s.key for s in differing(_own(source), _own(today))]


def _own(source: dict[str, Any]) -> dict[str, Any]:
    """What a recipe itself says: its champion is the store's."""
    return {name: value for name, value in source.items() if name not in ("champion", "extends")}
