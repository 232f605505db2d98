"""The command line: `align VERB`. Each verb imports what it needs when it is called: help and plan answer at once."""

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from align.errors import AlignError, InputError
from align.redact import redact
from flows import ending, show
from flows import run as running
from flows.run import store_path
from storage.store import Store

app = App(
    name="align",
    help="From a base model and raw instruction data to an aligned model, stage by stage.",
    suppress_keyboard_interrupt=False,
)

Overrides = Annotated[list[str] | None, Parameter(name="--set", negative="", help="dotted.key=value; may be repeated")]
Select = Annotated[str | None, Parameter(name="--select", help="stages: a, +a, a+, several separated by spaces")]
StoreDir = Annotated[Path | None, Parameter(name="--store", help="the store; default $ALIGN_STORE, else .align")]
RunId = Annotated[
    str | None, Parameter(name="--run", help="a run's id, the beginning of one, or a tag; default latest")
]
Model = Annotated[str | None, Parameter(help="the stage that trained it; default the last of the pipeline")]
Json = Annotated[bool, Parameter(name="--json", negative="")]


def _open(store: Path | None) -> Store:
    return Store(store_path(store))


@app.command
def run(
    recipe: str = "quickstart",
    *,
    set_: Overrides = None,
    select: Select = None,
    refresh: Annotated[bool, Parameter(negative="", help="recompute what is selected, though it is cached")] = False,
    store: StoreDir = None,
    json_: Json = False,
) -> None:
    """Run a recipe; what has not changed is skipped. The same command resumes."""
    from flows.run import run as run_recipe

    opened = _open(store)
    outcome = run_recipe(recipe, set_ or [], opened, select, refresh)
    if json_:
        show.as_json({"run_id": outcome.run_id, "stages": [vars(s) for s in outcome.stages]})
    else:
        show.outcome(opened, outcome)


@app.command
def plan(
    recipe: str = "quickstart",
    *,
    set_: Overrides = None,
    select: Select = None,
    refresh: Annotated[bool, Parameter(negative="")] = False,
    store: StoreDir = None,
    json_: Json = False,
) -> None:
    """What would run, and why. Nothing is done."""
    from flows.plan import plan as make_plan
    from flows.recipe import load

    planned = make_plan(_open(store), load(recipe, set_ or []), select, refresh)
    if json_:
        show.as_json([
            {"stage": p.stage, "status": p.status, "reason": p.reason, "drift": list(p.drift),
             "key": p.request and p.request.key, "artifact": p.attempt and p.attempt.artifact} for p in planned
        ])  # fmt: skip
    else:
        show.plan(planned)


@app.command
def graph(recipe: str = "quickstart", *, set_: Overrides = None) -> None:
    """The DAG as Mermaid."""
    from flows.graph import mermaid
    from flows.recipe import load

    print(mermaid(load(recipe, set_ or [])))


@app.command
def sql(
    query: str,
    *,
    csv: Annotated[bool, Parameter(negative="")] = False,
    json_: Json = False,
    run: RunId = None,
    store: StoreDir = None,
) -> None:
    """Read-only SQL over the latest run (or --run); all_NAME is a view over every run. "SHOW ALL TABLES" lists them."""
    from storage.views import ask

    opened = _open(store)
    names, rows, left_out = ask(opened, query, show.run_of(opened, run)["run_id"] if run else None)
    for reason in left_out:
        print(f"align: left out: {reason}; `align verify` names all that is damaged.", file=sys.stderr)
    show.rows(names, rows, "csv" if csv else "json" if json_ else "table")


@app.command
def trace(row_id: str, *, run: RunId = None, store: StoreDir = None, json_: Json = False) -> None:
    """Where a row came from and what became of it. Takes the id of a row, sample or pair."""
    from storage.trace import trace as follow

    opened = _open(store)
    found = follow(opened, row_id, show.run_of(opened, run)["run_id"] if run else None)
    if not found:
        raise InputError(f'{row_id}: no row, sample or pair has this id; `align sql "SELECT row_id FROM rows"` lists.')
    if json_:
        show.as_json(found)
    else:
        show.chapters(found)


@app.command
def memory(recipe: str = "quickstart", *, set_: Overrides = None, json_: Json = False) -> None:
    """GPU memory that each stage needs, before anything is loaded."""
    from align.models.memory import estimates
    from flows.recipe import load
    from flows.stages import STAGES

    loaded = load(recipe, set_ or [])
    found = estimates(loaded.base, {s.name: (s.load, s.config_of(loaded)) for s in STAGES if s.load and not s.control})
    if json_:
        show.as_json(found)
    else:
        show.memory(found)


@app.command
def report(
    run_id: str | None = None,
    *,
    open_: Annotated[bool, Parameter(name="--open", negative="")] = False,
    store: StoreDir = None,
) -> None:
    """Path of the HTML report of a run (the latest that has one)."""
    page = show.artifact_of(_open(store), run_id, "report") / "report.html"
    print(page)
    if open_:
        import webbrowser

        webbrowser.open(page.as_uri())


@app.command
def runs(*, store: StoreDir = None, json_: Json = False) -> None:
    """All runs, oldest first."""
    from storage import runs as records
    from storage.tags import tags

    opened = _open(store)
    named = tags(opened)
    found = [
        run | {"tags": ", ".join(t for t, r in named.items() if r == run["run_id"])} for run in records.history(opened)
    ]
    if json_:
        show.as_json(found)
    else:
        names = ["run_id", "recipe", "status", "started_at", "finished_at", "tags"]
        show.rows(names, [[run[n] for n in names] for run in found], "table")


@app.command(name="show")
def show_(id_: Annotated[str, Parameter(name="ID")], *, store: StoreDir = None) -> None:
    """One run, artifact or stage attempt (by key), as JSON."""
    show.as_json(show.lookup(_open(store), id_))


@app.command
def verify(*, store: StoreDir = None) -> None:
    """Hash every artifact again, and read every record."""
    from storage.upkeep import verify as check

    wrong = 0
    for name, problem in check(_open(store)):
        wrong += bool(problem)
        print(f"{'DAMAGED' if problem else 'ok':8}{name}{f': {problem}' if problem else ''}")
    if wrong:
        raise AlignError(f"{wrong} damaged; `align run` makes damaged artifacts again.")


@app.command
def gc(
    *,
    keep_runs: Annotated[
        int | None, Parameter(help="finished runs to keep of each recipe, and what failed since")
    ] = None,
    keep_days: Annotated[float | None, Parameter(help="age up to which runs and caches of rows are kept")] = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    store: StoreDir = None,
) -> None:
    """Remove what no run refers to; with --keep-runs or --keep-days older runs too. Tagged runs are always kept."""
    from storage.room import collect

    if (keep_runs is not None and keep_runs < 0) or (keep_days is not None and not 0 <= keep_days < 1e6):
        raise InputError("--keep-runs and --keep-days are numbers of 0 or more.")
    done = collect(_open(store), dry_run, keep_runs, keep_days)
    for path, size in done.paths:
        print(f"{size / 1e6:10.2f} MB  {path}")
    print(
        f"{len(done.paths)} {'would be ' if dry_run else ''}removed: {done.before / 1e6:.1f} MB before, "
        f"{(done.before - done.bytes) / 1e6:.1f} MB after"
    )
    if done.busy:
        print("A run is going on: artifacts and runs were left alone. The same command removes them later.")


@app.command
def du(*, store: StoreDir = None, json_: Json = False) -> None:
    """What takes disk, by folder, stage, recipe and age."""
    from storage.room import usage

    found = usage(_open(store))
    if json_:
        show.as_json([dict(zip(("by", "name", "things", "bytes"), f, strict=True)) for f in found])
    else:
        show.table(["by", "name", "things", "MB"], [(by, name, n, size / 1e6) for by, name, n, size in found])


@app.command
def tag(
    run_id: Annotated[str | None, Parameter(name="RUN")] = None,
    name: str | None = None,
    *,
    remove: Annotated[str | None, Parameter(help="forget this tag")] = None,
    store: StoreDir = None,
) -> None:
    """Give a run a name, which every verb takes in place of its id; `align gc` keeps what has one."""
    from storage import tags

    opened = _open(store)
    if remove is not None:
        if not tags.is_name(remove) or not tags.remove(opened, remove):
            raise InputError(f"{remove}: no such tag in {opened.root}; `align runs` shows them.")
    elif run_id is None or name is None:
        raise InputError("Name a run and what it shall be called, for instance `align tag RUN baseline`.")
    elif not tags.is_name(name):
        raise InputError(
            f"{name!r}: a tag is up to 64 letters, digits, _, - and ., and does not begin with - or a point."
        )
    else:
        run = show.run_of(opened, run_id)["run_id"]
        tags.put(opened, name, run)
        print(f"{name}: {run}")


@app.command
def export(run_id: str, *, to: Path, model: Model = None, store: StoreDir = None) -> None:
    """Write a model directory that plain transformers or vLLM load."""
    from align.models.export import export as write_model
    from flows.stages import final

    opened = _open(store)
    write_model(show.base_of(opened, run_id), show.artifact_of(opened, run_id, model or final()), to)
    print(to)


@app.command
def chat(run_id: str | None = None, *, model: Model = None, store: StoreDir = None) -> None:
    """Talk to the result. Each line is a prompt of its own; an empty line or end of input ends."""
    from align.models.engine import Prompt, Sampling
    from align.models.generate import Sampler
    from flows.stages import final

    opened = _open(store)
    model = model or final()
    adapter, base = show.artifact_of(opened, run_id, model), show.base_of(opened, run_id)
    policy = Sampler(base, adapter)
    prompt = f"{model}> " if sys.stdin.isatty() else ""
    while line := _line(prompt):
        asked = [Prompt("chat", [{"role": "user", "content": line}])]
        print(policy.draw(asked, Sampling().greedy())[0].text, flush=True)


def _line(prompt: str) -> str:
    try:
        return input(prompt).strip()
    except EOFError:
        return ""


@app.command
def serve(recipe: str = "quickstart", *, port: int = 4200, store: StoreDir = None) -> None:
    """Prefect server, deployments of RECIPE and a worker on this machine; prints the UI's address. Port 0: any."""
    from flows.serve import serve as start

    start(_open(store), port, recipe)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `align`: exit status 0 done, 1 a stage failed, 2 bad usage, recipe or input."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if debug:
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO")
    with ending.told():
        _answer(words, debug)
    if running.server_lost:
        ending.leave(0, at_once=True)


def _answer(words: list[str], debug: bool) -> None:
    """Do what the words say. Every error becomes one sentence and an exit."""
    try:
        app(words, exit_on_error=False, print_error=False, result_action="return_none")
    except CycloptsError as error:
        fail(f"{str(error).strip()} See `align --help`.", 2)
    except AlignError as error:
        if debug:
            _trace(error)
        fail(str(error), error.exit_status, resume(words) if error.exit_status == 1 else None)
    except KeyboardInterrupt as error:
        signum = error.signum if isinstance(error, ending.Told) else signal.SIGINT
        fail("interrupted; the same command resumes.", 128 + signum)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        if debug:
            _trace(error)
        fail(f"{type(error).__name__}: {error}. Add --debug for the traceback.", 1)


def _trace(error: Exception) -> None:
    from traceback import format_exception

    print(redact("".join(format_exception(error))), file=sys.stderr)


def resume(words: Sequence[str]) -> str | None:
    """The next command to type after a failed run."""
    import shlex

    return f"next: correct the cause, then `align {shlex.join(words)}` resumes." if words[:1] == ["run"] else None


def fail(message: str, status: int, hint: Any = None) -> None:
    """Print one sentence on stderr, and what to do next, and exit."""
    with suppress(OSError):  # the terminal may be gone
        print(redact(f"align: {message}"), file=sys.stderr)
        if hint:
            print(redact(f"align: {hint}"), file=sys.stderr)
    ending.leave(status, at_once=running.server_lost)


if __name__ == "__main__":
    main()
