"""One flow per stage: people run it again with other settings, in a form of the UI, and pipelines that run elsewhere
send it to the workers of its pool."""

from importlib import import_module
from traceback import format_exception
from typing import Any

from prefect import Flow, flow, get_run_logger
from prefect.states import Completed, Failed, State

from align.config import Config
from align.redact import leaving, redact
from flows import run as runs
from flows import watch
from flows.align import Tasks, shown
from flows.devices import leased
from flows.execute import execute
from flows.paths import here
from flows.recipe import load
from flows.remote import Call, perform, sentence
from flows.stages import STAGES


def rerun(stage: str, settings: type[Config]) -> Flow[..., Any]:
    """The flow that runs one stage. Its parameters are what Prefect reads off the signature of `alone`."""

    def alone(
        config: settings | None = None,  # type: ignore[valid-type]
        recipe: str = "quickstart",
        overrides: list[str] | None = None,
        upstream: bool = False,
        downstream: bool = False,
        refresh: bool = False,
        store: str | None = None,
        call: dict[str, Any] | None = None,
    ) -> Any:
        """Run this stage of a recipe with other settings.

        Args:
            config: All settings of this stage; at first as the recipe had them when `align serve` started. None: as
                the recipe has them now.
            recipe: A path, or the name of a file in recipes/.
            overrides: Single settings on top, of any stage, as `dotted.key=value`.
            upstream: Also run what this stage needs, where it is not up to date.
            downstream: Also run everything that uses what this stage makes.
            refresh: Compute again what is selected, though nothing has changed.
            store: Directory of the store. None: $ALIGN_STORE, else .align.
            call: What a pipeline hands over that runs elsewhere; leave it empty. With it all else is ignored.
        """
        if call is not None:
            return called(call, store)
        slices: list[str] = [] if config is None else [f"{stage}={here(config).model_dump_json()}"]
        select = f"{'+' if upstream else ''}{stage}{'+' if downstream else ''}"
        with leaving():
            given = [*slices, *(overrides or [])]
            asked = runs.words(recipe, given, select, refresh)
            return shown(execute(load(recipe, given), runs.store_at(store), select, refresh, Tasks(), asked))

    about = (import_module(settings.__module__).__doc__ or stage).split("\n\n")[0]
    return flow(name=f"rerun-{stage}", description=f"Run one stage again. {about}", persist_result=False)(alone)


def by_call(stage: str, title: str) -> Flow[..., Any]:
    """The flow of a stage that people do not run by itself: its settings are another's."""

    def only_called(call: dict[str, Any], store: str | None = None) -> Any:
        """Do what a pipeline that runs elsewhere asks for.

        Args:
            call: What it hands over.
            store: Directory of the store. None: $ALIGN_STORE, else .align.
        """
        return called(call, store)

    about = f"For pipelines that run elsewhere: {title}."
    return flow(name=f"rerun-{stage}", description=about, persist_result=False)(only_called)


def called(call: dict[str, Any], store: str | None) -> State[None]:
    """Do what a pipeline hands over. The state says in a sentence what came of it."""
    log = get_run_logger()
    try:
        asked, where = Call.model_validate(call), runs.store_at(store)
        with leaving(), watch.progress(where, asked.run, asked.node, f"{asked.recipe['name']} {asked.node}"):
            attempt, ran = perform(asked, where, leased)
    except Exception as error:
        log.error("%s", redact("".join(format_exception(error))))
        return Failed(message=redact(sentence(error)))
    return Completed(message=f"{attempt.artifact} {'was made' if ran else 'was there already'}")


def __getattr__(name: str) -> Flow[..., Any]:
    """`flows.rerun.STAGE`, what a deployment has as its entrypoint."""
    for stage in STAGES:
        if stage.name == name and stage.alone:
            return rerun(name, stage.config)
        if stage.name == name and stage.gpu:
            return by_call(name, stage.title)
    raise AttributeError(name)
