"""Drawing through servers: a real one (transformers serve) on the tiny policy, and the faults of a network before it."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from endpoints import ChatHandler
from served import alive, wait_for

from align.errors import StageError
from align.models import engine as engines
from align.models import servers as serving
from align.models.base import BaseConfig
from align.models.engine import Policy, Prompt, Sampling
from align.models.generate import Sampler
from align.models.served import Served
from align.models.servers import Server
from flows.child import ROOT

COMMAND = f"{sys.executable} -m transformers.cli.transformers serve {{model}} --device cpu --port {{port}}"
SERVER = Server(kind="openai", command=COMMAND, name="{model}", concurrency=4)
PROMPTS = [Prompt(f"r{i}", [{"role": "user", "content": f"What is {i}?"}]) for i in range(20)]
GREEDY = Sampling(n=1, temperature=0, max_new_tokens=12, engine=SERVER)


@pytest.fixture(scope="module")
def policy(base: BaseConfig, adapter: Path) -> Iterator[Served]:
    """The tiny policy behind a server."""
    served = Served(base, adapter, SERVER)
    yield served
    served.close()


class Between(ChatHandler):
    """Passes requests on to the server, and does with some what networks do."""

    to = ""
    model = ""
    asked_for = 0
    faults: dict[int, str] = {}

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        type(self).asked_for += 1
        fault = self.faults.get(self.asked_for)
        if fault == "error":
            return self.reply(503, {"error": {"message": "overloaded"}})
        if fault == "nonsense":
            return self.reply(200, {"choices": []})
        if fault == "cut":
            return self.connection.close()
        if fault == "late":
            time.sleep(1)
        other = HTTPConnection(urlsplit(self.to).netloc, timeout=60)
        other.request("POST", self.path, body, {"Content-Type": "application/json"})
        answer = other.getresponse()
        self.give(answer.status, answer.read())


@pytest.fixture
def between(policy: Served) -> Iterator[tuple[type[Between], Server]]:
    policy.draw(PROMPTS[:1], GREEDY)
    assert policy._servers is not None
    kind = type("Handler", (Between,), {"to": policy._servers.urls[0], "asked_for": 0, "faults": {}})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as endpoint:
        threading.Thread(target=endpoint.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{endpoint.server_address[1]}/v1"
        yield kind, Server(kind="openai", base_url=(url,), name=policy._servers.name, concurrency=2, attempts=3)
        endpoint.shutdown()


def test_it_draws_what_the_policy_says(policy: Served, base: BaseConfig, adapter: Path) -> None:
    seen: list[str] = []
    theirs = policy.draw(PROMPTS, GREEDY, done=lambda samples: seen.extend(s.row_id for s in samples))
    ours = Sampler(base, adapter).draw(PROMPTS, GREEDY)
    assert [(s.row_id, s.text, s.n_tokens) for s in theirs] == [(s.row_id, s.text, s.n_tokens) for s in ours]
    # this server calls an answer cut off that ended with the last token that it may have
    assert all(a.finish_reason == b.finish_reason for a, b in zip(theirs, ours, strict=True) if b.n_tokens < 12)
    assert sorted(seen) == sorted(p.row_id for p in PROMPTS) and all(s.n_tokens for s in theirs)


def test_samples_differ_and_stay_what_they_are(policy: Served) -> None:
    hot = GREEDY.model_copy(update={"n": 4, "temperature": 1.5})
    drawn = policy.draw(PROMPTS[:5], hot)
    assert [s.sample_index for s in drawn] == [0, 1, 2, 3] * 5
    assert len({s.text for s in drawn}) > 10
    assert [s.sample_index for s in policy.draw(PROMPTS[:1], hot, first=2)] == [2, 3]


def test_a_prompt_without_room_is_told(policy: Served) -> None:
    long = Prompt("long", [{"role": "user", "content": "what " * 2000}])
    too_long: list[str] = []
    assert [s.row_id for s in policy.draw([long, PROMPTS[0]], GREEDY, too_long=too_long)] == ["r0"]
    assert too_long == ["long"]


def test_faults_of_a_network_pass(between: tuple[type[Between], Server], base: BaseConfig, adapter: Path) -> None:
    kind, server = between
    kind.faults = {20: "error", 22: "late", 24: "cut", 25: "error"}
    served = Served(base, adapter, server)
    assert len(served.draw(PROMPTS, GREEDY)) == len(PROMPTS) and kind.asked_for > len(PROMPTS) + 16
    kind.faults = {i: "error" for i in range(500)}
    with pytest.raises(StageError, match=r"server of the engine failed for row r\d+: .*overloaded"):
        served.draw(PROMPTS, GREEDY)
    kind.faults, kind.asked_for = {3: "nonsense"}, 0
    with pytest.raises(StageError, match=r"failed for row r\d+: IndexError"):
        served.draw(PROMPTS, GREEDY)


def test_a_server_of_something_else_is_refused(between: tuple[type[Between], Server], base: BaseConfig) -> None:
    """The policy that is asked for is the base alone; what is served has learned to answer."""
    with pytest.raises(StageError, match=r"does not serve the policy as it is graded: .* agree in \d+ of \d+ tokens"):
        Served(base, None, between[1]).draw(PROMPTS, GREEDY)


def test_a_server_that_dies_is_started_again(policy: Served) -> None:
    policy.draw(PROMPTS[:1], GREEDY)
    servers = policy._servers
    assert servers is not None
    first, url = servers._processes[0], servers.urls[0]
    killed = threading.Event()

    def kill(samples: Any) -> None:
        if not killed.is_set():
            killed.set()
            first.kill()  # what keeps the server, which ends with it
            first.wait()

    assert len(policy.draw(PROMPTS, GREEDY, done=kill)) == len(PROMPTS)
    assert servers.urls[0] != url, "another server was started"


class Dying(Sampler):
    """Is killed, in as far as a test can be, when three samples are finished; the class remembers what was asked."""

    asked: list[int] = []
    dies = True

    def draw(self, prompts: Any, sampling: Any, *, done: Any, **options: Any) -> Any:  # type: ignore[override]
        finished: list[Any] = []

        def told(samples: Any) -> None:
            done(samples)
            finished.extend(samples)
            if self.dies and len(finished) >= 3:
                raise KeyboardInterrupt

        type(self).asked.append(len(prompts))
        return super().draw(prompts, sampling, done=told, **options)


def test_a_killed_stage_goes_on_from_what_it_had_drawn(
    base: BaseConfig, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "KEEP", 0.0)
    sampling = Sampling(n=1, max_new_tokens=12, batch_size=4)
    asks: Any = lambda *_: Dying(base, adapter)  # noqa: E731
    with pytest.raises(KeyboardInterrupt), Policy(base, adapter, tmp_path, asks) as policy:
        policy.draw(PROMPTS, sampling, label="test", too_long=[])
    monkeypatch.setattr(Dying, "dies", False)
    with Policy(base, adapter, tmp_path, asks) as again:
        drawn = again.draw(PROMPTS, sampling, label="test", too_long=[])
    assert Dying.asked[0] == len(PROMPTS) and len(PROMPTS) - 8 < Dying.asked[1] <= len(PROMPTS) - 3
    assert drawn == Sampler(base, adapter).draw(PROMPTS, sampling)


def test_a_command_that_fails_says_why(base: BaseConfig) -> None:
    for command, said in [
        (f"{sys.executable} -c 'raise SystemExit(\"no such flag\")' {{port}}", "status 1: no such flag"),
        ("there-is-no-such-command {model}", "there-is-no-such-command"),
    ]:
        with pytest.raises(StageError, match=said):
            Served(base, None, Server(kind="openai", command=command)).draw(PROMPTS, GREEDY)


SLEEPER = "import os, sys, time; open(sys.argv[1], 'w').write(f'{os.getpid()} '); time.sleep(600)"
STARTER = """
import os, sys, time
from align.models.keeper import keep
kept = keep([sys.executable, "-c", sys.argv[1], sys.argv[2]], os.environ, sys.stderr.buffer)
time.sleep(600)
"""


def test_a_server_ends_with_whoever_started_it(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    starter = subprocess.Popen([sys.executable, "-c", STARTER, SLEEPER, str(file)], cwd=ROOT)
    pid = int(wait_for(lambda: file.exists() and file.read_text()))
    assert alive(pid)
    starter.kill()
    starter.wait()
    wait_for(lambda: not alive(pid))


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ({"kind": "openai"}, "needs base_url"),
        ({"kind": "openai", "base_url": ["http://a/v1"], "command": "x"}, "not both"),
        ({"kind": "openai", "base_url": ["http://me:secret@a/v1"]}, "base_url"),
        ("vlm", "vllm"),
    ],
)
def test_settings_that_are_refused(engine: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Sampling(engine=engine)


def test_an_engine_by_its_name() -> None:
    assert Sampling(engine="vllm").engine == Server(kind="vllm")
    assert serving.VLLM.startswith("vllm serve {model}")


def test_a_server_for_each_device_and_of_several_processes_each_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert serving.devices() == [None]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert serving.devices() == ["2", "3"]
    monkeypatch.setattr(serving, "size", lambda: 2)
    assert serving.devices() == [None], "on a CPU there is nothing to pin"
    monkeypatch.setattr(serving, "device", lambda: "cuda")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert serving.devices() == ["3"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert serving.devices() == ["1"]
