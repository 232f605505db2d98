"""`align compare` in the terminal and as a page, which may hold any text."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from artifacts import HOSTILE
from browser import CHROMIUM, Browser
from compared import Made, before, make, run_of

from flows.cli import main
from storage.store import Store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A store with the two runs; the earlier is tagged."""
    return make(tmp_path_factory.mktemp("compared"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "nothing: no such run"),
        (["baseline", "nothing"], "nothing: no such run"),
        (["baseline", "baseline"], "are the same run"),
        (["../x"], "is no id"),
        (["baseline", "--limit", "-1"], "--limit is a number of 0 or more"),
        (["baseline", "--html", "no/such/folder/page.html"], "its folder does not exist"),
        (["baseline", "--html", "."], "cannot be written"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(made: Made, words: list[str], message: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["compare", *words, "--store", str(made[0].root)])
    told = capsys.readouterr()
    assert ended.value.code == 2 and message in told.err and len(told.err.strip().splitlines()) == 1 and not told.out


def test_the_only_run_has_nothing_to_be_compared_with(tmp_path: Path, capsys: Any) -> None:
    store = Store(tmp_path / "store")
    at, recipe, configs = before(tmp_path / "before")
    run = run_of(store, at, recipe, configs, ("ingest",))
    with pytest.raises(SystemExit) as ended:
        main(["compare", run, "--store", str(store.root)])
    assert ended.value.code == 2 and "There is no other run" in capsys.readouterr().err


def test_the_terminal(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    main(["compare", "baseline", "--limit", "1", "--store", str(made[0].root)])
    printed = capsys.readouterr().out
    assert f"before baseline: {made[1]}" in printed and f"after  {made[2]}" in printed
    assert "The final policy (dpo) scores" in printed and "55 shared items (greedy): +18.2 points" in printed
    for words in (
        r"dpo\.beta\s+0\.\d+\s+0\.37", r"sft\s+made again, equal contents\s+label", r"instructions\s+sft\s+120\s+120\s+3",
        r"kept\s+dropped: refusal\s+2", r"pairs\s+60\s+58\s+54\s+1\s+2\s+1\s+3", r"dpo\s+56\s+12\s+2", "better",
        r"now right  questions \w+\n    prompt  questions question",
    ):  # fmt: skip
        assert re.search(words, printed), (words, printed)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_the_page_holds_any_text_fetches_nothing_and_fits_a_phone(
    made: Made, browser: Browser, tmp_path: Path, capsys: Any
) -> None:
    page = tmp_path / "page.html"
    main(["compare", "baseline", made[2], "--html", str(page), "--store", str(made[0].root)])
    assert capsys.readouterr().out.strip() == str(page)
    html = page.read_text()
    assert (
        "<script" not in html and "<img" not in html and not re.search(r"url\((?!#)|@import|https?://(?!\*\*\*)", html)
    )
    browser.events.clear()
    browser.go(page.as_uri())
    text = browser.value("document.querySelector('main').textContent")
    assert HOSTILE in text and "right now" in text and "swordfish1" not in text
    assert browser.value("document.title") == f"baseline → {made[2]}"
    titles = browser.value("[...document.querySelectorAll('h2')].map((e) => e.textContent)")
    assert titles[0] == "The two runs" and len(titles) == 8
    assert browser.value("[...document.querySelectorAll('nav a')].every((a) => document.querySelector(a.hash))")
    assert browser.value("document.querySelectorAll('svg').length") == 1  # sampled answers are the same
    for scheme, width in (("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)):
        browser.picture(tmp_path / f"{scheme}-{width}.png", width, 900, scheme)
    size = {"width": 390, "height": 900, "deviceScaleFactor": 1, "mobile": True}
    browser.ask("Emulation.setDeviceMetricsOverride", **size)
    assert browser.value("document.documentElement.scrollWidth") <= 390
    browser.ask("Emulation.clearDeviceMetricsOverride")
    assert not browser.seen("Runtime.exceptionThrown") and not browser.seen("Page.javascriptDialogOpening")
    assert not browser.seen("Runtime.consoleAPICalled") and not browser.seen("Log.entryAdded")
    assert {e["request"]["url"] for e in browser.seen("Network.requestWillBeSent")} == {page.as_uri()}


def test_the_page_of_runs_with_nothing_in_common_and_open(
    made: Made, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    shutil.copytree(made[0].root, tmp_path / "store")
    store, first = Store(tmp_path / "store"), made[1]
    at, recipe, _ = before(tmp_path / "again")
    third = run_of(store, at, recipe, {}, ("sft",))
    shown: list[str] = []
    monkeypatch.setattr("webbrowser.open", shown.append)
    main(["compare", third, first, "--open", "--json", "--store", str(store.root)])
    told = capsys.readouterr()
    page = Path(told.err.strip())
    assert shown == [page.as_uri()] and json.loads(told.out)["rows"] is None
    assert "has not finished ingest" in page.read_text() and "nothing is said about quality" in page.read_text()
    shutil.rmtree(page.parent)
