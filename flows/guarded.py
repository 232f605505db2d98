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


class Guard:
    """An ASGI application that refuses requests with another Host (400) or another Origin (403) than given."""

    def __init__(self, app: App, origins: Iterable[str]):
        self.app = app
        self.origins = {origin.removesuffix(":80") for origin in origins}  # browsers leave the port out where it is 80
        self.hosts = {urlsplit(origin).netloc for origin in self.origins}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Refuse, or hand on."""
        if scope["type"] != "lifespan" and (refusal := self._refusal(scope["headers"])):
            await _refuse(scope, send, *refusal)
        else:
            await self.app(scope, receive, send)

    def _refusal(self, headers: Iterable[tuple[bytes, bytes]]) -> tuple[int, str] | None:
        found: dict[bytes, list[str]] = {b"host": [], b"origin": []}
        for name, value in headers:
            if name in found:
                found[name].append(value.decode("latin-1").lower().removesuffix(":80"))
        if len(found[b"host"]) != 1 or found[b"host"][0] not in self.hosts:
            return 400, "This server answers only to the address that align serve prints."
        if not self.origins.issuperset(found[b"origin"]):
            return 403, "Other web pages may not use this server."
        return None


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
