"""How a command ends: signals as exceptions, so that what was begun is cleaned up, and the exit itself."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_PATIENCE = 20.0  # seconds: so long an import may take, and cleaning up
_tell: Callable[[int, FrameType | None], None] | None = None  # the handler within `told`


class Told(KeyboardInterrupt):
    """A signal asked this process to end; like Ctrl-C, and treated like it."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


@contextmanager
def told() -> Iterator[None]:
    """Within, the first of SIGNALS raises Told, as soon as nothing is being imported: libraries swallow what is raised
    there, or abort. For a while more of them do nothing: a terminal that closes sends several, and cleaning up must not
    be interrupted (Ctrl-C still does). What was ignored, as under nohup, stays so."""
    global _tell
    if threading.current_thread() is not threading.main_thread():  # only that one may set handlers
        yield
        return
    before = {s: signal.getsignal(s) for s in (*SIGNALS, signal.SIGALRM)}
    asked, number = -_PATIENCE, 0

    def tell(signum: int, frame: FrameType | None) -> None:
        nonlocal asked, number
        again = signum == signal.SIGALRM
        if not again and time.monotonic() - asked < _PATIENCE:
            return
        if not again:
            asked, number = time.monotonic(), signum
        if _importing(frame) and time.monotonic() - asked < _PATIENCE:
            signal.signal(signal.SIGALRM, tell)
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            return
        raise Told(number)

    _tell = tell
    heard = [s for s in SIGNALS if before[s] is not signal.SIG_IGN]
    for each in heard:
        signal.signal(each, tell)
    try:
        yield
    finally:
        _tell = None
        signal.setitimer(signal.ITIMER_REAL, 0)
        for each, handler in before.items():
            signal.signal(each, handler)


def listen() -> None:
    """Hear SIGTERM within `told` again, after a Prefect flow has put a handler of its own in place, which knows nothing
    of imports. The flow puts the one that it found back when it ends. Elsewhere, as in a worker, nothing happens."""
    if _tell and signal.getsignal(signal.SIGTERM) not in (signal.SIG_IGN, _tell):
        signal.signal(signal.SIGTERM, _tell)


def _importing(frame: FrameType | None) -> bool:
    while frame:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def leave(status: int, at_once: bool) -> NoReturn:
    """Exit. `at_once` skips what libraries do at exit: Prefect would wait minutes there for a server that is gone."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # the terminal may be gone
            stream.flush()
    if at_once:
        os._exit(status)
    sys.exit(status)
