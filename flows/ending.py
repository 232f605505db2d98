"""How a command ends: signals as exceptions, so that what was begun is cleaned up, and the exit itself."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Told(KeyboardInterrupt):
    """A signal asked this process to end; like Ctrl-C, and treated like it."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


@contextmanager
def told() -> Iterator[None]:
    """Within, the first of SIGNALS raises Told, and later ones do nothing: a terminal that closes sends several, and
    cleaning up must not be interrupted (Ctrl-C still does). What was ignored, as under nohup, stays so."""
    if threading.current_thread() is not threading.main_thread():  # only that one may set handlers
        yield
        return
    before = {s: signal.getsignal(s) for s in SIGNALS}
    once = False

    def tell(signum: int, frame: FrameType | None) -> None:
        nonlocal once
        if not once:
            once = True
            raise Told(signum)

    for number in SIGNALS:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, tell)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave(status: int, at_once: bool) -> NoReturn:
    """Exit. `at_once` skips what libraries do at exit: Prefect would wait minutes there for a server that is gone."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # the terminal may be gone
            stream.flush()
    if at_once:
        from flows.server import stop_temporary

        stop_temporary()
        os._exit(status)
    sys.exit(status)
