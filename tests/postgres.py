"""A PostgreSQL server of a test's own, from the distribution's packages."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

NOBODY = "postgres"  # the user that the packages make; PostgreSQL does not run as root


def binaries() -> Path | None:
    """Where initdb and postgres are, if they are here."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    other = shutil.which("initdb")
    return Path(other).parent if other else None


class Database:
    """An empty database; `url` is for Prefect's PREFECT_API_DATABASE_CONNECTION_URL."""

    def __init__(self, url: str, start: Callable[[], "subprocess.Popen[bytes]"]):
        self.url, self._start = url, start
        self.process = start()

    def restart(self) -> None:
        """End it, with what its clients ask just then, and start it again."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait()
        self.process = self._start()


@contextmanager
def running() -> Iterator[Database]:
    """A server with an empty database."""
    with TemporaryDirectory(prefix="postgres-") as folder, _running(Path(folder)) as database:
        yield database


@contextmanager
def _running(folder: Path) -> Iterator[Database]:
    found = binaries()
    assert found is not None
    tools = str(found)
    root = os.geteuid() == 0
    user: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if root else {}
    if root:
        shutil.chown(folder, NOBODY, NOBODY)
    data, env = folder / "data", {**os.environ, "LC_ALL": "C"}
    words = [f"{tools}/initdb", "-D", str(data), "-U", "align", "--auth=trust", "--no-sync", "-E", "UTF8"]
    subprocess.run(words, check=True, capture_output=True, cwd=folder, env=env, **user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-c", "fsync=off"]
    ready = [f"{tools}/pg_isready", "-h", "127.0.0.1", "-p", str(port), "-t", "1"]

    def start() -> "subprocess.Popen[bytes]":
        with (folder / "log").open("a") as log:
            words = [f"{tools}/postgres", "-D", str(data), *options]
            server = subprocess.Popen(words, stdout=log, stderr=log, cwd=folder, **user)
        for _ in range(600):
            assert server.poll() is None, (folder / "log").read_text()
            if subprocess.run(ready, capture_output=True).returncode == 0:
                break
            subprocess.run(["sleep", "0.1"])
        return server

    database = Database(f"postgresql+asyncpg://align@127.0.0.1:{port}/postgres", start)
    try:
        yield database
    finally:
        database.process.terminate()
        database.process.wait()
