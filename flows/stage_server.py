"""The servers that stages are forked from: they have touched no device and run no thread.

`python -m flows.stage_server FD FD [late]`. On each socket FD come the sockets of stages, one for each: on the first
those of stages that only read, which start at once, on the second those that wait until torch and trl are imported,
which takes seconds (and begins, where it is `late`, with the first of them). For each a supervisor is forked, which
forks the stage itself into a process group of its own, watches it, and ends it when its caller goes away. When the
first socket closes, the servers go too. flows/processes.py is the caller's side.
"""

import builtins
import gc
import logging
import os
import pickle
import select
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from align import digests
from align.errors import AlignError
from align.parent import end_with_parent
from flows.processes import GPU_PEAK, LOGGERS
from flows.ranks import spread

GRACE = 3.0  # seconds that a stage has to end by itself


def serve(control: socket.socket) -> None:
    """Fork a stage for each socket that comes, until the caller is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # supervisors are not waited for
    while True:
        message, fds, _, _ = socket.recv_fds(control, 1, 1)
        if not message:
            return
        if os.fork() == 0:
            control.close()
            _supervise(Connection(fds[0]))
        os.close(fds[0])


def _supervise(caller: Connection) -> None:
    """Run one stage in a child; tell the caller how it ended and the most memory that it held."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        end_with_parent()  # else nobody would end it, and the caller would wait for it
        os.setsid()
        _run(caller)
    gone, status, used = 0, 0, None
    deadline = None
    while not gone:
        gone, status, used = os.wait4(child, os.WNOHANG)
        if gone:
            break
        ready, _, _ = select.select([caller] if deadline is None else [], [], [], 0.02)
        if ready and _closed(caller):
            _end(child, signal.SIGTERM)
            deadline = time.monotonic() + GRACE
        elif deadline is not None and time.monotonic() > deadline:
            _end(child, signal.SIGKILL)
    _end(child, signal.SIGKILL)  # what the stage started and left behind
    with suppress(OSError):
        caller.send(("ended", os.waitstatus_to_exitcode(status), used.ru_maxrss if used else 0))
    os._exit(0)


def _closed(caller: Connection) -> bool:
    """Whether the caller has closed its end. Until the stage has read what it is asked, there is something to read."""
    with socket.socket(fileno=os.dup(caller.fileno())) as looking:
        try:
            if looking.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"":
                return True
        except BlockingIOError:
            return False
        except OSError:
            return True
    time.sleep(0.02)
    return False


def _end(group: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _run(caller: Connection) -> None:
    """Do what the caller asks, in the stage's own process, and leave it without the exit handlers of the server."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    try:
        sys.path[:], asked = caller.recv()
        request = pickle.loads(asked)
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        if request["forward"]:
            _forward(caller)
        begun = time.monotonic()
        what = (request["function"], request["config"], request["out"])
        with digests.kept_in(request["digests"]):
            if request["processes"] is None:
                metrics = what[0](*what[1:], **request["inputs"])
            else:
                metrics = spread(*what, request["inputs"], request["processes"], request["compute"])
        seconds = time.monotonic() - begun
        answer: tuple[Any, ...] = ("done", {**metrics, **_device_memory()}, seconds)
    except BaseException as error:
        kind = type(error) if isinstance(error, AlignError) else type(error).__name__
        answer = ("failed", kind, str(error), traceback.format_exc())
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    caller.send(answer)
    os._exit(0)


def _device_memory() -> dict[str, int]:
    """The most memory that the stage's tensors took on a GPU, in MB, where it used one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    return {GPU_PEAK: round(max(map(torch.cuda.max_memory_allocated, range(torch.cuda.device_count()))) / 1e6)}


def _forward(caller: Connection) -> None:
    """What is printed and logged goes to the caller, which shows it where its user looks."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            caller.send(("log", record.name, record.levelno, self.format(record)))

    def say(*values: Any, sep: str | None = " ", end: str | None = "\n", file: Any = None, flush: bool = False) -> None:
        if (sys.stdout if file is None else file) in terminal:  # else a library catches what it prints itself
            caller.send(("print", (" " if sep is None else sep).join(map(str, values))))
        else:
            original(*values, sep=sep, end=end, file=file, flush=flush)

    original, terminal = builtins.print, (sys.stdout, sys.stderr)
    builtins.print = say
    for name in LOGGERS:
        logging.getLogger(name).addHandler(Handler())
        logging.getLogger(name).propagate = False


def warm() -> None:
    """Import what stages need, so that none has to."""
    from align.models.libraries import prepare_libraries

    prepare_libraries()
    import bitsandbytes  # noqa: F401
    import peft  # noqa: F401
    import torch  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401
    from trl import DPOTrainer, RewardTrainer, SFTTrainer  # noqa: F401


def _freeze() -> None:
    """So that children do not copy pages only to look at them."""
    gc.collect()
    gc.freeze()


def main(reading: socket.socket, training: socket.socket, late: bool) -> None:
    """Both servers, until the caller is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import flows.stages  # noqa: F401

    parent = os.getpid()
    if os.fork():
        training.close()
        _freeze()
        serve(reading)
    else:
        end_with_parent()
        reading.close()
        if late:
            select.select([training], [], [])
        warm()
        _freeze()
        if os.getppid() == parent:
            serve(training)


if __name__ == "__main__":
    first, second = (socket.socket(fileno=int(fd)) for fd in sys.argv[1:3])
    main(first, second, late="late" in sys.argv[3:])
