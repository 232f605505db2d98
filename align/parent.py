"""Ending with the process that started this one, however that ends."""

import ctypes
import signal
from contextlib import suppress


def end_with_parent() -> None:
    """Let the kernel kill this process when the one that started it ends."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
