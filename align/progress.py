"""Progress for people: a bar on a terminal, a line now and then in a log, and one line per finished stage."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from align.text import printable

T = TypeVar("T")
_EVERY = 15.0  # seconds between lines where there is no terminal


def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Yield the items while showing how far it has come. `total` is len(items) where that is known."""
    total = total if total is not None else (len(items) if hasattr(items, "__len__") else None)  # type: ignore[arg-type]
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track as rich_track

        yield from rich_track(items, label, total=total, console=Console(stderr=True), transient=True)
        return
    last = time.monotonic()
    for done, item in enumerate(items):
        if time.monotonic() - last > _EVERY:
            last = time.monotonic()
            print(f"  {label}: {done} of {total or '?'}", file=sys.stderr, flush=True)
        yield item


def announce(stage_run: Any) -> None:
    """One line about a finished stage on stderr."""
    seconds = f"{stage_run.seconds:7.1f} s" if stage_run.status == "ran" else " " * 9
    reason = f"  ({stage_run.reason})" if stage_run.reason else ""
    line = printable(f"{stage_run.stage:15} {stage_run.status:7}{seconds}{reason}")
    print(line, file=sys.stderr, flush=True)
