"""A Hub on this machine, with the routes that pushing a folder takes; it keeps what it is sent."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from typing import Any

from endpoints import ChatHandler


@dataclass
class Hub:
    """What was pushed, and how it was asked for."""

    url: str = ""
    refuses: bool = False
    """Whether it takes no commit."""
    created: list[dict[str, Any]] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    large: dict[str, bytes] = field(default_factory=dict)
    """Contents by sha256."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Contents by path, once a commit names them."""
    messages: list[str] = field(default_factory=list)


class _Handler(ChatHandler):
    hub: Hub

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        hub = self.hub
        hub.tokens.add(self.headers["Authorization"])
        if self.path == "/api/repos/create":
            hub.created.append(json.loads(data))
            self.reply(200, {"url": f"{hub.url}/org/model"})
        elif self.path == "/api/validate-yaml":
            self.reply(200, {"warnings": [], "errors": []})
        elif self.path.endswith("/preupload/main"):
            modes = [
                {"path": f["path"], "shouldIgnore": False,
                 "uploadMode": "lfs" if f["path"].endswith((".safetensors", "tokenizer.json")) else "regular"}
                for f in json.loads(data)["files"]
            ]  # fmt: skip
            self.reply(200, {"files": modes})
        elif self.path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                o | {"actions": {"upload": {"href": f"{hub.url}/large/{o['oid']}"}}}
                for o in json.loads(data)["objects"]
            ]
            self.reply(200, {"transfer": "basic", "objects": objects})
        elif self.path.endswith("/commit/main"):
            if hub.refuses:
                return self.reply(403, {"error": "You may not write here"})
            for line in data.decode().splitlines():
                self._commit(json.loads(line))
            self.reply(200, {"commitUrl": f"{hub.url}/org/model/commit/abc", "commitOid": "abc"})
        else:
            self.reply(404, {"error": f"no route {self.path}"})

    def _commit(self, part: dict[str, Any]) -> None:
        value = part["value"]
        if part["key"] == "header":
            self.hub.messages.append(value["summary"])
        elif part["key"] == "lfsFile":
            self.hub.files[value["path"]] = self.hub.large[value["oid"]]
        elif part["key"] == "file":
            self.hub.files[value["path"]] = base64.b64decode(value["content"])

    def do_PUT(self) -> None:
        self.hub.large[self.path.rsplit("/", 1)[1]] = self.rfile.read(int(self.headers["Content-Length"]))
        self.give(200, b"")


@contextmanager
def running() -> Iterator[Hub]:
    """A hub at `url`, until the block ends."""
    hub = Hub()
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub})) as server:
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield hub
        server.shutdown()
