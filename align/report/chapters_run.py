"""The page's chapters on a run itself: what it cost, where everything comes from, and how to do it again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from align.report.chapters import Chapter
from align.report.wording import count, number
from align.report.words import say


@dataclass(frozen=True)
class Cost:
    """What a stage cost the run, and what it cost whoever made its artifact."""

    stage: str
    status: str
    """ran, cached, skipped, failed; running or to come in a run that goes on."""
    run: str = ""
    """The run that made the artifact, where that is another."""
    seconds: float | None = None
    """How long it ran in this run."""
    made_in: float | None = None
    """How long it took when it was made."""
    drawn: int | None = None
    """Tokens that it drew."""
    trained: int | None = None
    """Tokens that training saw."""
    peak_mb: int | None = None
    gpu_mb: int | None = None
    reason: str = ""
    """Why it ran, was skipped or failed, in English."""


@dataclass(frozen=True)
class Made:
    """An artifact of the run, with its parents."""

    stage: str
    artifact: str
    digest: str
    parents: Sequence[str] = ()
    """Role, artifact and file of each."""


@dataclass(frozen=True)
class Running:
    """A stage that is running, and how far it is."""

    stage: str
    label: str = ""
    done: int = 0
    total: int | None = None


@dataclass(frozen=True)
class Settings:
    """How a run is done again."""

    command: str = ""
    """The command; "" where it is not on record."""
    changed: Sequence[str] | None = None
    """The keys by which that command gives other settings today; None where it does not work any more."""
    text: str = ""
    """All settings, as YAML."""
    versions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The versions of each library that stages ran with."""


def progress(stages: Sequence[Cost], running: Sequence[Running]) -> Chapter:
    """How far a run is."""
    chapter = Chapter("progress", say("How far it is"))
    coming = [s.stage for s in stages if s.status == "to come"]
    done = len(stages) - len(coming) - len(running)
    chapter.lead = say("{done} of {n:stage} done.", done=done, n=len(stages))
    for stage in running:
        far = f"{count(stage.done)} / {count(stage.total) if stage.total else '?'}" if stage.label else ""
        chapter.blocks.append({
            "kind": "progress", "stage": stage.stage, "text": " · ".join(filter(None, [say("is running"), far])),
            "label": stage.label if stage.label != stage.stage else "", "done": stage.done, "total": stage.total,
        })  # fmt: skip
    if coming:
        chapter.note(say("Still to come: {stages}.", stages=", ".join(coming)))
    return chapter


def costs(stages: Sequence[Cost]) -> Chapter:
    """Seconds, tokens and memory of each stage, and whether it ran or was found in the store."""
    chapter = Chapter("costs", say("What it cost"))
    ran = [s for s in stages if s.status == "ran"]
    spent = sum(s.seconds or 0.0 for s in ran)
    saved = sum(s.made_in or 0.0 for s in stages if s.status == "cached")
    chapter.lead = say(
        "{n:stage} ran in {seconds} s; {cached} found in the store, which saved {saved} s. Stages may run side by "
        "side.",
        n=len(ran), seconds=number(round(spent, 1)), cached=sum(s.status == "cached" for s in stages),
        saved=number(round(saved, 1)),
    )  # fmt: skip
    for stage in (s for s in stages if s.status == "failed"):
        chapter.note(say("{stage} failed:", stage=stage.stage), warn=True)
        chapter.code(stage.reason)
    columns = ["stage", "what became of it", "made by run", "seconds", "seconds when made", "tokens drawn",
               "tokens trained on", "peak memory, MB"]  # fmt: skip
    gpu = any(s.gpu_mb is not None for s in stages)
    body = [
        [s.stage, say(s.status), s.run, *map(_figure, (s.seconds, s.made_in, s.drawn, s.trained, s.peak_mb)),
         *([_figure(s.gpu_mb)] if gpu else [])] for s in stages
    ]  # fmt: skip
    total = [say("all"), "", "", _figure(round(spent, 3)), _figure(round(sum(s.made_in or 0.0 for s in stages), 3)),
             *(_figure(sum(getattr(s, name) or 0 for s in stages)) for name in ("drawn", "trained")),
             *(_figure(max((getattr(s, name) or 0 for s in stages), default=0))
               for name in ("peak_mb", *(["gpu_mb"] if gpu else [])))]  # fmt: skip
    caption = say(
        "Seconds are those of the stage's own process, tokens and memory those of the attempt that made the artifact; "
        "of memory the last line has the most that one stage held."
    )
    columns += ["peak GPU memory, MB"] if gpu else []
    chapter.table([say(name) for name in columns], [*body, total], caption, text=3)
    if why := [[s.stage, s.reason] for s in stages if s.reason and s.status != "failed"]:
        chapter.table([say("stage"), say("why")], why, text=2, foreign=(1,), fold=say("Why stages ran"))
    return chapter


def _figure(value: float | None) -> str:
    return "–" if value is None else count(value) if isinstance(value, int) else f"{value:,.1f}"


def lineage(made: Sequence[Made]) -> Chapter:
    """Every artifact with its digest, and what it was made of."""
    chapter = Chapter("lineage", say("Where everything comes from"))
    chapter.lead = say(
        "{n:artifact}. An artifact is named by its stage and the beginning of the digest over its contents.",
        n=len(made),
    )
    names = [say(name) for name in ("stage", "artifact", "digest (SHA-256)", "made of")]
    body = [[m.stage, m.artifact, m.digest, "\n".join(m.parents) or "–"] for m in made]
    chapter.table(names, body, text=4, foreign=(1, 2, 3), fold=say("Artifacts, digests and parents"))
    return chapter


def settings(found: Settings) -> Chapter:
    """The command that gives the run again, all settings, and the versions of the libraries."""
    chapter = Chapter("settings", say("How to do it again"))
    if found.command:
        chapter.code(found.command)
        if found.changed is None:
            chapter.note(say("The recipe is not there any more, or is of another version."), warn=True)
        elif found.changed:
            keys = ", ".join(found.changed)
            chapter.note(
                say("Since then the recipe has changed in {keys}; below it is as it was.", keys=keys), warn=True
            )
        else:
            chapter.note(say("Today this command gives the same settings."))
    else:
        chapter.note(say("The command is not on record; the settings below are a recipe: save them and run that file."))
    chapter.code(found.text, fold=say("All settings, as a recipe"))
    rows = [[library, ", ".join(versions)] for library, versions in found.versions.items()]
    chapter.table([say("library"), say("version")], rows, text=2, foreign=(0, 1), fold=say("Versions of the libraries"))
    return chapter


def as_dict(chapter: Chapter) -> dict[str, Any]:
    """A chapter as the page takes it."""
    return {"id": chapter.id, "title": chapter.title, "lead": chapter.lead, "blocks": chapter.blocks}
