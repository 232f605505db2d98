"""The Prefect server behind a run, where there is one, and starting it for `align serve`.

Prefect would start a temporary server by itself, which costs a run 5 to 10 s, outlives a parent that is killed, and
shows nobody anything: it is never let.
"""

import errno
import logging
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from align.errors import AlignError, InputError
from flows import child, login
from flows.processes import LOGGERS
from storage import files
from storage.store import Store

HOST = "127.0.0.1"
NAMES = (HOST, "localhost", "[::1]")  # under which a browser on this machine finds it
# The automation that notices silent runs counts on these beats, and the UI shows what stages log.
FLOWS = {
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "PREFECT_LOGGING_EXTRA_LOGGERS": ",".join(LOGGERS),
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",  # beside one nobody is to be warned
}
_PATIENCE = 300.0  # seconds; an idle machine needs 4, the first time 8 to 12


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


def connect(store: Store) -> bool:
    """Point Prefect's settings at the server in PREFECT_API_URL, else at that of `align serve` on this store.

    What the user has set stays, except that an empty PREFECT_API_URL sets nothing and one that names the server of
    `align serve` gets its login. False where there is no server. Call before importing prefect, which reads its
    settings once.
    """
    given, up = os.environ.get("PREFECT_API_URL", "").strip().rstrip("/"), address(store)
    if not given and not up:
        return False
    if "PREFECT_LOGGING_LEVEL" not in os.environ:
        # People get a line per stage from us, and the stages' warnings; Prefect's logs still go to the server.
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_DEBUG_LEVEL", "CRITICAL")
        for name in LOGGERS:
            logging.getLogger(name).addHandler(logging.StreamHandler())
        logging.raiseExceptions = False  # or Prefect prints a complaint for every log that its server did not take
    if up and given in ("", up["api"]) and "prefect" not in sys.modules:
        os.environ.update(_clients(up["api"], up["login"]))
    # A server that does not answer costs the run so many seconds before it goes on alone, not the minutes of Prefect.
    _default(
        settings(store.root / "prefect") | {"PREFECT_CLIENT_MAX_RETRIES": "2", "PREFECT_API_REQUEST_TIMEOUT": "15"}
    )
    return True


def _default(values: dict[str, str]) -> None:
    os.environ.update({name: value for name, value in values.items() if not os.environ.get(name)})
    if os.environ["PREFECT_HOME"] == values["PREFECT_HOME"]:
        login.private(Path(values["PREFECT_HOME"]))


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
        **FLOWS,
    }


def address(store: Store) -> dict[str, str] | None:
    """`api`, `ui` and `login` of the `align serve` that this user has up on a store."""
    folder = store.root / "server"
    found, known = files.read_json(folder / "address.json"), login.read(folder / "login")
    return {**found, "login": known} if found and known and files.is_locked(folder / "lock") else None


def start(home: Path, port: int = 0, *, known: str | None = None) -> Server:
    """Start a server with its data in `home` and wait until it answers. Port 0 means any free one.

    Whoever uses it needs its login: `known`, else a new one. Raises InputError if the port is taken, AlignError if the
    server does not come up.
    """
    login.private(home)
    log = home / "server.log"
    known = known or login.new()
    with listening(port) as listener, files.locked(home / "starting"):  # one process at a time migrates the database
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
            # Else whatever is held when it is started again is held for ever.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(f"http://{name}:{port}" for name in NAMES),
        }
        arguments = ["--factory", "flows.guarded:create_app", "--fd", str(listener.fileno()),
                     "--log-level", "warning", "--timeout-graceful-shutdown", "3"]  # fmt: skip
        process = child.spawn(
            "uvicorn",
            *arguments,
            env={**environment, "PREFECT__SERVER_FINAL": "1"},
            log=log,
            fds=[listener.fileno()],
            umask=0o077,
        )
        server = Server(process, ui, known)
        try:
            _wait(server, log)
        except BaseException:
            server.stop()
            raise
    return server


def listening(port: int) -> socket.socket:
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
