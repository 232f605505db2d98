"""Child processes that end when this one does, however it ends.

A child holds the reading end of a pipe as its standard input and nobody ever writes to it: end of file means that the
parent is gone. `python -m flows.child MODULE ARGS` is what runs in the child: it watches the pipe and runs the module.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_GRACE = 15.0  # seconds that a child has to end by itself


def spawn(
    module: str, *args: str, env: Mapping[str, str], log: Path, fds: Sequence[int] = (), umask: int = -1
) -> subprocess.Popen[bytes]:
    """Run `python -m MODULE ARGS` from the root of this repository; what it prints is appended to `log`, which only its
    owner may read."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as out:
        os.fchmod(out.fileno(), 0o600)  # one that an earlier version made
        return subprocess.Popen(
            [sys.executable, "-m", "flows.child", module, *args],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
            cwd=ROOT,
            env={**env, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH")]))},
            pass_fds=fds,
            umask=umask,
            start_new_session=True,  # Ctrl-C in the terminal is for this process, which then stops its children
        )


def stop(child: subprocess.Popen[Any]) -> None:
    """End a child, gently first. Safe to call twice, and after a signal that raised in the middle of `child.poll()`:
    its lock is then held for ever, and Popen.wait would wait for it."""
    for number, patience in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, _GRACE)):
        if _runs(child):
            os.kill(child.pid, number)
            deadline = time.monotonic() + patience
            while _runs(child) and time.monotonic() < deadline:
                time.sleep(0.02)
    child.poll()
    if child.stdin:
        child.stdin.close()


def _runs(child: subprocess.Popen[Any]) -> bool:
    """Whether it has not ended yet. One that has is left for its Popen to take note of."""
    if child.returncode is not None:
        return False
    try:
        return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:  # taken note of already
        return False


def tail(log: Path) -> str:
    """The line of a log that says best what went wrong: the last exception, else the last line."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    raised = [line for line in lines[-500:] if re.match(r"[\w.]*(Error|Exception): ", line)]
    return (raised or [line for line in lines if line.strip()] or ["it printed nothing"])[-1].strip()


def _watch() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)
    os._exit(1)


if __name__ == "__main__":
    import runpy

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit it ignored
    threading.Thread(target=_watch, daemon=True).start()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
