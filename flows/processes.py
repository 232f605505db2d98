"""A process for each stage, forked from a server that has imported the libraries: flows/stage_server.py.

All its memory is gone when it ends, it sees the device that it is given and no other, and it ends with its caller.
"""

import logging
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import BaseModel

from align import digests
from align.config import Metrics
from align.errors import AlignError, StageError
from flows.compute import Compute
from storage.build import SECONDS

ROOT = Path(__file__).resolve().parent.parent
PEAK = "process.peak_mb"
"""The metric that holds the most memory a stage's process held, in MB."""
GPU_PEAK = "process.peak_gpu_mb"
"""The metric that holds the most memory that its tensors took on a GPU, in MB; of several GPUs on that with most."""
LOGGERS = ("align", "tasks")
"""Under these stages log what people are to read: in the terminal, and in the UI where there is a server."""


def spawn(fds: Sequence[int], late: bool) -> "subprocess.Popen[bytes]":
    """Start flows/stage_server.py on its ends of two sockets."""
    paths = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    return subprocess.Popen(
        [sys.executable, "-m", "flows.stage_server", *map(str, fds), *(["late"] if late else [])],
        pass_fds=fds,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        start_new_session=True,  # Ctrl-C in the terminal is for this process, which then ends the stages
    )


class _Server:
    """flows/stage_server.py and our ends of its sockets."""

    def __init__(self, late: bool = False) -> None:
        self.reading, reading = socket.socketpair()
        self.models, models = socket.socketpair()
        with reading, models:
            self.process = spawn([reading.fileno(), models.fileno()], late)

    def stop(self) -> None:
        """End it; stages that run are ended by whoever called them."""
        self.reading.close()
        self.models.close()
        self.process.kill()  # it may be in its imports, and has nothing to clean up
        self.process.wait()


_warm: list[_Server] = []


@contextmanager
def serving(late: bool = False) -> Iterator[None]:
    """One server for every Processes in this block: it imports the libraries while others are imported here, and once
    for several runs. `late`: with the first stage that loads a model."""
    if _warm:
        yield
        return
    _warm.append(_Server(late))
    try:
        yield
    finally:
        _warm.pop().stop()


class Processes:
    """Runs stages, each in a process of its own. Close it to end what is running."""

    def __init__(self, forward: bool = False, late: bool = False):
        """With `forward`, what stages print and log is printed and logged here; else it goes where ours goes. `late`:
        what models need is imported with the first stage that loads one, of which there may be none."""
        self.forward = forward
        self._lock = threading.Lock()
        self._calls: set[Connection] = set()
        self._closed = False
        self._own = None if _warm else _Server(late)
        self._server = self._own or _warm[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the stages that are running, and the server if no other needs it. Safe to call twice and from another
        thread."""
        with self._lock:
            self._closed = True
            for call in self._calls:
                # The stage's supervisor sees this at once; the thread that waits for the stage then closes the rest.
                with socket.socket(fileno=os.dup(call.fileno())) as end, suppress(OSError):
                    end.shutdown(socket.SHUT_WR)
        if self._own:
            self._own.stop()

    def run(
        self,
        function: Callable[..., Metrics],
        config: BaseModel,
        out: Path,
        inputs: Mapping[str, Any],
        environment: Mapping[str, str] | None = None,
        timeout: float | None = None,
        processes: int | None = None,
        models: bool = True,
        compute: Compute | None = None,
    ) -> Metrics:
        """`function(config, out, **inputs)` in a process of its own, with `environment` added to ours; with `processes`
        in as many of one torch.distributed group, on each node, which share it as `compute` says. One that loads no
        `models` need not wait for the server to import what those need.

        Its metrics have its peak memory and its seconds beside what it returns. Raises what it raised: an AlignError as
        it is, anything else by name and message, with its traceback as a note; StageError if its process was ended, or
        took longer than `timeout` seconds.
        """
        request = {
            "function": function, "config": config, "out": out.absolute(), "inputs": dict(inputs),
            "environment": dict(environment or {}), "folder": str(Path.cwd()), "forward": self.forward,
            "processes": processes,
            "compute": compute,
            "digests": digests.shared(),
        }  # fmt: skip
        call: Connection | None = None
        try:
            call = self._call(models)
            call.send((sys.path, pickle.dumps(request)))  # the path first: what is pickled is imported there
            answer, code, peak = self._listen(call, timeout)
        except OSError as error:
            raise StageError("The process of the stage could not be started or was lost.") from error
        finally:
            if call:
                with self._lock:
                    self._calls.discard(call)
                call.close()
        if answer is None:
            if self._closed:
                raise KeyboardInterrupt
            hint = "; the machine may have run out of memory" if code == -9 else ""
            raise StageError(f"The process of the stage ended with status {code}{hint}.")
        if answer[0] == "failed":
            raise _error(*answer[1:])
        return {**answer[1], PEAK: round(peak / 1000), SECONDS: answer[2]}

    def _call(self, models: bool) -> Connection:
        ours, theirs = socket.socketpair()
        with self._lock:
            if self._closed:
                raise KeyboardInterrupt
            socket.send_fds(self._server.models if models else self._server.reading, [b"+"], [theirs.fileno()])
            call = Connection(ours.detach())
            self._calls.add(call)
        theirs.close()
        return call

    def _listen(self, call: Connection, timeout: float | None) -> tuple[tuple[Any, ...] | None, int, int]:
        """What the stage answered, the exit status of its process, and its peak memory in kB."""
        answer: tuple[Any, ...] | None = None
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            if deadline is not None and not call.poll(max(0.0, deadline - time.monotonic())):
                raise StageError(f"The stage took longer than the {timeout:g} s that it may.")
            try:
                message = call.recv()
            except EOFError:
                return answer, -9, 0
            if message[0] == "print":
                print(message[1], file=sys.stderr, flush=True)
            elif message[0] == "log":
                logging.getLogger(message[1]).log(message[2], "%s", message[3])
            elif message[0] == "ended":
                return answer, message[1], message[2]
            else:
                answer = message


def _error(kind: type[AlignError] | str, message: str, trace: str) -> Exception:
    if not isinstance(kind, str):
        return kind(message)
    error: Exception = type(kind, (Exception,), {})(message)
    error.add_note(trace)
    return error
