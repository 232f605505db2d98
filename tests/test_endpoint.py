"""What comes back from an endpoint that is none, or not all that it should be."""

import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from typing import Any

import pytest
from endpoints import ChatHandler

from align.endpoint import Endpoint, Question, fill
from align.errors import StageError


class Handler(ChatHandler):
    """Gives the body and the content type that the server holds, and counts."""

    def do_POST(self) -> None:
        server: Any = self.server
        server.asked += 1
        self.asked()
        self.give(200, server.body, server.kind)


@pytest.fixture
def server() -> Iterator[Any]:
    made: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.asked, made.kind, made.body = 0, "application/json", b"{}"
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def endpoint(server: Any, **options: Any) -> Endpoint:
    return Endpoint(base_url=f"http://127.0.0.1:{server.server_port}/v1", model="m", **options)


@pytest.mark.parametrize(
    "kind, body",
    [
        ("text/html", b"<html>\n<h1>Welcome</h1></html>"),
        ("application/json", b"{not json"),
        ("application/json", b"[1, 2]"),
        ("application/json", b'"hello"'),
        ("application/json", b'{"error": "no such model"}'),
        ("application/json", b'{"choices": [{"index": 0, "message": null}]}'),
        ("application/json", b'{"choices": ["x"]}'),
        ("application/json", b'{"choices": 5}'),
        ("application/json", b'{"choices": [{"message": {"content": 7}}]}'),
        ("application/json", b'{"choices": [{"message": {"content": "ok"}}], "usage": "free"}'),
    ],
)
def test_what_is_no_chat_completion_is_an_error_that_names_the_row(server: Any, kind: str, body: bytes) -> None:
    server.kind, server.body = kind, body
    with (
        pytest.raises(StageError, match=r"^m at http://.*/v1 failed for row r1: ") as failed,
        endpoint(server).asking() as ask,
    ):
        list(ask([Question("r1", "?")]))
    assert "\n" not in str(failed.value) and server.asked == 1


@pytest.mark.parametrize("body", [b'{"choices": []}', b'{"choices": [{"message": {"content": null}}]}'])
def test_an_answer_may_be_empty(server: Any, body: bytes) -> None:
    server.body = body
    with endpoint(server).asking() as ask:
        (answer,) = ask([Question("r1", "a question of 24 letters")])
    assert (answer.text, answer.tokens) == ("", 8)


def test_nothing_more_is_asked_after_a_failure(server: Any) -> None:
    server.body = b"{not json"
    with pytest.raises(StageError, match="row 0"), endpoint(server, concurrency=1).asking() as ask:
        list(ask([Question(str(i), "?") for i in range(50)]))
    assert server.asked < 50


def test_templates_are_filled_in_one_pass() -> None:
    assert fill("{a} {b} {c} {{a}}", a="{b}", b="\\1") == "{b} \\1 {c} {{b}}"
