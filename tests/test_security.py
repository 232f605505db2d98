"""Who may use the Prefect servers that are started here: neither web pages nor other users, by real requests."""

import base64
import http.client
import json
import os
import pty
import re
import signal
import socket
import stat
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import psutil
import pytest
from served import ALIGN, PATIENCE, TINY, Served, align, alive, descendants, own_environment, wait_for

from flows import login

EVIL = "http://evil.example"


def attack(deployment: str) -> dict[str, object]:
    """An automation that has the worker run a command (here one that does nothing, upon an event that never comes)."""
    action = {"type": "run-deployment", "source": "selected", "deployment_id": deployment,
              "job_variables": {"command": "true"}}  # fmt: skip
    trigger = {"type": "event", "posture": "Reactive", "expect": ["never"], "threshold": 1, "within": 0}
    return {"name": "attack", "enabled": True, "trigger": trigger, "actions": [action]}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("secured")
        patch.setenv("PREFECT_HOME", os.environ.get("PREFECT_HOME", str(folder)))  # of the client in this process
        up = Served(folder)
        yield up
    up.process.kill()
    up.process.wait()


class Asking:
    """Requests as a program makes them that leaves out or falsifies what it likes."""

    def __init__(self, ui: str, known: str):
        self.ui, self.basic = ui, {"Authorization": f"Basic {base64.b64encode(known.encode()).decode()}"}

    def __call__(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, bytes]:
        """Status and body. Only what is given is sent: no content type by itself. A server whose database is locked
        (503) is asked again, as by Prefect's own client."""
        return wait_for(lambda: (found := self._once(method, path, body, headers))[0] != 503 and found)

    def _once(self, method: str, path: str, body: object, headers: dict[str, str]) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(urlsplit(self.ui).netloc, timeout=PATIENCE)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def token(self) -> dict[str, str]:
        """What Prefect wants against CSRF."""
        client = str(uuid.uuid4())  # a second token of one client ends the first
        token = json.loads(self("GET", f"/api/csrf-token?client={client}", **self.basic)[1])["token"]
        return {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": client}


@pytest.fixture
def ask(served: Served) -> Asking:
    return Asking(served.ui, served.login)


def automations(ask: Asking) -> list[str]:
    status, found = ask("POST", "/api/automations/filter", {}, **ask.basic, **ask.token(), Origin=ask.ui)
    assert status == 200
    return [automation["name"] for automation in json.loads(found)]


def test_a_web_page_cannot_make_the_worker_run_something(served: Served, ask: Asking) -> None:
    """A cross-site request without a content type needs no preflight: it is sent, and must do nothing."""
    before = automations(ask)
    own = ask.basic | ask.token()
    with served.client() as client:
        harm = attack(str(client.read_deployment_by_name("align/pipeline").id))
    wrong = {"Prefect-Csrf-Token": "0" * 64, "Prefect-Csrf-Client": "me"}
    elsewhere = ["http://evil.example", "null", "http://localhost:1", f"https{ask.ui[4:]}", f"{ask.ui}.evil.example"]
    tries: list[tuple[int, dict[str, str]]] = [
        *((403, {"Origin": origin}) for origin in elsewhere),
        *((403, {"Origin": origin, **own}) for origin in elsewhere),
        (403, {}),
        (403, wrong),
        (403, ask.basic),
        (403, ask.basic | wrong),
        (401, ask.token()),
        (401, ask.token() | {"Authorization": "Basic " + base64.b64encode(b"admin:").decode()}),
        (401, ask.token() | {"Authorization": "Bearer x"}),
        (400, own | {"Host": "evil.example"}),
    ]
    for status, headers in tries:
        assert ask("POST", "/api/automations/", harm, **headers)[0] == status, headers
    assert automations(ask) == before
    status, made = ask("POST", "/api/automations/", harm, **own)
    assert status == 201, made  # the request itself is sound
    assert ask("DELETE", f"/api/automations/{json.loads(made)['id']}", **own)[0] == 204


@pytest.mark.parametrize(
    "path", ["admin/version", "admin/settings", "flows/count", "docs", "openapi.json", "csrf-token"]
)
def test_nothing_is_read_without_the_password(ask: Asking, path: str) -> None:
    user, password = "admin", "x" * 43
    guess = {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}
    assert ask("GET", f"/api/{path}")[0] == ask("GET", f"/api/{path}", **guess)[0] == 401


@pytest.mark.parametrize(
    "path", ["/", "/ui-settings", "/api/health", "/api/admin/version", "/api/csrf-token?client=me"]
)
def test_a_name_that_was_pointed_here_is_refused(ask: Asking, path: str) -> None:
    """DNS rebinding: for the browser the page and this server are then of one origin, which only Host shows."""
    port = urlsplit(ask.ui).port
    for host in (
        "evil.example",
        f"evil.example:{port}",
        "127.0.0.1",
        f"127.0.0.1:{(port or 0) + 1}",
        f"x@localhost:{port}",
    ):
        assert ask("GET", path, **ask.basic, Host=host)[0] == 400, host
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"LOCALHOST:{port}", f"[::1]:{port}"):
        assert ask("GET", path, **ask.basic, Host=host)[0] == 200, host


@pytest.mark.parametrize("path", ["events/in", "events/out", "logs/out", "task_runs/subscriptions/scheduled"])
def test_websockets_are_closed_to_others(ask: Asking, path: str) -> None:
    url = urlsplit(ask.ui)

    def handshake(**changed: str) -> int:
        headers = {"Host": url.netloc, "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
                   "Sec-WebSocket-Key": base64.b64encode(b"0" * 16).decode(), "Sec-WebSocket-Protocol": "prefect",
                   **ask.basic, **changed}  # fmt: skip
        lines = [f"GET /api/{path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items()), "", ""]
        with socket.create_connection((url.hostname, url.port), timeout=PATIENCE) as connection:
            connection.sendall("\r\n".join(lines).encode())
            return int(connection.recv(100).split()[1])

    assert handshake() == handshake(Origin=ask.ui) == 101
    assert handshake(Origin=EVIL) == handshake(Host="evil.example") == handshake(Origin="null") == 403


@pytest.mark.parametrize("token", [None, "", "admin:x"])
def test_websockets_want_the_password(served: Served, token: str | None) -> None:
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect
    from websockets.typing import Subprotocol

    address = f"ws{served.ui[4:]}/api/events/out"
    with connect(address, subprotocols=[Subprotocol("prefect")]) as stranger:
        stranger.send(json.dumps({"type": "auth", "token": token}))
        with pytest.raises(ConnectionClosed):
            stranger.recv(PATIENCE)
    with connect(address, subprotocols=[Subprotocol("prefect")]) as known:
        known.send(json.dumps({"type": "auth", "token": served.login}))
        assert json.loads(known.recv(PATIENCE))["type"] == "auth_success"


def test_the_ui_is_there_and_asks_for_the_login(ask: Asking) -> None:
    with urlopen(Request(ask.ui, headers={"Accept": "text/html"}), timeout=PATIENCE) as answer:
        page = answer.read().decode()
    scripts = re.findall(r'(?:src|href)="(/[^"]+\.(?:js|css))"', page)
    assert "<html" in page and scripts
    assert {ask("GET", script)[0] for script in scripts} == {200}
    settings = json.loads(ask("GET", "/ui-settings")[1])
    assert settings["auth"] == "BASIC" and settings["csrf_enabled"] and settings["api_url"] == f"{ask.ui}/api"
    assert ask("POST", "/api/flows/count", {}, **ask.basic, **ask.token(), Origin=ask.ui)[0] == 200
    localhost = ask.ui.replace("127.0.0.1", "localhost")  # the same page by its other name
    assert ask("POST", "/api/flows/count", {}, **ask.basic, **ask.token(), Origin=localhost)[0] == 200


def test_the_worker_runs_what_the_owner_starts(served: Served) -> None:
    done = served.run("rerun-ingest/ingest")
    assert done.state.name == "Completed", done.state.message
    with served.client() as client:
        assert client.read_logs() and [w.status for w in client.read_workers_for_work_pool("align-cpu")]


def test_a_run_finds_the_login_of_its_store_and_asks_for_others(served: Served, tmp_path: Path) -> None:
    words = ["run", str(TINY), "--select", "ingest", "--set", "ingest.seed=5", "--store"]
    address = {"PREFECT_API_URL": f"{served.ui}/api"}
    own = subprocess.run([*ALIGN, *words, str(served.store.root)], capture_output=True, text=True, timeout=PATIENCE,
                         env=own_environment(**address))  # fmt: skip
    assert own.returncode == 0, own.stderr
    other = subprocess.run([*ALIGN, *words, str(tmp_path)], capture_output=True, text=True, timeout=PATIENCE,
                           env=own_environment(**address))  # fmt: skip
    assert other.returncode == 1 and "wants a login; set PREFECT_API_AUTH_STRING" in other.stderr, other.stderr


def test_the_login_is_kept_from_others(served: Served) -> None:
    path = served.store.root / "server" / "login"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(served.login) > 40 and served.login not in served.log.read_text() and str(path) in served.log.read_text()
    for name in ("server", "prefect"):
        assert stat.S_IMODE((served.store.root / name).stat().st_mode) == 0o700
    logs = [served.store.root / "prefect" / "server.log", *(served.store.root / "server").glob("*.log")]
    assert len(logs) == 3 and all(stat.S_IMODE(log.stat().st_mode) == 0o600 for log in logs)
    assert stat.S_IMODE((served.store.root / "prefect" / "prefect.db").stat().st_mode) == 0o600
    password = served.login.partition(":")[2]
    assert not any(password in log.read_text() for log in logs)
    everyone = [served.process.pid, *descendants(served.process.pid)]
    assert not any(password in " ".join(psutil.Process(pid).cmdline()) for pid in everyone)


def test_a_terminal_is_shown_the_login_and_ends_the_server_with_it(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [*ALIGN, "serve", str(TINY), "--store", str(tmp_path), "--port", "0"]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=own_environment())
    os.close(theirs)
    shown = b""
    while b"kept in" not in shown:
        shown += os.read(ours, 4096)
    known = login.read(tmp_path / "server" / "login")
    assert known and known.encode() in shown.replace(b"\r\n", b"")
    children = descendants(process.pid)
    os.close(ours)  # nothing can be printed any more
    process.send_signal(signal.SIGHUP)
    assert process.wait(PATIENCE) == 0
    assert len(children) >= 2 and not [pid for pid in children if alive(pid)]


def test_a_login_that_others_could_know_is_not_used_again(tmp_path: Path) -> None:
    path = tmp_path / "server" / "login"
    first = login.kept(path)
    assert login.kept(path) == login.read(path) == first

    def link() -> None:
        path.unlink()
        path.symlink_to(tmp_path / "theirs")

    for spoil in (lambda: path.chmod(0o644), lambda: path.write_text(""), lambda: path.write_text("admin:1\n"),
                  link):  # fmt: skip
        (tmp_path / "theirs").write_text(first + "\n")
        (tmp_path / "theirs").chmod(0o600)  # so that nothing but the link is wrong with it
        spoil()
        assert login.read(path) is None
        renewed = login.kept(path)
        assert renewed != first and stat.S_IMODE(path.lstat().st_mode) == 0o600
        assert (tmp_path / "theirs").read_text() == first + "\n"
    path.parent.chmod(0o755)
    login.kept(path)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("port", ["99999", "65536", "-1", "9" * 30, "x", ""])
def test_a_port_that_is_none(tmp_path: Path, port: str) -> None:
    done = align("serve", "--store", str(tmp_path), f"--port={port}")
    assert done.returncode == 2 and "port" in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
