"""`align label`: the page in a real browser, what comes of it, and who may use it."""

import http.client
import json
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from browser import CHROMIUM, Browser
from labelling import HOSTILE, PROMPTS, Labelling, run_of, said
from served import ALIGN, PATIENCE

from align import tables
from align.labelling.contests import Asked, pairs
from flows.label import _opened, samples_of
from storage.store import Store
from tasks.ingest import IngestConfig, Source, ingest
from tasks.pairs import PairsConfig
from tasks.pairs import pairs as pairs_stage

chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("labelled") / "store")
    run_of(store, stages=("sample",))  # as where ingest was cached and not selected
    return store


@pytest.fixture(scope="module")
def asked(store: Store) -> list[Asked]:
    return pairs(*samples_of(store, None), PROMPTS, 0)


def shown(browser: Browser) -> list[str]:
    """The two responses on the page, left and right."""
    return list(browser.value("[...document.querySelectorAll('.answer')].map((e) => e.textContent)"))


def progress(browser: Browser) -> int:
    return int(browser.value("document.querySelector('progress').value"))


@chromium
def test_one_person_with_keys_undo_and_a_killed_process(
    store: Store, browser: Browser, tmp_path: Path, asked: list[Asked]
) -> None:
    file = tmp_path / "labels.jsonl"
    up = Labelling(store, file, "--as", "ann")
    browser.events.clear()
    browser.go(up.url)
    page = browser.value("document.documentElement.outerHTML")
    assert not re.search(r"drawn-|row\d|sample|sft|score|truncated|finish", page)  # blind
    assert browser.value("document.querySelector('.turn:not(details) .text').textContent").endswith(HOSTILE)
    systems, prefers = [], []
    for key, choice in [("1", "left"), ("ArrowRight", "right"), (" ", "tie"), ("s", "skip"), ("2", "right")]:
        at = progress(browser)
        assert sorted(shown(browser)) == sorted(asked[at].responses)
        systems.append(browser.value("document.querySelector('details')?.textContent.includes('<i>') ?? null"))
        prefers.append(dict(zip(("left", "right"), shown(browser), strict=True)).get(choice))
        browser.press(key)
        assert progress(browser) == at + 1 == len(said(file))
    assert {True, None} == set(systems)
    up.end(signal.SIGKILL)  # what was answered is on the disk
    again = Labelling(store, file, "--as", "ann")
    browser.go(again.url)
    assert progress(browser) == 5 and sorted(shown(browser)) == sorted(asked[5].responses)
    browser.press("u")
    assert progress(browser) == 4 and len(said(file)) == 4 and prefers[4] in shown(browser)
    prefers[4] = next(text for text in shown(browser) if text != prefers[4])
    browser.press("ArrowLeft" if shown(browser)[0] == prefers[4] else "ArrowRight")
    for _ in range(5, PROMPTS):
        browser.press("1")
    assert progress(browser) == PROMPTS and shown(browser) == []
    browser.press("1", loads=False)
    browser.press("u")
    browser.press("3")
    printed = again.end()
    assert f"ann has judged {PROMPTS} of {PROMPTS} pairs in labels.jsonl" in printed and "pairs.origin=both" in printed
    kept = said(file)
    assert [line["pair_id"] for line in kept] == [pair.pair_id for pair in asked]
    assert [line["chosen"] and line["chosen"][0]["content"] for line in kept[:5]] == prefers
    assert [line["verdicts"][0]["winner"] for line in kept[2:4]] == ["tie", "skip"]
    assert all(len(line["verdicts"]) == 1 and line["verdicts"][0]["by"] == "ann" for line in kept)
    assert {line["verdicts"][0]["left"] for line in kept} == {"first", "second"}  # sides are shuffled
    assert browser.value("window.ran") is None
    assert not browser.seen("Runtime.exceptionThrown") and not browser.seen("Page.javascriptDialogOpening")
    places = {urlsplit(e["request"]["url"]).netloc for e in browser.seen("Network.requestWillBeSent")}
    assert places == {urlsplit(up.url).netloc, urlsplit(again.url).netloc}  # nothing is fetched from elsewhere
    logged = [e["entry"] for e in browser.seen("Log.entryAdded") if not e["entry"].get("url", "").endswith(".ico")]
    assert not logged


@chromium
def test_two_people_in_two_languages_at_once_and_the_next_run(
    store: Store, browser: Browser, tmp_path: Path, asked: list[Asked]
) -> None:
    file = tmp_path / "labels.jsonl"
    one = Labelling(store, file, "--as", "ann", "--n", "10")
    other = Labelling(store, file, "--as", "미나", "--language", "ko", "--n", "10")
    preferred: dict[str, list[str | None]] = {"ann": [], "미나": []}

    def judge(name: str, winner: str | None) -> None:
        """Prefer the response that begins so, by Hangul keys where it is skipped."""
        left, right = shown(browser)
        preferred[name].append(winner)
        key = "3" if winner is None else "ㄴ" if winner == "skip" else "1" if left.startswith(winner) else "2"
        assert winner in (None, "skip") or winner[:2] in (left[:2], right[:2])
        browser.press(key)

    browser.go(other.url)
    assert browser.value("document.documentElement.lang") == "ko" and "더 좋습니까" in browser.value("document.title")
    assert "비김" in browser.value("document.querySelector('button[value=tie]').textContent")
    browser.press("o", loads=False)  # the place of s, but another letter
    lefts = {"ann": [], "미나": []}  # type: dict[str, list[str]]
    for winner in ["Yes", "Yes", "Yes", "No", "No", "No", None, None, "Yes", "skip"]:
        lefts["미나"].append(shown(browser)[0])
        judge("미나", winner)
    browser.press("ㅕ")
    judge("미나", "skip")
    browser.go(one.url)
    for winner in ["Yes", "Yes", "Yes", "No", "No", "Yes", None, "Yes", None, "Yes"]:
        lefts["ann"].append(shown(browser)[0])
        judge("ann", winner)
    assert lefts["ann"] != lefts["미나"] and len({text[:2] for text in lefts["ann"]}) == 2
    one.end(signal.SIGTERM)
    printed = other.end()
    assert re.search(r"ann\s+미나\s+9\s+0\.6667\s+0\.3542\s+0\.8794\s+0\.4857", printed), printed
    told = subprocess.run(
        [*ALIGN, "label", "--to", str(file), "--agreement", "--json"], capture_output=True, text=True, timeout=PATIENCE
    )
    (found,) = json.loads(told.stdout)["agreement"]
    # nine shared pairs, six alike; each calls two of nine even, so that chance is 4/81 + 49/162
    chance = 4 / 81 + (7 / 9) ** 2 / 2
    assert found["pairs"] == 9 and found["kappa"] == pytest.approx((6 / 9 - chance) / (1 - chance))
    assert json.loads(told.stdout)["decided"] == 6

    out = tmp_path / "ingest"
    out.mkdir()
    source = Source(path=file, use="preferences")
    config = IngestConfig(sources={"people": source})
    assert ingest(config, out)["rows"] == 6  # without the three on which they differ, and the tie of both
    assert {q["reason"] for q in tables.read(out / "quarantine.parquet")} == {
        "was judged, and no majority prefers either answer"
    }
    made_of = tmp_path / "pairs"
    made_of.mkdir()
    metrics = pairs_stage(PairsConfig(origin="imported", held_out=0), made_of, rows=out / "rows.parquet")
    kept = tables.read(made_of / "pairs.parquet")
    assert metrics["pairs"] == len(kept) == 6
    expected = {}
    for pair_, winner in zip(asked, ["Yes", "Yes", "Yes", "No", "No", None, None, None, None, "Yes"], strict=False):
        if winner:
            expected[winner, json.dumps(pair_.prompt)] = pair_.responses
    for pair in kept:
        turns = [{"role": m["role"], "content": m["content"]} for m in pair["messages"]]
        assert set(expected[pair["chosen"].split(".")[0], json.dumps(turns)]) == {pair["chosen"], pair["rejected"]}


def test_only_who_has_the_address_reads_and_judges(store: Store, tmp_path: Path, asked: list[Asked]) -> None:
    file = tmp_path / "labels.jsonl"
    up = Labelling(store, file)
    url = urlsplit(up.url)
    assert url.hostname == "127.0.0.1" and len(url.path) > 40
    own, body = f"http://{url.netloc}", f"pair={asked[0].pair_id}&choice=left"
    form = {"Content-Type": "application/x-www-form-urlencoded"}

    def ask(method: str, path: str = url.path, data: str | None = None, **headers: str) -> tuple[int, str, Any]:
        connection = http.client.HTTPConnection(url.netloc, timeout=PATIENCE)
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
        found = (answer.status, answer.read().decode(), answer.headers)
        connection.close()
        return found

    for path in ("/", url.path[:-1], f"{url.path}x", "/" + "a" * 43 + "/", "/favicon.ico", "/é"):
        status, text, _ = ask("GET", path.encode().decode("latin-1") if path.isascii() else "/%C3%A9")
        assert status == 404 and HOSTILE not in text and url.path not in text
        assert ask("POST", "/", body, **form)[0] == 404
    for host in ("evil.example", f"evil.example:{url.port}", "127.0.0.1", f"x@localhost:{url.port}"):
        assert ask("GET", Host=host)[0] == ask("POST", data=body, Host=host, **form)[0] == 400, host
    for origin in ("http://evil.example", "null", "http://localhost:1", f"{own}.evil.example", f"https{own[4:]}"):
        assert ask("POST", data=body, Origin=origin, **form)[0] == 403, origin
    assert ask("POST", data=f"pair={asked[0].pair_id}&choice=best", **form)[0] == 400
    assert ask("POST", data="pair=x&choice=left", **form)[0] == ask("POST", data="%ff", **form)[0] == 400
    assert ask("POST", data="x" * 5000, **form)[0] == 413 and ask("PUT", data=body)[0] == 501
    assert ask("POST", data="", **{"Content-Length": "-1"})[0] == 413
    assert not file.exists()
    status, text, headers = ask("GET", Host=f"localhost:{url.port}")
    nonce = re.search(r'<script nonce="([^"]+)">', text)
    assert status == 200 and nonce and "default-src 'none'" in headers["Content-Security-Policy"]
    assert f"script-src 'nonce-{nonce[1]}'" in headers["Content-Security-Policy"] and nonce[1] not in ask("GET")[1]
    assert headers["Cache-Control"] == "no-store" and headers["X-Content-Type-Options"] == "nosniff"
    assert not headers["Set-Cookie"] and not headers["Access-Control-Allow-Origin"]
    assert ask("POST", data=body, Origin=own, **form)[0] == 303 and len(said(file)) == 1
    file.write_text("spoilt\n")
    status, text, _ = ask("POST", data=body, **form)
    assert status == 500 and "Not saved: labels.jsonl:1" in text and file.read_text() == "spoilt\n"
    file.unlink()
    assert ask("POST", data=f"pair={asked[1].pair_id}&choice=back", **form)[0] == 303  # nothing before it is judged
    up.end()


def test_the_browser_is_told_the_address_in_a_file_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setenv("DISPLAY", ":0")
    with _opened("http://127.0.0.1:1/secret/"):
        file = Path(urlsplit(opened[0]).path)
        assert "secret" not in opened[0] and "url=http://127.0.0.1:1/secret/" in file.read_text()
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert not file.exists()
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with _opened("http://127.0.0.1:1/secret/"), _opened(None):
        assert len(opened) == 1 or sys.platform == "darwin"
