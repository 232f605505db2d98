"""`python -m align.models.keeper COMMAND ...`: runs a command until it ends or whoever started this is gone.

Standard input is a pipe that nobody writes to: its end means that the parent has ended, however it did. Then nothing of
the command stays: not what it started either, which is in its session.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from align.parent import end_with_parent

GRACE = 5.0  # seconds that the command has to end by itself


def keep(words: Sequence[str], env: Mapping[str, str], log: IO[bytes]) -> "subprocess.Popen[bytes]":
    """Run `words` under a keeper; close the standard input of what is returned, or end, to end them."""
    root = str(Path(__file__).resolve().parents[2])
    return subprocess.Popen(
        [sys.executable, "-m", "align.models.keeper", *words],
        stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
        env={**env, "PYTHONPATH": os.pathsep.join(filter(None, [root, env.get("PYTHONPATH")]))},
    )  # fmt: skip


def _all(group: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _run(words: Sequence[str]) -> int:
    command = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=end_with_parent)  # noqa: PLW1509

    def watch() -> None:
        while os.read(0, 1):
            pass
        _all(command.pid, signal.SIGTERM)
        time.sleep(GRACE)
        _all(command.pid, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    try:
        return command.wait()
    finally:
        _all(command.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(abs(_run(sys.argv[1:])))
