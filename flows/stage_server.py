"""The server that stages are forked from: it has imported the libraries, and has touched no device and run no thread.

`python -m flows.stage_server FD`. On the socket FD come the sockets of stages, one for each. For each a supervisor is
forked, which forks the stage itself into a process group of its own, watches it, and ends it when its caller goes away.
When the socket closes, the server goes too. flows/processes.py is the caller's side.
"""

import builtins
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
from flows.ranks import spread

GRACE = 3.0  # seconds that a stage has to end by itself
LOGGERS = ("align", "tasks")


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
            if request["processes"] > 1:
                metrics = spread(*what, request["inputs"], request["processes"])
            else:
                metrics = what[0](*what[1:], **request["inputs"])
        answer: tuple[Any, ...] = ("done", metrics, time.monotonic() - begun)
    except BaseException as error:
        kind = type(error) if isinstance(error, AlignError) else type(error).__name__
        answer = ("failed", kind, str(error), traceback.format_exc())
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    caller.send(answer)
    os._exit(0)


def _forward(caller: Connection) -> None:
    """What is printed and logged goes to the caller, which shows it where its user looks."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            caller.send(("log", record.name, record.levelno, self.format(record)))

    def say(*values: Any, sep: str | None = " ", end: str | None = "\n", file: Any = None, flush: bool = False) -> None:
        if file in (None, sys.stdout, sys.stderr):
            caller.send(("print", (" " if sep is None else sep).join(map(str, values))))
        else:
            original(*values, sep=sep, end=end, file=file, flush=flush)

    original = builtins.print
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

    import flows.stages  # noqa: F401


if __name__ == "__main__":
    import gc

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warm()
    gc.collect()
    gc.freeze()  # so that children do not copy pages only to look at them
    serve(socket.socket(fileno=int(sys.argv[1])))
