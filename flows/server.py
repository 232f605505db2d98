"""The Prefect server behind a run: the one that is up, or one of our own that lives as long as this process.

Prefect can start a temporary server by itself. It outlives a parent that is killed, tries a broken start again and
again for as long as it may, and takes a slow answer of a busy machine for a failure; so it is started here.
"""

import atexit
import errno
import logging
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from align.errors import AlignError, InputError
from flows import child
from storage import files
from storage.store import Store

HOST = "127.0.0.1"
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

    @property
    def api(self) -> str:
        """What PREFECT_API_URL has to be."""
        return f"{self.ui}/api"

    def stop(self) -> None:
        """End it. Safe to call twice."""
        child.stop(self.process)


def connect(store: Store) -> None:
    """Point Prefect's settings at the server of `align serve` where one is up on this store, else at a temporary one.

    What the user has set stays. Call before importing prefect, which reads its settings once.
    """
    defaults = settings(store.root / "prefect")
    if "PREFECT_LOGGING_LEVEL" not in os.environ:
        # People get a line per stage from us, and the stages' warnings; Prefect's logs still go to the server.
        defaults["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
        defaults["PREFECT_LOGGING_HANDLERS_DEBUG_LEVEL"] = "CRITICAL"
        logging.getLogger("tasks").addHandler(logging.StreamHandler())
    os.environ.update({name: value for name, value in defaults.items() if name not in os.environ})
    Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)
    if "PREFECT_API_URL" in os.environ or "prefect" in sys.modules:
        return
    server = address(store)
    if server is None:
        temporary = start(store.root / "prefect", temporary=True)
        # Registered before prefect's own hooks, so that it runs after them: they still send logs and states.
        atexit.register(temporary.stop)
        server = {"api": temporary.api}
    os.environ["PREFECT_API_URL"] = server["api"]


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
    """`api` and `ui` of the `align serve` that is up on a store."""
    found = files.read_json(store.root / "server" / "address.json")
    return found if found and files.is_locked(store.root / "server" / "lock") else None


def start(home: Path, port: int = 0, *, temporary: bool = False) -> Server:
    """Start a server with its data in `home` and wait until it answers. Port 0 means any free one.

    Raises InputError if the port is taken, AlignError if the server does not come up.
    """
    home.mkdir(parents=True, exist_ok=True)
    log = home / "server.log"
    with _listener(port) as listener, files.locked(home / "starting"):  # one process at a time migrates the database
        ui = f"http://{HOST}:{listener.getsockname()[1]}"
        environment = {
            **os.environ,
            **settings(home),
            "PREFECT_API_URL": f"{ui}/api",
            "PREFECT_UI_API_URL": f"{ui}/api",
            # Without it every web page that the user opens may start runs here.
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"{ui},{ui.replace(HOST, 'localhost')}",
        }
        arguments = ["--factory", "prefect.server.api.server:create_app", "--fd", str(listener.fileno()),
                     "--log-level", "warning", "--timeout-graceful-shutdown", "3"]  # fmt: skip
        process = child.spawn(
            "uvicorn",
            *arguments,
            env={**environment, "PREFECT__SERVER_FINAL": "1", **(_TEMPORARY if temporary else {})},
            log=log,
            fds=[listener.fileno()],
        )
        server = Server(process, ui)
        try:
            _wait(server, log)
        except BaseException:
            server.stop()
            raise
    return server


def _listener(port: int) -> socket.socket:
    """A bound socket, to be handed to the server: nobody can take the port in between."""
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
