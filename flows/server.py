"""The Prefect server behind a run: the one that is up, or one of our own that lives as long as this process.

Prefect can start a temporary server by itself. It outlives a parent that is killed, tries a broken start again and
again for as long as it may, and takes a slow answer of a busy machine for a failure; so it is started here.
"""

import atexit
import errno
import itertools
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO
from urllib.error import URLError
from urllib.request import urlopen

from align.errors import AlignError, InputError
from flows import child, login
from storage import files
from storage.store import Store

HOST = "127.0.0.1"
NAMES = (HOST, "localhost", "[::1]")  # under which a browser on this machine finds it
_PATIENCE = 300.0  # seconds; an idle machine needs 4, the first time 8 to 12
_TEMPORARY = {
    "PREFECT__SERVER_EPHEMERAL": "1",  # no scheduler and no other services that belong to a server that stays
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
}


@dataclass(frozen=True)
class Server:
    """A running server."""

    process: subprocess.Popen[bytes]
    ui: str
    login: str = field(repr=False)

    @property
    def api(self) -> str:
        """What PREFECT_API_URL has to be."""
        return f"{self.ui}/api"

    @property
    def clients(self) -> dict[str, str]:
        """Environment of the processes that may use it."""
        return _clients(self.api, self.login)

    def stop(self) -> None:
        """End it. Safe to call twice."""
        child.stop(self.process)


def connect(store: Store) -> None:
    """Point Prefect's settings at the server of `align serve` where one is up on this store, else at a temporary one.

    What the user has set stays, except that an empty PREFECT_API_URL sets nothing and one that names the server of
    `align serve` gets its login. Call before importing prefect, which reads its settings once.
    """
    if "PREFECT_LOGGING_LEVEL" not in os.environ:
        # People get a line per stage from us, and the stages' warnings; Prefect's logs still go to the server.
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_DEBUG_LEVEL", "CRITICAL")
        logging.getLogger("tasks").addHandler(logging.StreamHandler())
        logging.raiseExceptions = False  # or Prefect prints a complaint for every log that its server did not take
    # A server that does not answer costs the run so many seconds before it goes on alone, not the minutes of Prefect.
    patience = {"PREFECT_CLIENT_MAX_RETRIES": "2", "PREFECT_API_REQUEST_TIMEOUT": "15"}
    given, up = os.environ.get("PREFECT_API_URL", "").strip().rstrip("/"), address(store)
    if (given and given != (up or {}).get("api")) or "prefect" in sys.modules:
        _default(settings(store.root / "prefect") | patience)
        return
    if up:
        home, clients = store.root / "prefect", _clients(up["api"], up["login"])
    else:
        home, held = _room(store)
        temporary = start(home, temporary=True, fds=[held.fileno()])
        clients = temporary.clients
        # Registered before prefect's own hooks, so that it runs after them: they still send logs and states.
        atexit.register(temporary.stop)
        _running.append((temporary, held))
    os.environ.update(clients)
    _default(settings(home) | patience)


_running: list[tuple[Server, TextIO]] = []  # the temporary server of this process, and the lock on its directory


def _default(values: dict[str, str]) -> None:
    os.environ.update({name: value for name, value in values.items() if not os.environ.get(name)})
    if os.environ["PREFECT_HOME"] == values["PREFECT_HOME"]:
        login.private(Path(values["PREFECT_HOME"]))


def _room(store: Store) -> tuple[Path, TextIO]:
    """A directory that no other temporary server uses, locked while any process has the file that is returned open.

    Two servers on one database would wait for each other. A directory is used again: only the first server in it has to
    make a database, which takes twice as long.
    """
    import fcntl

    for n in itertools.count():
        home = login.private(store.root / "prefect-temporary" / f"{os.geteuid()}-{n}")
        lock = (home / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return home, lock
        except BlockingIOError:
            lock.close()
    raise AssertionError


def stop_temporary() -> None:
    """End the temporary server of this process, where there is one."""
    for running, _ in _running:
        running.stop()


def _clients(api: str, known: str) -> dict[str, str]:
    return {
        "PREFECT_API_URL": api,
        "PREFECT_API_AUTH_STRING": known,
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "true",
    }


def settings(home: Path) -> dict[str, str]:
    """Environment of every process that uses a server whose data are in `home`."""
    return {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "tasks",
    }


def address(store: Store) -> dict[str, str] | None:
    """`api`, `ui` and `login` of the `align serve` that this user has up on a store."""
    folder = store.root / "server"
    found, known = files.read_json(folder / "address.json"), login.read(folder / "login")
    return {**found, "login": known} if found and known and files.is_locked(folder / "lock") else None


def start(
    home: Path, port: int = 0, *, temporary: bool = False, known: str | None = None, fds: Sequence[int] = ()
) -> Server:
    """Start a server with its data in `home` and wait until it answers. Port 0 means any free one.

    Whoever uses it needs its login: `known`, else a new one. The server holds the files `fds` open. Raises InputError
    if the port is taken, AlignError if the server does not come up.
    """
    login.private(home)
    log = home / "server.log"
    known = known or login.new()
    with _listener(port) as listener, files.locked(home / "starting"):  # one process at a time migrates the database
        port = listener.getsockname()[1]
        ui = f"http://{HOST}:{port}"
        environment = {
            **os.environ,
            **settings(home),
            "PREFECT_API_URL": f"{ui}/api",
            "PREFECT_UI_API_URL": f"{ui}/api",
            "PREFECT_SERVER_API_AUTH_STRING": known,
            "PREFECT_API_AUTH_STRING": known,
            "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(f"http://{name}:{port}" for name in NAMES),
        }
        arguments = ["--factory", "flows.guarded:create_app", "--fd", str(listener.fileno()),
                     "--log-level", "warning", "--timeout-graceful-shutdown", "3"]  # fmt: skip
        process = child.spawn(
            "uvicorn",
            *arguments,
            env={**environment, "PREFECT__SERVER_FINAL": "1", **(_TEMPORARY if temporary else {})},
            log=log,
            fds=[listener.fileno(), *fds],
            umask=0o077,
        )
        server = Server(process, ui, known)
        try:
            _wait(server, log)
        except BaseException:
            server.stop()
            raise
    return server


def _listener(port: int) -> socket.socket:
    """A bound socket, to be handed to the server: nobody can take the port in between."""
    if not 0 <= port <= 65535:
        raise InputError(f"--port {port}: there is no such port; choose one from 1 to 65535, or 0 for any free one.")
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        reason = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise InputError(f"Port {port} {reason}; choose another with --port.") from None
    return listener


def _wait(server: Server, log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise AlignError(f"The Prefect server ended at once: {child.tail(log)} (see {log}).")
        try:
            with urlopen(f"{server.api}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (URLError, OSError):
            pass
        time.sleep(0.1)
    raise AlignError(f"The Prefect server did not answer within {_PATIENCE:.0f} s; see {log}.")
