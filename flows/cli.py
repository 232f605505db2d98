"""The command line: `align VERB`. Each verb imports what it needs when it is called: help and plan answer at once."""

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from align.config import LARGEST
from align.errors import AlignError, InputError, StageError
from align.redact import redact
from align.text import short
from flows import ending, show
from flows import run as running
from flows.cli_model import app as model_verbs
from flows.cli_store import app as store_verbs
from flows.cli_transfer import app as transfer_verbs
from flows.given import identifier, open_store, refused
from flows.options import Json, Overrides, Select, StoreDir

Pools = Literal["process", "docker", "kubernetes", "keep"]
app = App(
    name="align",
    help="From a base model and raw instruction data to an aligned model, stage by stage.",
    suppress_keyboard_interrupt=False,
)
app.update(store_verbs)
app.update(model_verbs)
app.update(transfer_verbs)


@app.command
def run(
    recipe: str = "quickstart",
    *,
    set_: Overrides = None,
    select: Select = None,
    refresh: Annotated[bool, Parameter(negative="", help="recompute what is selected, though it is cached")] = False,
    new: Annotated[bool, Parameter(negative="", help="go on from the champion, with what has come since")] = False,
    store: StoreDir = None,
    json_: Json = False,
) -> None:
    """Run a recipe; what has not changed is skipped. The same command resumes."""
    from flows.run import run as run_recipe

    opened = open_store(store, write=True)
    going_on = ["chain.rows=new", "promote.against=champion"] if new else []
    outcome = run_recipe(recipe, [*(set_ or []), *going_on], opened, select, refresh)
    if json_:
        facts = {"run_id": outcome.run_id, "stages": [vars(s) for s in outcome.stages]}
        show.as_json(
            facts
            | ({"promotion": asdict(outcome.promotion)} if outcome.promotion else {})
            | ({"note": outcome.note} if outcome.note else {})
        )
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

    planned = make_plan(open_store(store), load(recipe, set_ or []), select, refresh)
    if json_:
        show.as_json([
            {"stage": p.stage, "status": p.status, "reason": p.reason, "drift": list(p.drift), "note": p.note,
             "key": p.request and p.request.key, "artifact": p.attempt and p.attempt.artifact} for p in planned
        ])  # fmt: skip
    else:
        show.plan(planned)


@app.command
def sweep(
    recipe: str = "quickstart",
    *,
    set_: Overrides = None,
    trials: Annotated[
        int | None, Parameter(help="search so many points of the lists and ranges (key=1e-4..1e-2) in --set")
    ] = None,
    seed: Annotated[int, Parameter(help="that of the search; the same seed goes on where it was")] = 0,
    at_once: Annotated[int | None, Parameter(help="points that run at once; default one a GPU, of a pool one")] = None,
    model: Annotated[str | None, Parameter(help="whose score counts; default the last of the chain")] = None,
    html: Annotated[Path | None, Parameter(help="write it as a page to this file")] = None,
    open_: Annotated[bool, Parameter(name="--open", help="show the page in the browser")] = False,
    store: StoreDir = None,
    json_: Json = False,
) -> None:
    """Run a recipe with every combination of the values in `--set key=a,b,c`, and say which is best.

    With --trials a search chooses the points. What they share is computed once; the same command resumes. On a machine
    with several GPUs they run side by side.
    """
    from flows import pages, show_sweep
    from flows.sweep import sweep as run_sweep

    if not 0 <= seed <= LARGEST:
        raise InputError(f"--seed is a number from 0 to {LARGEST}.")
    if html:
        pages.can_write(html)
    opened = open_store(store, write=True)
    found = run_sweep(recipe, set_ or [], opened, model, trials, seed, at_once)
    if json_:
        show.as_json(show_sweep.as_json(found))
    else:
        show_sweep.tell(found)
    if html or open_:
        pages.write(show_sweep.html(found, recipe), html, "sweep", open_, aside=json_)
    elif not json_:
        show.say(pages.keep(opened, f"sweep-{Path(recipe).stem}", show_sweep.html(found, recipe)))
    if failed := found.failed:
        raise StageError(f"{len(failed)} of {len(found.points)} runs failed: {failed[0].error}")


@app.command
def graph(recipe: str = "quickstart", *, set_: Overrides = None) -> None:
    """The DAG as Mermaid."""
    from flows.graph import mermaid
    from flows.recipe import load

    show.say(mermaid(load(recipe, set_ or [])))


@app.command
def memory(
    recipe: str = "quickstart",
    *,
    set_: Overrides = None,
    gpu: Annotated[str | None, Parameter(help="GPU to fit on, such as 24GiB; default: the one that is here")] = None,
    json_: Json = False,
) -> None:
    """GPU memory that each stage needs, before anything is loaded, and whether it fits."""
    from align.models.memory import estimates
    from flows.needs import advice, given_bytes, gpu_bytes, needs
    from flows.recipe import load

    loaded = load(recipe, set_ or [])
    size = given_bytes(gpu) if gpu else gpu_bytes()
    found = estimates(loaded.base, needs(loaded), size)
    if json_:
        facts = {name: {**e.parts, **e.settings} for name, e in found.items()}
        fit = {name: {"fits": e.fits, "fitting": e.fitting} if size else {} for name, e in found.items()}
        show.as_json({name: {**facts[name], **fit[name]} for name in found})
    else:
        show.memory(found, size, {name: advice(loaded, name, e) for name, e in found.items() if e.fits is False})


@app.command
def serve(recipe: str = "quickstart", *, port: int = 4200, store: StoreDir = None) -> None:
    """Prefect server, deployments of RECIPE and workers on this machine; prints the UI's address. Port 0: any."""
    from flows.serve import serve as start

    start(open_store(store), port, recipe)


@app.command
def deploy(
    recipe: str = "quickstart",
    *,
    type_: Annotated[Pools, Parameter(name="--type", help="what workers of the pools start, or keep")] = "process",
    gpu_type: Annotated[Pools | None, Parameter(help="the same of align-gpu alone")] = None,
    image: Annotated[str | None, Parameter(help="of containers, built from the Dockerfile")] = None,
    store: StoreDir = None,
) -> None:
    """Pools, deployments of RECIPE and automations on the Prefect server in PREFECT_API_URL (docs/cluster.md)."""
    from flows.server import connect

    if not connect(open_store(store)):
        raise InputError("There is no Prefect server; name one in PREFECT_API_URL, or `align serve` starts one.")
    from flows.deploy import CPU, GPU
    from flows.deploy import deploy as make

    make(recipe, {CPU: type_, GPU: gpu_type or type_}, image)
    show.say(f"deployed to {os.environ['PREFECT_API_URL']}; `prefect worker start --pool {CPU}` and {GPU} run them.")


@app.command
def label(
    run_id: Annotated[str | None, Parameter(name="RUN")] = None,
    *,
    to: Annotated[Path, Parameter(help="the labels file (.jsonl), which several people may share")],
    by: Annotated[str, Parameter(name="--as", help="who labels")] = "me",
    n: Annotated[int, Parameter(help="pairs to judge")] = 100,
    language: Literal["en", "ko"] = "en",
    port: Annotated[int, Parameter(help="0: any free one")] = 0,
    seed: Annotated[int, Parameter(help="decides which pairs, in which order, on which side")] = 0,
    open_: Annotated[bool, Parameter(name="--open", help="show the page in the browser")] = False,
    agreement: Annotated[bool, Parameter(negative="", help="say how far people agree, and serve nothing")] = False,
    store: StoreDir = None,
    json_: Json = False,
) -> None:
    """Say which of two samples of a run is better, on a page on this machine. The same command goes on."""
    from align.labelling.contests import pairs
    from align.labelling.labels import Labels
    from align.labelling.session import Session, name
    from flows import label as labelling

    if agreement and not to.is_file():
        raise InputError(f"{short(to)}: there is no such labels file.")
    if json_ and not agreement:
        raise InputError("--json goes with --agreement.")
    if n < 1 or seed < 0:
        raise InputError("--n is a number of 1 or more, --seed of 0 or more.")
    by = name(by)
    if not agreement:
        opened = open_store(store, there=True)
        asked = pairs(*labelling.samples_of(opened, run_id and identifier(run_id)), n, seed)
    labels = Labels(to)
    if labels.cut_off:
        show.say(f"align: the last line of {short(to)} was cut off, and is left out.", sys.stderr)
    if not agreement:
        session = Session(labels, asked, by, seed)
        labelling.serve(session, language, port, open_)
        show.say(labelling.summary(session))
    labelling.agreement(labels, json_)


@app.command
def join(*, store: StoreDir = None) -> None:
    """Take part, as a further node, in the stages of an `align run` on the first (docs/nodes.md)."""
    from flows.nodes import join as take_part

    take_part(open_store(store, write=True), show.say)


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
        fail(refused(error), 2)
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

    again = words[:1] in (["run"], ["sweep"])
    return f"next: correct the cause, then `align {shlex.join(words)}` resumes." if again else None


def fail(message: str, status: int, hint: Any = None) -> None:
    """Print a sentence per line of the message on stderr, and what to do next, and exit."""
    lines = [short(line.rstrip(), 1000) for line in f"{message}\n{hint or ''}".split("\n") if line.strip()]
    with suppress(OSError):  # the terminal may be gone
        show.say(redact("\n".join(f"align: {line}" for line in lines)), sys.stderr)
    ending.leave(status, at_once=running.server_lost)


if __name__ == "__main__":
    main()
