"""`align label`: a page on this machine on which people say which of two samples is better.

Whoever knows the page's address, which holds a random word, can read the pairs and judge them: the address is all that
it takes, so no cookie is there for another page to use. Requests by another name or from another page are refused.
"""

import os
import secrets
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, astuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import parse_qs

from align.errors import AlignError, InputError
from align.labelling.agreement import agreements, totals
from align.labelling.labels import Labels
from align.labelling.page import Language, html
from align.labelling.session import Session
from flows import show
from flows.guarded import Own
from flows.server import HOST, NAMES, listening
from storage import runs
from storage.store import Store

MOST_BYTES = 1000  # of an answer; real ones have less than a hundred


def samples_of(store: Store, run_id: str | None) -> tuple[Path, Path]:
    """The ROWS whose prompts a run sampled, and its SAMPLES. Raises InputError where there are none."""
    run = show.latest_run(store, run_id, "sample")["run_id"]
    samples = show.artifact_of(store, run, "sample")
    key = next(s["key"] for s in runs.stages(store, run) if s["artifact"] == samples.name)
    rows = next(a["inputs"]["rows"] for a in store.attempt_records(key) if a["artifact"] == samples.name)
    artifact = store.artifact(rows["artifact"])
    if artifact is None:
        raise InputError(f"{rows['artifact']}, with the prompts of run {run}, was removed; `align run` makes it again.")
    return store.fetch(artifact.id, rows["file"]), samples / "samples.parquet"


def serve(session: Session, language: Language, port: int, browser: bool) -> None:
    """Serve the page until KeyboardInterrupt. Raises InputError if the port is taken."""
    with Server(listening(port), session, language) as server:
        show.say(f"Label here: {server.url} (as {session.by}, into {session.labels.name}). Ctrl-C ends it.")
        try:
            with _opened(server.url if browser else None):
                server.serve_forever()
        except KeyboardInterrupt:
            pass


def summary(session: Session) -> str:
    """What this person has done, and how the next run reads it."""
    view, file = session.view(), session.labels.name
    done = f"{session.by} has judged {view.judged} of {view.of} pairs in {file}; the same command goes on."
    source = f"{{path: {file}, use: preferences}}"
    return f"{done}\nnext: `align run RECIPE --set 'ingest.sources.people={source}' --set pairs.origin=both`"


def agreement(labels: Labels, as_json: bool) -> None:
    """Print what each person said, and how far every two of them agree."""
    lines = labels.read().values()
    said, found = totals(lines), agreements(lines)
    if as_json:
        decided = sum(line.chosen is not None for line in lines)
        people = [{"name": name, **counts} for name, counts in said.items()]
        show.as_json({
            "pairs": len(lines), "decided": decided, "people": people, "agreement": [asdict(f) for f in found]
        })  # fmt: skip
        return
    show.table(["annotator", "preferred", "tie", "skip"], [[name, *counts.values()] for name, counts in said.items()])
    if found:
        show.table(["between", "and", "shared pairs", "agreement", "low", "high", "kappa"], [astuple(f) for f in found])


@contextmanager
def _opened(address: str | None) -> Iterator[None]:
    """Show a page in the browser, where there are windows. Its address is in no command line, which others can read."""
    windows = sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if not address or not windows:
        yield
        return
    import webbrowser

    with TemporaryDirectory(prefix="align-label-") as folder:
        there = Path(folder) / "label.html"
        there.write_text(f'<!doctype html><meta http-equiv="refresh" content="0; url={address}">', encoding="utf-8")
        webbrowser.open(there.as_uri())
        yield


class Server(ThreadingHTTPServer):
    """Serves one session on a bound socket, which it closes."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, listener: socket.socket, session: Session, language: Language):
        super().__init__(listener.getsockname(), Page, bind_and_activate=False)
        self.socket.close()
        self.socket, self.session, self.language = listener, session, language
        self.own = Own(f"http://{name}:{self.server_address[1]}" for name in NAMES)
        self.path = f"/{secrets.token_urlsafe(32)}/"
        self.url = f"http://{HOST}:{self.server_address[1]}{self.path}"
        self.server_activate()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over browsers that hang up."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class Page(BaseHTTPRequestHandler):
    """Shows the next pair, and takes an answer."""

    server: Server
    timeout = 30  # seconds for which a connection may say nothing

    def do_GET(self) -> None:
        """The next pair."""
        if self._lets_in():
            self._told(self._page)

    def do_POST(self) -> None:
        """A choice, and on to the next pair."""
        if self._lets_in():
            self._told(self._choose)

    def _page(self) -> None:
        nonce = secrets.token_urlsafe(16)
        page = html(self.server.session.view(), self.server.session.by, self.server.language, nonce)
        policy = (
            f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; form-action 'self'; "
            "base-uri 'none'; frame-ancestors 'none'"
        )
        self._answer(200, page, "text/html", {"Content-Security-Policy": policy})

    def _choose(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or len(length) > 9 or int(length) > MOST_BYTES:
            self._answer(413, "That is no answer.")
            return
        given = parse_qs(self.rfile.read(int(length)).decode("utf-8", "replace"), keep_blank_values=True)
        pair, choice = (given.get(name, [""])[-1] for name in ("pair", "choice"))
        try:
            if choice == "back":
                self.server.session.back(pair)
            else:
                self.server.session.choose(pair, choice)
        except KeyError:
            self._answer(400, "There is no such pair or choice; load the page again.")
            return
        self._answer(303, "", more={"Location": self.server.path})

    def _told(self, answer: Callable[[], None]) -> None:
        """Answer, or say why it could not be done; then nothing was saved."""
        try:
            answer()
        except (AlignError, OSError) as error:
            if not isinstance(error, ConnectionError):
                self._answer(500, f"Not saved: {error} Correct the cause, and load the page again.")

    def _lets_in(self) -> bool:
        if refusal := self.server.own.refusal(self.headers.items()):
            self._answer(*refusal)
        elif not secrets.compare_digest(self.path.encode(), self.server.path.encode()):
            self._answer(404, "There is nothing here; align label prints the page's address.")
        else:
            return True
        return False

    def _answer(self, status: int, text: str, kind: str = "text/plain", more: dict[str, str] | None = None) -> None:
        data = text.encode("utf-8", "replace")
        self.send_response(status)
        headers = {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(data)),
            "Cache-Control": "no-store",
            "Referrer-Policy": "same-origin",  # no-referrer would take the Origin from our own form
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            **(more or {}),
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing: the address would be in it."""
