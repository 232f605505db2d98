"""Prefect's server behind a guard, which lets in only who addresses it by the names that this machine has for itself.

Every web page can make the user's browser send requests to this machine. Prefect's password and CSRF token stop those
that it sends blindly; a page whose name was pointed at this machine after it was loaded (DNS rebinding) could read the
answers too, and is told by its Host. Websockets know neither CORS nor tokens, so that their Origin counts as well.
"""

import os
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class Own:
    """The origins by which this machine addresses a server on it."""

    def __init__(self, origins: Iterable[str]):
        self.origins = {origin.removesuffix(":80") for origin in origins}  # browsers leave the port out where it is 80
        self.hosts = {urlsplit(origin).netloc for origin in self.origins}

    def refusal(self, headers: Iterable[tuple[str, str]]) -> tuple[int, str] | None:
        """Status and reason for a request with another Host (400) or another Origin (403); None for our own."""
        found: dict[str, list[str]] = {"host": [], "origin": []}
        for name, value in headers:
            if name.lower() in found:
                found[name.lower()].append(value.lower().removesuffix(":80"))
        if len(found["host"]) != 1 or found["host"][0] not in self.hosts:
            return 400, "This server answers only to the address that align prints."
        if not self.origins.issuperset(found["origin"]):
            return 403, "Other web pages may not use this server."
        return None


class Guard:
    """An ASGI application that refuses what is not addressed to its own origins."""

    def __init__(self, app: App, origins: Iterable[str]):
        self.app, self.own = app, Own(origins)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Refuse, or hand on."""
        headers = scope.get("headers", ())
        told = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        if scope["type"] != "lifespan" and (refusal := self.own.refusal(told)):
            await _refuse(scope, send, *refusal)
        else:
            await self.app(scope, receive, send)


async def _refuse(scope: Message, send: Send, status: int, reason: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": reason})  # before accepting: 403
        return
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(reason)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": reason.encode()})


def create_app() -> Guard:
    """What uvicorn serves. The origins are those that the environment allows by CORS."""
    from prefect.server.api.server import create_app as prefect_app

    return Guard(prefect_app(), os.environ["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"].split(","))
