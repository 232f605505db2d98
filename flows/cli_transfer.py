"""The verbs between stores, and into one."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from align.redact import redact
from align.text import short
from flows import show
from flows.given import identifier, open_store
from flows.options import StoreDir

app = App()
RunName = Annotated[str, Parameter(name="RUN", help="a run's id, the beginning of one, or a tag")]


@app.command
def push(
    run_id: RunName,
    *,
    to: Annotated[str, Parameter(help="the other store: a directory or a URL")],
    store: StoreDir = None,
) -> None:
    """Copy a run with its attempts and artifacts into another store. What is there already is not sent again."""
    _copy(run_id, store, to)


@app.command
def pull(
    run_id: RunName,
    *,
    from_: Annotated[str, Parameter(name="--from", help="the other store: a directory or a URL")],
    store: StoreDir = None,
) -> None:
    """Copy a run with its attempts and artifacts from another store into this one."""
    _copy(run_id, from_, store)


def _copy(run_id: str, source: str | None, target: str | None) -> None:
    from storage.transfer import copy

    one, other = open_store(source, there=True), open_store(target, write=True)
    done = copy(one, other, show.run_of(one, identifier(run_id))["run_id"])
    show.say(
        f"run {done.run_id} is in {other.where}: {len(done.artifacts)} artifacts copied ({done.bytes / 1e6:.1f} MB), "
        f"{done.there} were there"
    )


@app.command(name="import")
def import_(
    path: Path,
    *,
    origin: Annotated[str | None, Parameter(help="where it is from, as it shall be recorded; default PATH")] = None,
    license_: Annotated[str | None, Parameter(name="--license", help="its licence")] = None,
    store: StoreDir = None,
) -> None:
    """Make an artifact of an adapter, a model or Parquet files that were made elsewhere, with their origin."""
    from storage.transfer import bring

    artifact, run = bring(open_store(store, write=True), path, redact(origin or short(path.absolute(), 500)), license_)
    show.say(f"{artifact} (run {run}; `align tag {run} NAME` names it)")
