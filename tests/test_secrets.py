"""No key reaches a record, a log, the terminal or Prefect's database, whatever an endpoint answers."""

import base64
import json
import logging
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import warm
from endpoints import ChatHandler
from served import PATIENCE, TINY

from align.errors import InputError, StageError
from align.grading.grade import Item
from align.grading.judge import JudgeGrader
from align.redact import clean, clean_logs, hide, leaving, redact
from flows.recipe import load
from flows.run import failure
from storage.runs import history, stages
from storage.store import Store

KEY = "zX9-quite.private/key+47=="


class Echo(ChatHandler):
    """Repeats the Authorization header: in an error, or in an answer that is rated."""

    status = 400

    def do_POST(self) -> None:
        self.asked()
        text = f"[[5]] 4.9 {self.headers['Authorization']}"
        if self.status == 200:
            self.say(text)
        else:
            self.reply(self.status, {"error": {"message": f"{'x' * 210} bad header: {text}"}})


@pytest.fixture(params=[400, 200])
def echo(request: pytest.FixtureRequest) -> Iterator[tuple[int, str]]:
    """The status and the address of an endpoint that repeats its header."""
    kind = type("Handler", (Echo,), {"status": request.param})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as endpoint:
        threading.Thread(target=endpoint.serve_forever, daemon=True).start()
        yield request.param, f"http://127.0.0.1:{endpoint.server_address[1]}/v1"
        endpoint.shutdown()


def leaks(*folders: Path) -> list[Path]:
    """The files below that hold the key, or a good part of it, in the clear or in a column."""
    part = KEY[:12]
    found = []
    for path in (path for folder in folders for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content += json.dumps(pq.read_table(path).to_pylist(), default=str).encode()
        if part.encode() in content or base64.b64encode(KEY.encode()) in content:
            found.append(path)
    return found


def test_a_judge_that_repeats_its_key_spreads_it_nowhere(echo, tmp_path, prefect_server):
    """The variable's name says nothing; only the recipe says that it holds a key."""
    status, url = echo
    grader = f"pairs.grader={{kind: judge, base_url: '{url}', model: m, api_key_env: MINE, attempts: 1}}"
    rule = f"filter.rules=[{{rule: rating, base_url: '{url}', model: m, api_key_env: MINE, attempts: 1}}]"
    prefect = Path(os.environ["PREFECT_HOME"])

    def run(*words: str) -> subprocess.CompletedProcess:
        words = ("run", str(TINY), "--store", str(tmp_path / "store"), *words)
        return warm.align(*words, timeout=PATIENCE, env=os.environ | {"MINE": KEY})

    rated = run("--select", "+filter", "--set", rule)
    failing = ("--select", "+pairs", "--set", grader, "--set", "sft.limit=16", "--debug")
    judged = run(*failing) if status == 400 else rated
    assert KEY[:12] not in rated.stdout + rated.stderr + judged.stdout + judged.stderr
    assert leaks(tmp_path, prefect) == []
    if status == 400:
        store = Store(tmp_path / "store")
        failed = [s for r in history(store) for s in stages(store, r["run_id"]) if s["status"] == "failed"]
        assert [s["stage"] for s in failed] == ["filter", "pairs"] and all("Bearer ***" in s["reason"] for s in failed)
        assert rated.returncode == judged.returncode == 1
        assert "failed to rate row" in rated.stderr and "failed for row" in judged.stderr, judged.stderr
        told = b"".join(path.read_bytes() for path in prefect.glob("prefect.db*"))
        assert b"failed to rate row" in told and b"Bearer ***" in told
    else:
        assert rated.returncode == 0, rated.stderr


def test_a_judge_that_repeats_its_key_in_its_answer(echo, monkeypatch):
    status, url = echo
    monkeypatch.setenv("MINE", KEY)
    grader = JudgeGrader(base_url=url, model="m", api_key_env="MINE", attempts=1)
    item = Item("r1", "question", "answer", None)
    if status == 200:
        assert grader.grade([item])[0].detail == "[[5]] 4.9 Bearer ***"
    else:
        with pytest.raises(StageError, match=r"Bearer \*\*\*"):
            grader.grade([item])


@pytest.mark.parametrize("url", ["http://me:secret-pass@host/v1", "https://me@host/v1", "me:secret-pass@host/v1",
                                 "http://me:secret-pass@host:80?x=1", "http:\\\\me:secret-pass@host/v1"])  # fmt: skip
@pytest.mark.parametrize("place", ["pairs.grader={kind: judge, model: m, base_url: %s}",
                                   "filter.rules=[{rule: rating, model: m, base_url: %s}]"])  # fmt: skip
def test_a_login_in_an_address_is_refused_and_not_repeated(place, url):
    quoted = json.dumps(url)
    with pytest.raises(InputError, match="base_url holds a user name or a password") as refused:
        load(TINY, [place % quoted])
    assert "secret-pass" not in str(refused.value).split("--set")[0]
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["http://localhost:8000/v1", "https://host/models/@mine/v1", "https://host/v1?who=a@b.c"]
)
def test_an_address_without_a_login_is_taken(url):
    grader = load(TINY, [f"pairs.grader={{kind: judge, model: m, base_url: '{url}'}}"]).pairs.grader
    assert isinstance(grader, JudgeGrader) and grader.base_url == url


@pytest.mark.parametrize("name", ["HF_TOKEN", "my_api_key", "PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "PREFECT_API_AUTH_STRING",
                                  "SOME_CREDENTIALS", "DB_PASSWD", "KEYS"])  # fmt: skip
def test_what_the_environment_calls_a_secret_is_hidden(monkeypatch, name):
    monkeypatch.setenv(name, KEY)
    assert redact(f"a {KEY} b {json.dumps(KEY)} {base64.b64encode(KEY.encode()).decode()}") == 'a *** b "***" ***'


@pytest.mark.parametrize("name, value", [("HF_TOKEN", "short"), ("TOKENIZERS_PARALLELISM", "parallel-"), ("AUTHOR", "somebody"),
                                         ("KEYBOARD", "qwertyuiop"), ("HOMEPAGE", "a page of mine")])  # fmt: skip
def test_words_stay(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert redact(f"a {value} b") == f"a {value} b"


def test_forms_of_a_secret():
    assert hide("Basic YWRtaW46cGFzc3dvcmQtMQ== password-1", "admin:password-1") == "Basic *** ***"
    assert hide("one two three", "one\ntwo\nthree") == "***" and hide("a%2Fb%2Fc%2Fd%2F", "a/b/c/d/") == "***"
    assert redact("see https://me:pw@host/x?a@b and a@b.example") == "see https://***@host/x?a@b and a@b.example"


def test_errors_lose_secrets_and_their_causes_with_them(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", KEY)
    sound = StageError("no secret")
    assert clean(sound) is sound

    def caused() -> Exception:
        try:
            try:
                raise ValueError(f"header {KEY}")
            except ValueError as cause:
                raise StageError("the judge failed") from cause
        except StageError as error:
            return error

    shown = clean(caused())
    assert type(shown) is StageError and str(shown) == "the judge failed" and shown.__cause__ is None
    assert str(failure("pairs", clean(ValueError(KEY)))) == "pairs: ValueError: ***"
    with pytest.raises(StageError, match=r"^KeyError: '\*\*\*'$") as left, leaving():
        raise KeyError(KEY)
    assert left.value.__suppress_context__


def test_logs_lose_secrets(monkeypatch, caplog):
    monkeypatch.setenv("HF_TOKEN", KEY)
    before = logging.getLogRecordFactory()
    try:
        clean_logs()
        clean_logs()
        log = logging.getLogger("tasks.test")
        log.warning("sent %s to %s", KEY, "host")
        try:
            raise ValueError(KEY)
        except ValueError:
            log.exception("failed")
        log.warning("plain %s", 1)
    finally:
        logging.setLogRecordFactory(before)
    assert "sent *** to host" in caplog.text and "ValueError: ***" in caplog.text and "plain 1" in caplog.text
    assert KEY not in caplog.text
