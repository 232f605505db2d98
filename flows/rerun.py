"""One flow per stage, to run it again with other settings: what the UI shows as a form."""

from importlib import import_module
from typing import Any

from prefect import Flow, flow

from align.config import Config
from align.redact import leaving
from flows import run as runs
from flows.align import Tasks
from flows.execute import execute
from flows.recipe import load
from flows.stages import STAGES
from storage.store import Store


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
    ) -> runs.Outcome:
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
        """
        slices: list[str] = [] if config is None else [f"{stage}={config.model_dump_json()}"]
        select = f"{'+' if upstream else ''}{stage}{'+' if downstream else ''}"
        with leaving():
            given = [*slices, *(overrides or [])]
            asked = runs.words(recipe, given, select, refresh)
            return execute(load(recipe, given), Store(runs.store_path(store)), select, refresh, Tasks(), asked)

    about = (import_module(settings.__module__).__doc__ or stage).split("\n\n")[0]
    return flow(name=f"rerun-{stage}", description=f"Run one stage again. {about}", persist_result=False)(alone)


def __getattr__(name: str) -> Flow[..., Any]:
    """`flows.rerun.STAGE`, what a deployment has as its entrypoint."""
    for stage in STAGES:
        if stage.name == name and stage.alone:
            return rerun(name, stage.config)
    raise AttributeError(name)
