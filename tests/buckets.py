"""A real S3-compatible server for the tests of shared stores: MiniStack, in a process of its own on this machine."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BUCKET = "shared"
SECRET = "q9-the-secret-of-the-tests"


@contextmanager
def serving(log: Path) -> Iterator[str]:
    """The address of a server with one bucket."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("AWS_")}, "SERVICES": "s3", "IOT_MTLS_ENABLED": "0",
        "GATEWAY_PORT": str(port), "BIND_HOST": "127.0.0.1", "LOG_LEVEL": "WARNING", "TMPDIR": str(log.parent),
    }  # fmt: skip
    with log.open("wb") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "ministack"], env=environment, stdout=out, stderr=out, cwd=log.parent
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            if server.poll() is not None:
                raise RuntimeError(log.read_text())
            try:
                urllib.request.urlopen(urllib.request.Request(f"{address}/{BUCKET}", method="PUT"), timeout=30)
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait(20)


def environment(address: str) -> dict[str, str]:
    """What a user of the server has in the environment."""
    return {
        "AWS_ENDPOINT_URL": address, "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "an-id-of-the-tests",
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }  # fmt: skip
