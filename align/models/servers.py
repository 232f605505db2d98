"""Servers with OpenAI's chat completions that draw in a stage's place: their settings, and starting and ending them.

vLLM and its like cannot share an environment with this package. So they are servers: of the user's, or started here,
one for each device, each with the policy as a plain model directory.
"""

import os
import shlex
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Annotated, Literal, Self
from urllib.error import URLError
from urllib.request import urlopen

from pydantic import Field, model_validator

from align.config import EXECUTION, Config
from align.errors import StageError
from align.models.device import device
from align.models.keeper import keep
from align.models.shards import size
from align.redact import check_url, remember
from align.text import short

VLLM = "vllm serve {model} --served-model-name {name} --host 127.0.0.1 --port {port}"
_LOOK = 0.2


class Server(Config):
    """A server that draws: started by a command, or already there."""

    kind: Literal["vllm", "openai"] = "vllm"
    """vllm takes some arguments more than OpenAI's API has."""
    command: Annotated[str, EXECUTION] = ""
    """Starts a server of the directory {model} at {port}, with {name} as the model's name; vllm has one by itself. It
    may begin with whatever enters another environment: uv run, docker run, conda run."""
    base_url: Annotated[tuple[str, ...], EXECUTION] = ()
    """Servers that are there instead, such as http://gpu1:8000/v1; they must hold the policy that is drawn from."""
    name: Annotated[str, EXECUTION] = "policy"
    """The model's name at the servers; {model} stands for the directory."""
    api_key_env: Annotated[str, EXECUTION] = "OPENAI_API_KEY"
    """Environment variable that holds the servers' key, if they want one."""
    concurrency: Annotated[int, EXECUTION] = Field(default=64, ge=1)
    """Requests in flight, for each server."""
    attempts: Annotated[int, EXECUTION] = Field(default=6, ge=1)
    """Tries per request, with exponential backoff."""
    timeout: Annotated[float, EXECUTION] = Field(default=600.0, gt=0)
    """Seconds that one request may take."""
    start_timeout: Annotated[float, EXECUTION] = Field(default=1200.0, gt=0)
    """Seconds that a server may take to start."""
    tolerance: Annotated[float, EXECUTION] = Field(default=0.1, gt=0)
    """Nats per token by which the log-probabilities of a server may differ from those of the policy's own weights."""

    @model_validator(mode="after")
    def _one(self) -> "Server":
        if bool(self.base_url) == bool(self.command) and (self.command or self.kind == "openai"):
            raise ValueError("engine needs base_url (servers that are there) or command (starts them), and not both")
        for url in self.base_url:
            check_url("base_url", url)
        remember(self.api_key_env)
        return self


def devices() -> list[str | None]:
    """What each server to start is pinned to: the devices of this stage, or of several processes this one's own."""
    visible = [d for d in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if d]
    if size() > 1 and device() == "cuda":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        return [visible[local] if visible else str(local)]
    return [*visible] if size() == 1 and visible else [None]


class Servers:
    """The servers of one stage. Those that were started end with it, or with this process."""

    def __init__(self, config: Server, model: Path | None):
        """`model` is the directory to serve; None where the servers are there."""
        self.config, self._model = config, model
        self._lock = threading.Lock()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._logs: list[Path] = []
        self._devices: list[str | None] = []
        self._folder = tempfile.TemporaryDirectory(prefix="servers")
        self.urls = list(config.base_url)

    def __enter__(self) -> Self:
        if self._model is not None:
            self._devices = devices()
            for i in range(len(self._devices)):
                self.urls.append("")
                self._logs.append(Path(self._folder.name) / f"{i}.log")
                self._processes.append(self._start(i))
            for i in range(len(self.urls)):
                self._wait(i)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in self._processes:
            if process.stdin:
                process.stdin.close()
        for process in self._processes:
            process.wait()
        self._folder.cleanup()

    @property
    def name(self) -> str:
        """The model's name at the servers."""
        return self.config.name.replace("{model}", str(self._model))

    def revive(self, i: int) -> bool:
        """Whether server i had ended by itself and was started again. Others that ask meanwhile wait."""
        with self._lock:
            if not self._processes or self._processes[i].poll() is None:
                return False
            self._processes[i] = self._start(i)
            self._wait(i)
            return True

    def _start(self, i: int) -> "subprocess.Popen[bytes]":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        self.urls[i] = f"http://127.0.0.1:{port}/v1"
        told = {"{model}": str(self._model), "{port}": port, "{name}": self.config.name}
        words = []
        for word in shlex.split(self.config.command or VLLM):
            for key, value in told.items():
                word = word.replace(key, value)
            words.append(word)
        pinned = self._devices[i]
        env = dict(os.environ) | ({"CUDA_VISIBLE_DEVICES": pinned} if pinned else {})
        with self._logs[i].open("ab") as log:
            return keep(words, env, log)

    def _wait(self, i: int) -> None:
        """Until server i answers. StageError where it ends first, or takes too long."""
        deadline = time.monotonic() + self.config.start_timeout
        while time.monotonic() < deadline:
            if (status := self._processes[i].poll()) is not None:
                raise StageError(f"The server of the engine ended with status {status}: {self._last_words(i)}")
            try:
                with urlopen(self.urls[i].removesuffix("/v1") + "/health", timeout=5):
                    return
            except (URLError, OSError):
                time.sleep(_LOOK)
        raise StageError(
            f"The server of the engine did not answer within {self.config.start_timeout:g} s: {self._last_words(i)}"
        )

    def _last_words(self, i: int) -> str:
        lines = self._logs[i].read_text(encoding="utf-8", errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return short(said[-1] if said else "it said nothing", 300)
