"""A stage of a pipeline on another machine: what is handed over, and doing it there.

Both machines have the same installation and see the same store, through which all results go. What is handed over says
what to build and under which key; whoever builds it looks at whether that is what it would build.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from align.config import Config, Metrics
from align.errors import AlignError, StageError
from flows.dag import Node, dag
from flows.paths import here, portable
from flows.plan import read_code
from flows.processes import Processes
from flows.recipe import Recipe
from flows.slots import Lend, Slots
from flows.stages import row
from flows.work import Work
from storage import build
from storage.build import Output, Request
from storage.store import Attempt, Store

Inputs = dict[str, Output | Config]
Part = tuple[Callable[..., Metrics], Config, Inputs]


class Call(Config):
    """What a pipeline hands over: one stage of its DAG, whose inputs are in the store."""

    recipe: dict[str, Any]
    """As flows.paths.portable tells it."""
    node: str
    """The stage's name in the DAG."""
    artifacts: dict[str, str]
    """What it reads, by the stages that made it."""
    key: str
    """Under which the one who asks will look for it."""
    code: dict[str, str]
    """The digests of the files that are part of that key."""
    run: str
    """The id of the pipeline's run, for trackers."""
    refresh: bool
    """Compute it though it is there."""


def pool(recipe: Recipe) -> str:
    """The work pool that computes the stages of a recipe that want a GPU; "" where the pipeline does."""
    return recipe.compute.pool or os.environ.get("ALIGN_GPU_POOL", "")


def call(recipe: Recipe, work: Work, request: Request) -> Call:
    """What has to be handed over for a work that can begin."""
    read = [v for v in work.inputs.values() if isinstance(v, Work)]
    return Call(
        recipe=portable(recipe), node=work.name, artifacts={v.name: v.done[0].artifact for v in read if v.done},
        key=request.key, code=request.code, run=work.run, refresh=work.refresh,
    )  # fmt: skip


def perform(call: Call, store: Store, lend: Lend) -> tuple[Attempt, bool]:
    """The attempt that a call asks for, and whether it was made now. It is no run of its own: the store records the
    attempt, and the pipeline's run refers to it.

    Raises StageError where this machine would build something else, and what the stage raises.
    """
    try:
        recipe = here(Recipe.model_validate(call.recipe))
    except ValidationError:
        raise StageError("the recipe is of another version of align; install the same one on all machines.") from None
    read_code(recipe)
    function, config, inputs = _node(recipe, call)
    _check(call, store, function, config, inputs)
    with store.in_use(), Processes(forward=True, late=not row(call.node).gpu) as processes:
        work = Work(
            call.node, function, config, store, inputs={**inputs}, files={}, recipe=recipe.name, run=call.run,
            refresh=call.refresh, order=0, memory=None, slots=Slots(lend=lend), compute=recipe.compute,
            processes=processes, tell=lambda work: None, stopped=lambda: False,
        )  # fmt: skip
        work.tries = 1  # whoever asked asks again
        found = work()
    assert found is not None  # only what stands behind a gate is skipped
    return found


def _check(call: Call, store: Store, function: Callable[..., Metrics], config: Config, inputs: Inputs) -> None:
    """Raise StageError where this machine would build something else than was asked for."""
    try:
        request = build.request(store, call.node, function, config, inputs)
    except FileNotFoundError as error:
        lost = Path(error.filename or error.args[0])
        if lost.is_relative_to(store.root):
            raise StageError(
                f"this worker's store {store.where} does not have {lost.name}; all workers must use one store "
                "($ALIGN_STORE)."
            ) from None
        raise StageError(f"this worker does not have {lost}, which the recipe names.") from None
    if request.key == call.key:
        return
    if other := sorted(p for p in {*call.code, *request.code} if call.code.get(p) != request.code.get(p)):
        named = other[0] if len(other) == 1 else f"{other[0]} and {len(other) - 1} more"
        raise StageError(f"this worker has another version of {named}; install the same one on all machines.")
    raise StageError(
        "this worker sees other contents of the files that the recipe names than the machine that runs the pipeline."
    )


def _node(recipe: Recipe, call: Call) -> Part:
    """A stage's function, settings and inputs, as the DAG has them. What was skipped has no artifact, and is none."""
    found: list[Part] = []

    def given(value: Node | Output | Config | None) -> Output | Config | None:
        if isinstance(value, Node):
            artifact = call.artifacts.get(value.stage)
            return Output(artifact, value.file) if artifact else None
        return value

    def stage(
        name: str,
        function: Callable[..., Metrics],
        config: Config,
        *gate: Node,
        **inputs: Node | Output | Config | None,
    ) -> Node:
        if name == call.node:
            there = {role: given(value) for role, value in inputs.items()}
            found.append((function, config, {role: value for role, value in there.items() if value is not None}))
        return Node(name)

    dag(recipe, stage)
    if not found:
        raise StageError(
            f"this worker's version of align has no stage {call.node}; install the same one on all machines."
        )
    return found[0]


def sentence(error: Exception) -> str:
    """What a stage raised, for the machine that asked."""
    return str(error) if isinstance(error, AlignError) else f"{type(error).__name__}: {str(error) or 'no message'}"
