"""Progress for people: a bar on a terminal, a line now and then in a log, and one line per finished stage."""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from align import whole
from align.text import printable

if TYPE_CHECKING:
    import rich.progress

T = TypeVar("T")
EVERY = 15.0  # seconds between lines where there is no terminal
TOLD = "ALIGN_PROGRESS"
"""The environment variable with the file that a stage tells its progress in, for whoever looks on."""
_SILENT: ContextVar[bool] = ContextVar("silent", default=False)


@contextmanager
def silent() -> Iterator[None]:
    """In this block nothing shows its progress: it is part of a step of something that shows its own."""
    token = _SILENT.set(True)
    try:
        yield
    finally:
        _SILENT.reset(token)


class Progress:
    """How far `total` steps have come, of which `done` were done before: a bar on a terminal, elsewhere a line now and
    then, so that logs stay short."""

    def __init__(self, total: int | None, label: str, done: int = 0):
        self.total, self.label, self.done = total, label, done
        self.facts: dict[str, float] = {}  # what else whoever looks on may see: loss, tokens a second
        self._begun = (time.monotonic(), done)
        self._bar: rich.progress.Progress | None = None
        self._said, self._silent = time.monotonic(), _SILENT.get()
        self._told = 0.0
        if sys.stderr.isatty() and not self._silent:
            from rich.console import Console
            from rich.progress import Progress as Bar

            # stdout is for results and may be a file; what is printed on stderr meanwhile goes above the bar.
            self._bar = Bar(*Bar.get_default_columns(), console=Console(stderr=True), transient=True,
                            redirect_stdout=False)  # fmt: skip
            self._bar.add_task(label, total=total, completed=done)
            self._bar.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def advance(self, n: int = 1) -> None:
        """`n` more are done."""
        self.done += n
        self._tell()
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0], n)
        elif not self._silent and time.monotonic() - self._said > EVERY:
            self._said = time.monotonic()
            print(f"  {self.label}: {self.done} of {self.total or '?'}", file=sys.stderr, flush=True)

    def _tell(self) -> None:
        """Write how far it is for others, once a second at most; of several ranks the first does."""
        file, now = os.environ.get(TOLD), time.monotonic()
        if file and not self._silent and now - self._told >= 1 and os.environ.get("RANK", "0") == "0":
            self._told = now
            told = {"label": self.label, "done": self.done, "total": self.total, "left": self._left(now)} | self.facts
            with suppress(OSError):  # nobody's work fails because it cannot be watched
                whole.replace(Path(file), told)

    def _left(self, now: float) -> float | None:
        """Seconds that it will take at the pace so far."""
        since, done = now - self._begun[0], self.done - self._begun[1]
        return since / done * (self.total - self.done) if self.total and done else None

    def close(self) -> None:
        """Take the bar away. Safe to call twice."""
        if self._bar is not None:
            self._bar.stop()


def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Yield the items while showing how far it has come. `total` is len(items) where that is known."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(total, label) as progress:
        for item in items:
            yield item
            progress.advance()


def tell(text: str) -> None:
    """A line on stderr about what a stage is about to do."""
    if not _SILENT.get():
        print(f"  {printable(text)}", file=sys.stderr, flush=True)


def announce(stage_run: Any) -> None:
    """One line about a finished stage on stderr."""
    seconds = f"{stage_run.seconds:7.1f} s" if stage_run.status == "ran" else " " * 9
    reason = f"  ({stage_run.reason})" if stage_run.reason else ""
    line = printable(f"{stage_run.stage:15} {stage_run.status:7}{seconds}{reason}")
    print(line, file=sys.stderr, flush=True)
