"""What the command line prints: tables for people, JSON and CSV for programs, and looking things up by id."""

import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from align.errors import InputError
from align.text import UNPRINTABLE, printable
from storage import champions, files, runs
from storage.store import Store
from storage.tags import meant

if TYPE_CHECKING:
    from align.models.memory import Estimate
    from flows.recipe import Recipe


def say(text: object = "", file: TextIO | None = None) -> None:
    """Print a text. Everything goes through here: no row, answer or name may command the terminal, and none fails for
    an encoding that lacks its letters."""
    stream = file or sys.stdout
    print(_encodable(printable(str(text)), stream), file=stream, flush=True)


def piece(text: str) -> None:
    """Print a part of a line, with the care of `say`."""
    sys.stdout.write(_encodable(printable(text), sys.stdout))
    sys.stdout.flush()


def _encodable(text: str, stream: TextIO) -> str:
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def as_json(value: Any) -> None:
    """Print a value as JSON."""
    letters = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    text = json.dumps(value, indent=1, ensure_ascii=not letters, default=str)
    say(UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text))  # still JSON, and the same values


def rows(names: Sequence[str], values: Sequence[Sequence[Any]], form: str) -> None:
    """Print rows as `table`, `csv` or `json`."""
    if form == "json":
        as_json([dict(zip(names, row, strict=True)) for row in values])
    elif form == "csv":
        import csv

        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(values)
        if sys.stdout.isatty():
            say(text.getvalue().removesuffix("\n"))
        else:  # a program gets what is there, to the byte
            sys.stdout.write(_encodable(text.getvalue(), sys.stdout))
    else:
        table(names, values)


def table(names: Sequence[str], values: Sequence[Sequence[Any]]) -> None:
    """Print a table; numbers to the right, four digits after the point."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=box.SIMPLE_HEAD)
    for i, name in enumerate(names):
        numeric = any(isinstance(row[i], int | float) for row in values)
        grid.add_column(Text(printable(str(name))), justify="right" if numeric else "left", overflow="fold")
    for row in values:
        grid.add_row(*(Text(printable(_cell(v))) for v in row))
    Console(width=None if sys.stdout.isatty() else 160).print(grid)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def plan(planned: Sequence[Any]) -> None:
    """Print a plan: stage, status, reason."""
    words = {"run": "will run"}
    table(
        ["stage", "status", "why"],
        [
            [p.stage, words.get(p.status, p.status), "; ".join(filter(None, [p.reason, *p.drift, p.note]))]
            for p in planned
        ],
    )


def outcome(store: Store, done: Any) -> None:
    """Print what a run came to: the stages, the result table, where the report is."""
    if done.note:
        say(f"{done.note}.")
        return
    ran = [s for s in done.stages if s.status == "ran"]
    seconds = sum(s.seconds for s in ran)
    skipped = [s for s in done.stages if s.status == "skipped"]
    cached = len(done.stages) - len(ran) - len(skipped)
    rest = f", {len(skipped)} skipped: {skipped[0].reason}" if skipped else ""
    say(f"run {done.run_id}: {len(ran)} stages ran in {seconds:.0f} s, {cached} cached{rest}")
    artifacts = {s.stage: s.artifact for s in done.stages}
    if "report" in artifacts:
        folder = store.fetch(artifacts["report"])
        summary = folder / "summary.json"
        if result := files.read_json(summary):
            table(result["columns"], result["rows"])
        say(f"report: {folder / 'report.html'}")
    else:
        for stage in (s for s in done.stages if s.artifact):
            metrics(stage.stage, stage.metrics)
    if done.promotion:
        promotion(done.promotion)


def promotion(found: Any) -> None:
    """Print what came of the verdict of promote."""
    say(f"{found.status}: {found.text}.")


def metrics(stage: str, found: Mapping[str, Any]) -> None:
    """Print what a stage counted and measured, names with a common beginning in one line, zeros left out."""
    lines: dict[str, list[str]] = {}
    for name, value in found.items():
        group, _, rest = name.partition(".")
        if value or not isinstance(value, int | float):
            text = f"{value:,}" if isinstance(value, int) else _cell(value)
            lines.setdefault(group, []).append(f"{rest} {text}".strip())
    say(f"{stage}:")
    for group, values in lines.items():
        say(f"  {group}: {', '.join(values)}")


def chapters(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Print a trace, chapter by chapter."""
    for title, entries in found.items():
        say(f"{title}:")
        for entry in entries:
            say("  - " + "\n    ".join(f"{k}: {_short(v)}" for k, v in entry.items() if v is not None))


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, dict | list) else str(value)
    return text if len(text) <= 300 else f"{text[:297]}..."


def memory(estimates: "Mapping[str, Estimate]", gpu: int | None, advice: Mapping[str, str]) -> None:
    """Print bytes as GB, a part in a line and a stage in a column, and what to do where one does not fit on the GPU."""
    names = {part: None for e in estimates.values() for part in e.parts if part != "total"}
    rows: list[list[Any]] = [
        [part, *(_gb(e.parts.get(part)) for e in estimates.values())] for part in (*names, "total")
    ]
    rows.append(["batch", *(" x ".join(map(str, e.settings.values())) for e in estimates.values())])
    if gpu:
        rows.append([f"fits in {gpu / 1e9:.1f}", *("yes" if e.fits else "no" for e in estimates.values())])
    table(["GB", *estimates], rows)
    for name, sentence in advice.items():
        say(f"{name} does not fit: {sentence}")


def _gb(size: int | None) -> str:
    return "" if size is None else f"{size / 1e9:.3f}"


def run_of(store: Store, name: str) -> dict[str, Any]:
    """The run of that id, of an id that begins so, or that the tag names."""
    wanted = meant(store, name)
    match = [run for run in runs.history(store) if run["run_id"].startswith(wanted)]
    if not match or not wanted:
        raise InputError(f"{name}: no such run in {store.where}; `align runs` lists them.")
    return match[-1]


def latest_run(store: Store, run_id: str | None, stage: str) -> dict[str, Any]:
    """The run of that id, else the latest that has the stage."""
    if run_id:
        return run_of(store, run_id)
    for run in reversed(runs.history(store)):
        if any(s["stage"] == stage and s["artifact"] for s in runs.stages(store, run["run_id"])):
            return run
    raise InputError(f"No run in {store.where} has finished {stage}; `align run` makes one.")


def artifact_of(store: Store, run_id: str | None, stage: str) -> Path:
    """The artifact directory of a stage in a run."""
    run = latest_run(store, run_id, stage)
    for record in runs.stages(store, run["run_id"]):
        if record["stage"] == stage and record["artifact"]:
            artifact = store.artifact(record["artifact"])
            if artifact is None:
                raise InputError(f"{record['artifact']} was removed; `align run {run['recipe']}` makes it again.")
            return store.fetch(artifact.id)
    raise InputError(f"Run {run['run_id']} did not finish {stage}; `align show {run['run_id']}` says what it did.")


def final_of(store: Store, run_id: str | None) -> str:
    """The model that a run ends with: as its recipe has it, of several rounds as their gates decided. Raises InputError
    where the recipe is of another version, or the run has not come so far."""
    from flows.stages import final

    run, recipe = recipe_of(store, run_id)
    last = final(recipe)
    return newest_of(store, run) if last == "newest" else last


def recipe_of(store: Store, run_id: str | None) -> "tuple[str, Recipe]":
    """The id of a run, by default the latest that has a policy, and its recipe."""
    from pydantic import ValidationError

    from flows.recipe import Recipe

    run = latest_run(store, run_id, "sft")["run_id"]
    try:
        return run, Recipe.model_validate(runs.source(store, run))
    except ValidationError:
        raise InputError(f"The recipe of run {run} is of another version; name its model with --model.") from None


def newest_of(store: Store, run_id: str) -> str:
    """The policy that the rounds of a run ended with. Raises InputError where that is not decided."""
    for record in runs.stages(store, run_id):
        if record["stage"] == "newest" and record["artifact"]:
            return str(record["metrics"]["policy"])
    raise InputError(f"The rounds of run {run_id} have not ended; `align run` goes on, --model takes what there is.")


def champion_of(store: Store) -> str | None:
    """The run that made the champion of the recipe that ran last; None where it has none. Says which it is."""
    last = runs.latest(store)
    found = champions.current(store, last["recipe"]) if last else None
    if found is None:
        return None
    say(f"align: {found.model} of run {found.run_id}, the champion of {found.recipe}", sys.stderr)
    return found.run_id


def base_of(store: Store, run_id: str | None) -> Any:
    """The base model of a run, as its recipe had it."""
    from align.models.base import BaseConfig

    return BaseConfig.model_validate(runs.source(store, latest_run(store, run_id, "sft")["run_id"])["base"])


def lookup(store: Store, id_: str) -> Any:
    """A run (by id or tag), an artifact or the attempts of a key."""
    wanted = meant(store, id_)
    for run in runs.history(store):
        if run["run_id"] == wanted:
            return {**run, "source": runs.source(store, wanted), "stages": runs.stages(store, wanted)}
    if artifact := store.artifact(id_):
        made = made_by(store, id_)
        return {"artifact": id_, "stage": artifact.stage, "kind": artifact.kind, "path": store.path_of(id_),
                "files": artifact.files, "attempts": made}  # fmt: skip
    if attempts := store.attempt_records(id_):
        return attempts
    raise InputError(f"{id_}: no run, artifact or stage key has this id; `align runs` lists the runs.")


def made_by(store: Store, artifact: str) -> list[dict[str, Any]]:
    """The attempts that made an artifact, as they were recorded."""
    from storage.views import connect

    query = "SELECT DISTINCT key FROM attempts WHERE artifact = $1"
    keys = [key for (key,) in connect(store, query).execute(query, [artifact]).fetchall()]
    return [a for key in keys for a in store.attempt_records(key) if a["artifact"] == artifact]
