"""Running SQL that a model wrote: a child process with limits, and a parent that restarts it when it dies.

One long-lived child (sandbox_worker.py) answers queries over a pipe, several in flight, so that a query costs well
under a millisecond more than its execution. Whatever a query does (runs for ever, eats memory, crashes the engine),
it gets a result that says so, and the next query meets a clean warehouse.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field

from align.config import Config
from align.errors import InputError, StageError
from align.grading import sandbox_worker

IN_FLIGHT_BYTES = 32 << 10  # below what a pipe holds, so that writing never blocks while the child blocks on its output

LOADING = 120  # seconds that loading a warehouse may take


class Limits(Config):
    """What one query may use."""

    seconds: float = Field(default=1.0, gt=0)
    """CPU time of one query, in seconds."""
    deadline: float = Field(default=10.0, gt=0)
    """Wall-clock time of one query, in seconds; generous, so that a busy machine does not change a grade."""
    memory_mb: int = Field(default=256, ge=32)
    """Memory of one query, in MiB, beyond what the warehouse's tables take."""
    rows: int = Field(default=1000, ge=1)
    """Rows that a result may have."""
    result_kb: int = Field(default=1024, ge=1)
    """Size of a result as JSON, in KiB."""
    query_chars: int = Field(default=10_000, ge=1)
    """Characters that a query may have."""


@dataclass(frozen=True)
class Result:
    """What became of a query: `ok` with rows, or why it has none."""

    status: Literal["ok", "unparsable", "refused", "error", "timeout", "memory", "too_large", "crash"]
    rows: list[list[Any]] = field(default_factory=list)
    detail: str = ""
    ordered: bool = False
    """Whether the query has an ORDER BY at its top level (only where asked for)."""


class _Gone(Exception):
    """The child died, or was killed for overrunning; carries the result of the query that it was running."""


class Sandbox:
    """A warehouse that answers untrusted queries; a context manager. Raises InputError if it cannot be loaded."""

    def __init__(self, warehouse: Path, limits: Limits = Limits()):  # noqa: B008 (frozen)
        if not warehouse.is_dir():
            raise InputError(
                f"{warehouse}: no such warehouse; give a directory of <table>.parquet or <table>.csv files."
            )
        self.warehouse, self.limits = warehouse, limits
        self._child: subprocess.Popen[bytes] | None = None
        self._received = bytearray()

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def run(self, queries: Iterable[str], *, order: bool = False) -> Iterator[Result]:
        """Results in the order of `queries`, streamed; one call at a time. `order=True` tells if each is ordered."""
        waiting: deque[str] = deque()
        try:
            for sql in queries:
                request = json.dumps({"sql": sql, "order": order}) + "\n"
                if len(sql) > self.limits.query_chars or len(request) > IN_FLIGHT_BYTES:
                    yield from self._drain(waiting, 0)
                    yield Result("refused", detail=f"longer than {self.limits.query_chars} characters")
                    continue
                yield from self._drain(waiting, IN_FLIGHT_BYTES - len(request))
                waiting.append(request)
                self._send(request)
            yield from self._drain(waiting, 0)
        finally:
            if waiting and self._child is not None:  # abandoned half-way: no later query may read these answers
                self._stop()
                self._start()

    def _drain(self, waiting: deque[str], room: int) -> Iterator[Result]:
        """Take answers until what is in flight fits into `room` bytes."""
        while waiting and sum(map(len, waiting)) > room:
            try:
                reply = self._receive(self.limits.deadline + 1)
                last = reply.pop("last", False)
                result = Result(**reply)
            except _Gone as gone:
                result, last = gone.args[0], True
            waiting.popleft()
            if last:
                self._stop()
                self._start()
                for request in waiting:
                    self._send(request)
            yield result

    def _send(self, request: str) -> None:
        assert self._child is not None and self._child.stdin is not None
        try:
            self._child.stdin.write(request.encode())
            self._child.stdin.flush()
        except BrokenPipeError:
            pass  # the child is gone: receiving finds out why

    def _receive(self, seconds: float) -> dict[str, Any]:
        """The next frame from the child, or _Gone with what became of it."""
        assert self._child is not None and self._child.stdout is not None
        pipe, until = self._child.stdout.fileno(), time.monotonic() + seconds
        while len(self._received) < 4 or len(self._received) < 4 + int.from_bytes(self._received[:4], "big"):
            if len(self._received) > 2 * (self.limits.result_kb << 10) + 65536:
                raise _Gone(Result("too_large", detail=f"a result of more than {self.limits.result_kb} KiB"))
            ready, _, _ = select.select([pipe], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise _Gone(Result("timeout", detail=f"more than {self.limits.deadline:g} s"))
            data = os.read(pipe, 1 << 16)
            if not data:
                raise _Gone(self._obituary(self._child.wait()))
            self._received += data
        size = int.from_bytes(self._received[:4], "big")
        frame = bytes(self._received[4 : 4 + size])
        del self._received[: 4 + size]
        reply: dict[str, Any] = json.loads(frame)
        return reply

    def _obituary(self, status: int) -> Result:
        if status == -signal.SIGPROF:
            return Result("timeout", detail=f"more than {self.limits.seconds:g} s of CPU time")
        if status == -signal.SIGALRM:
            return Result("timeout", detail=f"more than {self.limits.deadline:g} s")
        name = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        return Result("crash", detail=f"the engine crashed ({name})")

    def _start(self) -> None:
        self._received.clear()
        self._child = subprocess.Popen(
            [
                sys.executable,
                "-I",
                sandbox_worker.__file__,
                str(self.warehouse.resolve()),
                self.limits.model_dump_json(),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"TZ": "UTC", "LANG": "C.UTF-8"},  # nothing of ours, above all no API key
            close_fds=True,
            start_new_session=True,  # an interrupt at the terminal reaches the parent only
        )
        try:
            hello = self._receive(LOADING)
        except _Gone as gone:
            returned, result = self._child.poll(), gone.args[0]
            self._stop()
            if returned in (-signal.SIGPROF, -signal.SIGALRM):
                raise self._bad_schema(f"takes {result.detail}") from None
            if result.status == "timeout":
                raise InputError(f"{self.warehouse}: the warehouse is not loaded after {LOADING} s.") from None
            raise StageError(f"The SQL sandbox did not start: {result.detail}.") from None
        if hello["status"] != "ready":
            self._stop()
            if hello["status"] == "schema":
                raise self._bad_schema(hello["detail"])
            raise InputError(f"{self.warehouse}: the warehouse cannot be loaded: {hello['detail']}")

    def _bad_schema(self, detail: str) -> InputError:
        return InputError(
            f"{self.warehouse / 'schema.sql'} cannot be run ({detail}); it may hold CREATE TABLE, CREATE VIEW and "
            "CREATE TYPE statements that need no file and little time."
        )

    def _stop(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None
