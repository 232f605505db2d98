"""The verbs that ask or tidy a store; flows/cli.py has those that run, flows/cli_model.py those of a model."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from align.errors import AlignError, InputError
from flows import show
from flows.given import identifier, open_store
from flows.options import Json, RunId, StoreDir

app = App()


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

    opened = open_store(store, there=True)
    names, rows, left_out = ask(opened, query, show.run_of(opened, run)["run_id"] if run else None)
    for reason in left_out:
        show.say(f"align: left out: {reason}; `align verify` names all that is damaged.", sys.stderr)
    show.rows(names, rows, "csv" if csv else "json" if json_ else "table")


@app.command
def trace(row_id: str, *, run: RunId = None, store: StoreDir = None, json_: Json = False) -> None:
    """Where a row came from and what became of it. Takes the id of a row, sample or pair."""
    from storage.trace import trace as follow

    opened = open_store(store, there=True)
    found = follow(opened, identifier(row_id), show.run_of(opened, run)["run_id"] if run else None)
    if not found:
        raise InputError(f'{row_id}: no row, sample or pair has this id; `align sql "SELECT row_id FROM rows"` lists.')
    if json_:
        show.as_json(found)
    else:
        show.chapters(found)


@app.command
def report(
    run_id: str | None = None,
    *,
    all_: Annotated[bool, Parameter(name="--all", negative="", help="a page of all runs, recipe by recipe")] = False,
    follow: Annotated[bool, Parameter(negative="", help="renew the page while the run goes on")] = False,
    open_: Annotated[bool, Parameter(name="--open", negative="", help="show the page in the browser")] = False,
    store: StoreDir = None,
    json_: Json = False,
) -> None:
    """Make the page of a run (the one that goes on, else the latest with a report), and say where it lies."""
    from flows import front, reporting

    opened = open_store(store, there=True)
    if all_ and (run_id or follow):
        raise InputError("--all is a page of all runs; leave RUN and --follow out.")
    if all_:
        page, found = front.write(opened)
    else:
        of = reporting.chosen(opened, run_id and identifier(run_id))
        page = reporting.write(of)
    if json_:
        show.as_json(front.as_json(page, found) if all_ else reporting.as_json(of, page))
    else:
        show.say(page)
    if open_:
        import webbrowser

        webbrowser.open(page.as_uri())
    if follow:
        with suppress(KeyboardInterrupt):
            reporting.follow(of)


@app.command
def compare(
    run_id: Annotated[str, Parameter(name="RUN", help="a run's id, the beginning of one, or a tag")],
    other: Annotated[str | None, Parameter(name="OTHER", help="default the latest other run")] = None,
    *,
    html: Annotated[Path | None, Parameter(help="write a page to this file instead of printing")] = None,
    open_: Annotated[bool, Parameter(name="--open", negative="", help="show the page in the browser")] = False,
    limit: Annotated[int, Parameter(help="examples of each kind")] = 5,
    store: StoreDir = None,
    json_: Json = False,
) -> None:
    """What differs between two runs: settings, data, scores on the items that both graded, and answers."""
    from flows import compare as comparing
    from flows import show_compare

    if limit < 0:
        raise InputError("--limit is a number of 0 or more.")
    opened = open_store(store, there=True)
    before, after = comparing.two(opened, identifier(run_id), other and identifier(other))
    found = comparing.compare(before, after, limit)
    if json_:
        show.as_json(show_compare.as_json(found))
    if html or open_:
        show_compare.page(found, html, open_, aside=json_)
    elif not json_:
        show_compare.tables(found)


@app.command
def runs(*, store: StoreDir = None, json_: Json = False) -> None:
    """All runs, oldest first."""
    from storage import runs as records
    from storage.tags import names as named_runs

    opened = open_store(store, there=True)
    named = named_runs(opened)
    found = [
        run | {"tags": ", ".join(t for t, r in named.items() if r == run["run_id"])} for run in records.history(opened)
    ]
    if json_:
        show.as_json(found)
    else:
        names = ["run_id", "recipe", "status", "started_at", "finished_at", "tags"]
        show.rows(names, [[run[n] for n in names] for run in found], "table")


@app.command(name="show")
def show_(
    id_: Annotated[str, Parameter(name="ID")],
    *,
    tokens: Annotated[bool, Parameter(negative="", help="ID is a row's: its tokens, and which are trained on")] = False,
    run: RunId = None,
    store: StoreDir = None,
) -> None:
    """One run, artifact or stage attempt (by key), as JSON; with --tokens a training row as the model sees it."""
    opened = open_store(store, there=True)
    if tokens:
        from flows import show_tokens

        asked = show.run_of(opened, run)["run_id"] if run else None
        show_tokens.print_tokens(show_tokens.seen(opened, identifier(id_), asked))
    elif run:
        raise InputError("--run goes with --tokens; `align show RUN` shows a run.")
    else:
        show.as_json(show.lookup(opened, identifier(id_)))


@app.command
def verify(*, store: StoreDir = None) -> None:
    """Hash every artifact again, and read every record."""
    from storage.upkeep import verify as check

    wrong = 0
    for name, problem in check(open_store(store, there=True)):
        wrong += bool(problem)
        show.say(f"{'DAMAGED' if problem else 'ok':8}{name}{f': {problem}' if problem else ''}")
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
    done = collect(open_store(store, there=True), dry_run, keep_runs, keep_days)
    for path, size in done.paths:
        show.say(f"{size / 1e6:10.2f} MB  {path}")
    show.say(
        f"{len(done.paths)} {'would be ' if dry_run else ''}removed: {done.before / 1e6:.1f} MB before, "
        f"{(done.before - done.bytes) / 1e6:.1f} MB after"
    )
    if done.busy:
        show.say("A run is going on: artifacts and runs were left alone. The same command removes them later.")


@app.command
def du(*, store: StoreDir = None, json_: Json = False) -> None:
    """What takes disk, by folder, stage, recipe and age."""
    from storage.room import usage

    found = usage(open_store(store, there=True))
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
    """Give a run a name, which every verb takes in place of its id; `align gc` keeps what has one. Alone: list them."""
    from storage import tags

    opened = open_store(store, there=True)
    if run_id is None and name is None and remove is None:
        show.table(["name", "run_id"], sorted(tags.names(opened).items()))
        return
    if remove is not None:
        if not tags.is_name(remove) or not tags.remove(opened, remove):
            raise InputError(f"{remove}: no such tag in {opened.where}; `align runs` shows them.")
    elif run_id is None or name is None:
        raise InputError("Name a run and what it shall be called, for instance `align tag RUN baseline`.")
    elif not tags.is_name(name):
        raise InputError(
            f"{name!r}: a tag is up to 64 letters, digits, _, - and ., does not begin with - or a point, and is not "
            "champion."
        )
    else:
        run = show.run_of(opened, run_id)["run_id"]
        tags.put(opened, name, run)
        show.say(f"{name}: {run}")


@app.command
def promote(
    run_id: Annotated[str, Parameter(name="RUN")],
    *,
    yes: Annotated[bool, Parameter(negative="", help="do not ask")] = False,
    force: Annotated[str | None, Parameter(help="why, though the verdict is not yes; kept with the champion")] = None,
    store: StoreDir = None,
) -> None:
    """Make the final model of a run its recipe's champion, where the run's verdict is yes: approval by hand."""
    from flows.promotion import by_hand
    from flows.server import connect

    opened = open_store(store, there=True, write=True)
    run, recipe = show.recipe_of(opened, identifier(run_id))
    if not yes:
        if not sys.stdin.isatty():
            raise InputError("align promote asks before it changes the champion; add --yes where nobody can answer.")
        if input(f"Make the final model of run {run} the champion of {recipe.name}? [y/N] ").strip().lower() != "y":
            raise InputError("Nothing was changed.")
    done = by_hand(opened, run, recipe, force)
    show.promotion(done)
    if done.status == "promoted" and connect(opened):
        from flows.align import announce

        announce(done)
