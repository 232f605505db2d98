"""Processes forked from one that has imported the libraries, for which a new one takes ten seconds of CPU.

A command of `align` that a test starts here, and the servers that stages are forked from, are processes like any other,
with an environment, a working directory and streams of their own; only that nothing is imported anew. Commands that are
typed, and import, are in tests/test_quickstart_run.py, test_tutorial.py, test_endings.py and those with a Prefect worker.
"""

import atexit
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from flows import processes
from flows.recipe import ROOT

TESTS = Path(__file__).parent
ALIGN, STAGES = "align", "stages"
ADDRESS = "ALIGN_TEST_WARM"  # the variable with the socket of the process that forks, one for all workers of xdist
_SIZE = 1 << 20  # bytes of a request: the words and the environment
_lives: list[socket.socket] = []
"""What the process that forks watches, to end with the one that started it."""


class Forked:
    """A forked process, with what `subprocess.Popen` has."""

    def __init__(self, kind: str, words: Sequence[str], fds: Sequence[int], env: dict[str, str] | None = None):
        begin()
        asked = {
            "kind": kind,
            "words": [*words],
            "env": dict(os.environ if env is None else env),
            "cwd": str(Path.cwd()),
        }
        self._call = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._call.connect(os.environ[ADDRESS])
        socket.send_fds(self._call, [json.dumps(asked).encode()], fds)
        self.pid = int(self._call.recv(100))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, if it has ended."""
        return self.wait(0.0) if self.returncode is None else self.returncode

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for its end; None where poll() sees that it goes on."""
        if self.returncode is None:
            self._call.settimeout(timeout)
            try:
                self.returncode = os.waitstatus_to_exitcode(int(self._call.recv(100) or 9))
            except (BlockingIOError, TimeoutError):
                if timeout:
                    raise subprocess.TimeoutExpired(["align"], timeout) from None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Command(Forked):
    """A command of `align`, and what it says."""

    def __init__(self, *words: str, env: dict[str, str] | None = None):
        self._said = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115
        super().__init__(ALIGN, words, [file.fileno() for file in self._said], env)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end; what it wrote."""
        self.wait(timeout)
        for file in self._said:
            file.seek(0)
        out, err = (file.read().decode() for file in self._said)
        return out, err


def start(*words: str, log: Path, env: dict[str, str] | None = None) -> Forked:
    """Start a command of `align`, in a process group of its own, whose output is added to a file."""
    with log.open("a") as out:
        return Forked(ALIGN, words, [out.fileno(), out.fileno()], env)


def align(*words: str, timeout: float = 600, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    """Run a command of `align` to its end."""
    command = Command(*words, env=env)
    try:
        out, err = command.communicate(timeout)
    except subprocess.TimeoutExpired:
        command.kill()
        raise
    assert command.returncode is not None
    return subprocess.CompletedProcess(["align", *words], command.returncode, out, err)


def spawn(fds: Sequence[int], late: bool) -> Any:
    """What flows/processes.py starts, forked."""
    return Forked(STAGES, [], [1, 2, *fds])


def begin() -> None:
    """Start the process that forks, unless there is one. It imports the libraries once it is asked for something."""
    if ADDRESS in os.environ:
        return
    folder = Path(tempfile.mkdtemp(prefix="align-warm-"))
    path = os.pathsep.join([str(ROOT), str(TESTS)])
    lives, ours = socket.socketpair()
    with lives, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asked:
        asked.bind(str(folder / "asked"))
        asked.listen(128)
        subprocess.Popen(
            [sys.executable, str(Path(__file__)), str(asked.fileno()), str(lives.fileno()), str(folder)],
            pass_fds=[asked.fileno(), lives.fileno()],
            stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": path}, start_new_session=True,
        )  # fmt: skip
    _lives.append(ours)
    os.environ[ADDRESS] = str(folder / "asked")


def _serve(asked: socket.socket, lives: socket.socket) -> None:
    """Fork what is asked for, until the tests are over."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while lives not in select.select([asked, lives], [], [])[0]:
        call, _ = asked.accept()
        if os.fork() == 0:
            asked.close()
            lives.close()
            _watch(call)
        call.close()


def _watch(call: socket.socket) -> None:
    """Fork once more what is asked for, and tell who asked how that ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, fds, _, _ = socket.recv_fds(call, _SIZE, 8)
    child = os.fork()
    if child == 0:
        call.close()
        atexit._clear()  # what is to be done when the process above ends
        status = 1
        try:
            status = _become(json.loads(message), fds)
        except BaseException:
            traceback.print_exc()
        finally:
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()  # such as Prefect's, which sends the logs that are left
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(status)
    for fd in fds:
        os.close(fd)
    call.send(str(child).encode())
    _, ended = os.waitpid(child, 0)
    with suppress(OSError):  # nobody waits for it
        call.send(str(ended).encode())
    os._exit(0)


def _become(request: dict[str, Any], fds: list[int]) -> int:
    os.setsid()
    for number, fd in zip((1, 2), fds[:2], strict=True):
        os.dup2(fd, number)
        os.close(fd)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    if request["kind"] == STAGES:
        from flows import stage_server

        reading, training = (socket.socket(fileno=fd) for fd in fds[2:])
        stage_server.main(reading, training, late=False)
        return 0
    from flows import cli

    processes.spawn = spawn
    try:
        cli.main(request["words"])
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        return error.code if isinstance(error.code, int) else int(bool(error.code))
    return 0


if __name__ == "__main__":
    listens, until = (socket.socket(fileno=int(fd)) for fd in sys.argv[1:3])
    if until not in select.select([listens, until], [], [])[0]:
        import flows.cli
        import flows.execute
        import flows.stages  # noqa: F401
        from flows.stage_server import warm

        warm()
        _serve(listens, until)
    shutil.rmtree(sys.argv[3])
