"""A proxy before an object store, which answers 503, cuts bodies in half, flips bits, or loses what was answered."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

BUSY = b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>SlowDown</Code><Message>Reduce your rate.</Message></Error>"
SKEWED = BUSY.replace(b"SlowDown", b"RequestTimeTooSkewed")
MODES = ("busy", "busy, though done", "half", "unheard")


@dataclass
class Outage:
    """What happens to the requests about one store: the nth, or all from the nth on, go wrong."""

    mode: str = ""
    nth: int = 0
    for_good: bool = False
    seen: int = 0

    def next(self) -> str:
        """What happens to the next request; "" where it is passed on."""
        self.seen += 1
        wrong = self.seen >= self.nth if self.for_good else self.seen == self.nth
        return self.mode if self.nth and wrong else ""


class Proxy(ThreadingHTTPServer):
    """Passes requests on to a server."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, upstream: str):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream).netloc
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.outages: dict[bytes, Outage] = {}
        self.lock = threading.Lock()

    def what_happens(self, request: bytes) -> str:
        """To a request that names a store."""
        with self.lock:
            return next((outage.next() for store, outage in self.outages.items() if store in request), "")

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def setup(self) -> None:
        super().setup()
        self.behind = HTTPConnection(self.server.upstream, timeout=60)

    def finish(self) -> None:
        self.behind.close()
        super().finish()

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        wrong = self.server.what_happens(self.path.encode() + body)
        if wrong in ("busy", "skewed"):
            status, said = (503, BUSY) if wrong == "busy" else (403, SKEWED)
            return self._answer(status, [("Content-Type", "application/xml")], said)
        self.behind.request(self.command, self.path, body, dict(self.headers))
        answer: HTTPResponse = self.behind.getresponse()
        data = answer.read()
        if wrong == "flipped":
            data = bytes(byte ^ 1 for byte in data)
        if wrong == "busy, though done":
            self._answer(503, [("Content-Type", "application/xml")], BUSY)
        elif wrong == "unheard":
            self.close_connection = True
        else:
            self._answer(answer.status, answer.getheaders(), data, wrong == "half")

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, half: bool = False) -> None:
        kept = [h for h in headers if h[0].lower() not in ("content-length", "transfer-encoding", "connection")]
        length = dict((k.lower(), v) for k, v in headers).get("content-length") if self.command == "HEAD" else None
        head = f"HTTP/1.1 {status} {self.responses.get(status, ('',))[0]}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in kept)
        told = (head + f"Content-Length: {length or len(data)}\r\n\r\n").encode("latin-1")
        if self.command != "HEAD":
            told += data
        if half:
            told = told[: -len(data) // 2] if data and self.command != "HEAD" else told[: len(told) // 2]
            self.close_connection = True
        self.wfile.write(told)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def between(upstream: str) -> Iterator[Proxy]:
    """A proxy before a server."""
    with Proxy(upstream) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
