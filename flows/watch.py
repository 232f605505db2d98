"""How far a stage is, as an artifact that moves in the Prefect UI while the stage runs."""

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from align.text import printable
from storage import going
from storage.store import Store

EVERY = 2.0  # seconds between looks at what a stage tells
_WAIT = 5.0  # seconds that the end of a stage waits for the last look


@contextmanager
def progress(store: Store, run_id: str, stage: str, title: str) -> Iterator[None]:
    """Within, in a task or flow of Prefect, the artifact `title` progress shows what a stage of a run tells, if it
    tells anything. Where Prefect's server cannot be reached, nothing is shown, and nothing fails."""
    over = threading.Event()
    watching = threading.Thread(
        target=copy_context().run, args=(_watch, store, run_id, stage, key(f"{title} progress"), over), daemon=True
    )
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join(_WAIT)


def _watch(store: Store, run_id: str, stage: str, name: str, over: threading.Event) -> None:
    artifact, before, text = None, None, ""
    try:
        while not over.wait(EVERY):
            told = going.running(store, run_id).get(stage)
            if not told or told == before:
                continue
            before = told
            percent, text = 100 * told["done"] / (told["total"] or told["done"] or 1), sentence(told)
            if artifact is None:
                artifact = _create(percent, name, text)
            else:
                update_progress_artifact(artifact, percent, description=text)
        if artifact is not None:
            update_progress_artifact(artifact, 100.0, description=f"{stage} is over; last seen: {text}")
    except Exception as error:
        get_run_logger().debug("How far %s is cannot be shown: %s", stage, error)


def _create(percent: float, name: str, text: str) -> UUID:
    made = create_progress_artifact(percent, key=name, description=text)
    assert isinstance(made, UUID)  # not a coroutine: no event loop is running in this thread
    return made


def sentence(told: Mapping[str, Any]) -> str:
    """What a stage tells of its progress, in words."""
    words = [f"{told['label']}: {told['done']} of {told['total'] or '?'}"]
    words += [f"{name} {told[name]:.3g}" for name in ("loss", "reward") if name in told]
    if "tokens_per_second" in told:
        words.append(f"{told['tokens_per_second']:,.0f} tokens/s")
    if told.get("left") is not None:
        minutes, seconds = divmod(round(told["left"]), 60)
        words.append(f"{f'{minutes} min ' if minutes else ''}{seconds} s left")
    return printable(" · ".join(words))


def key(title: str) -> str:
    """What Prefect calls an artifact of that title."""
    return re.sub("[^a-z0-9]+", "-", title.lower()).strip("-")
