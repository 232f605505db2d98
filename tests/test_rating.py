"""Ratings from an OpenAI-compatible endpoint: a real HTTP server, retries, a cap on spend, a cache, and failures."""

import re
import resource
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pools
import pytest
from endpoints import ChatHandler
from pools import pool
from pydantic import ValidationError

from align.answered import Answers
from align.errors import InputError, StageError
from align.rules.rating import Rating
from flows.recipe import load


class Endpoint(ThreadingHTTPServer):
    """Rates a response by the number in it; fails as often as told before that."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, Any]] = []
        self.fail: list[int] = []
        self.reply: Callable[[str], str] = lambda number: f"{number}\nBecause it says so."


class Handler(ChatHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = self.asked()
        if self.server.fail:
            self.send_error(self.server.fail.pop())
            return
        self.server.asked.append(body | {"key": self.headers["Authorization"]})
        number = re.search(r"number (\S+)\.", body["messages"][0]["content"]).group(1)  # type: ignore[union-attr]
        self.say(self.server.reply(number))


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def always(reply: str) -> Callable[[str], str]:
    return lambda _: reply


def rating(endpoint: Endpoint, **options: Any) -> Rating:
    return Rating(base_url=f"http://127.0.0.1:{endpoint.server_port}/v1", model="judge", **options)


ROWS = [(f"Say {i}.", f"The number {i}.") for i in (5, 2, 4.5, 0, 4)]


def test_rows_are_dropped_by_rating_and_keep_the_reason(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    p = pool(ROWS)
    found = dict(rating(endpoint).drops(p))
    assert {at: e["rating"] for at, e in found.items()} == {1: 2.0, 3: 0.0, 4: 4.0}
    assert found[1] == {"rating": 2.0, "min": 4.5, "why": "Because it says so."}
    assert p.remarks[0]["rating"] == 5.0 and p.remarks[0]["why"] == "Because it says so."
    assert p.scores["rating"].tolist() == [5, 2, 4.5, 0, 4] and p.quality[0] > p.quality[1]
    assert p.notes == {"rating.asked": 5, "rating.tokens": 500}
    asked = endpoint.asked[0]
    assert (asked["model"], asked["temperature"], asked["seed"], asked["key"]) == ("judge", 0, 0, "Bearer secret")
    assert "The number" in asked["messages"][0]["content"]


def test_passing_errors_are_retried(endpoint: Endpoint) -> None:
    endpoint.fail = [500, 429, 503]
    assert set(dict(rating(endpoint, concurrency=1).drops(pool(ROWS)))) == {1, 3, 4}


def test_lasting_errors_name_the_row(endpoint: Endpoint) -> None:
    endpoint.fail = [500] * 99
    p = pool(ROWS)
    with pytest.raises(StageError, match=f"failed to rate row {p.row_id(0)}"):
        list(rating(endpoint, attempts=2, concurrency=1).drops(p))
    endpoint.fail = [401] * 9
    with pytest.raises(StageError, match="judge at http://.* failed to rate row"):
        list(rating(endpoint).drops(p))


def test_a_cap_on_spend(endpoint: Endpoint) -> None:
    p = pool(ROWS)
    found = dict(rating(endpoint, max_spend_tokens=250, concurrency=2).drops(p))
    assert len(endpoint.asked) == 4 and p.notes["rating.tokens"] == 400
    assert found[4] == {"rating": None, "min": 4.5, "why": "not asked: max_spend_tokens is reached"}
    kept = dict(rating(endpoint, max_spend_tokens=0, unrated="keep").drops(pool(ROWS)))
    assert kept == {} and len(endpoint.asked) == 4


def test_money_is_not_spent_twice(endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "CACHE", tmp_path)
    first = dict(rating(endpoint).drops(pool(ROWS)))
    p = pool([*ROWS, ("Say 1.", "The number 1.")])
    again = dict(rating(endpoint).drops(p))
    assert len(endpoint.asked) == 6 and {k: again[k] for k in first} == first and p.notes["rating.tokens"] == 100
    (file,) = tmp_path.rglob("*.jsonl")
    file.write_text(file.read_text()[:-20])  # as a kill would leave it
    dict(rating(endpoint).drops(pool([*ROWS, ("Say 1.", "The number 1.")])))
    assert len(endpoint.asked) == 7
    dict(rating(endpoint, template="Rate: {prompt} {response}").drops(pool(ROWS)))
    assert len(endpoint.asked) == 12


def test_answers_without_a_rating(endpoint: Endpoint) -> None:
    for reply in ("It is fine.", "9\nwonderful"):
        endpoint.reply = always(reply)
        p = pool(ROWS[:1])
        assert dict(rating(endpoint).drops(p))[0]["rating"] is None
        assert dict(rating(endpoint, unrated="keep").drops(p)) == {}


def test_rows_are_never_searched_for_placeholders(endpoint: Endpoint) -> None:
    list(rating(endpoint).drops(pool([("Say {response}.", "The number 5. {prompt}")])))
    assert "Say {response}." in endpoint.asked[0]["messages"][0]["content"]


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        ({"template": "{prompt}"}, "needs {prompt} and {response}"),
        ({"pattern": "x"}, "captures"),
        ({"pattern": "(["}, r"is no regular expression \(unterminated character set"),
        ({"pattern": "(a{1,99999999999})"}, "is no regular expression"),
        ({"pattern": "(" * 3000 + ")" * 3000}, "is no regular expression"),
    ],
)
def test_wrong_settings(wrong: dict, sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        Rating(base_url="http://x", model="y", **wrong)


def test_a_bad_pattern_is_one_sentence_of_the_recipe() -> None:
    rule = "{rule: rating, base_url: 'http://x/v1', model: y, pattern: '(['}"
    with pytest.raises(InputError, match=r"pattern.*is no regular expression \(unterminated character set") as e:
        load("quickstart", [f"filter.rules=[{rule}]"])
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "pattern, answer", [(r"(\w+)", "good"), (r"x|(\d)", "x"), (r"(\S+)", "nan"), (r"(\S+)", "inf")]
)
def test_what_a_pattern_finds_may_be_no_number(endpoint: Endpoint, pattern: str, answer: str) -> None:
    assert rating(endpoint, pattern=pattern).parse(answer) == (None, f"no rating on the scale: {answer}")


def test_a_damaged_line_is_asked_again(endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each bit of one byte in seven flipped: an answer is the one that was given, or unknown. And lines of anything."""
    monkeypatch.setattr(pools, "CACHE", tmp_path)
    first = dict(rating(endpoint).drops(pool(ROWS)))
    (file,) = tmp_path.rglob("*.jsonl")
    whole = file.read_bytes()
    asks = [rating(endpoint).base_url, "judge", 256, 0]
    given = Answers(asks, pools.CACHE).known
    assert len(given) == 5
    for at in range(0, len(whole), 7):
        for bit in range(8):
            file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
            found = Answers(asks, pools.CACHE).known
            assert found.items() <= given.items() and len(found) >= 3
    junk = [b"[]", b"[1, 2, 3]", b"7", b"null", b'"abc"', b'{"a": 1}', b'{"a": "b"}', b"\xff\xfe", b"[" * 3000, b"\0" * 50,
            b'{"a": "b", "c": "d", "e": "f"}', b"1" * 5000, b'["a", 5, "c"]', b"\xef\xbb\xbf[]"]  # fmt: skip
    file.write_bytes(b"\n".join([*junk, whole, *junk]))
    assert Answers(asks, pools.CACHE).known == given
    file.write_bytes(b"\n".join(junk))
    assert dict(rating(endpoint).drops(pool(ROWS))) == first and len(endpoint.asked) == 10
    assert Answers(asks, pools.CACHE).known == given


def test_answers_of_any_text_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "CACHE", tmp_path)
    answers = {"a": "\ud800", "b": "\0\n\r\u2028", "c": "", "답": "다섯"}
    for question, answer in answers.items():
        Answers([], pools.CACHE)[question] = answer
    assert {q: Answers([], pools.CACHE).get(q) for q in answers} == answers


@pytest.mark.parametrize("place", ["ratings is a file", "the file is a folder", "full"])
def test_a_cache_of_ratings_may_be_lost(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    monkeypatch.setattr(pools, "CACHE", tmp_path)
    first = dict(rating(endpoint).drops(pool(ROWS)))
    (file,) = tmp_path.rglob("*.jsonl")
    file.unlink()
    if place == "ratings is a file":
        file.parent.rmdir()
        file.parent.write_text("")
    elif place == "the file is a folder":
        file.mkdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        if place == "full":
            resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
        assert dict(rating(endpoint).drops(pool(ROWS))) == first
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(endpoint.asked) == 10 and len([r for r in caplog.records if "are not kept in" in r.message]) == 1
