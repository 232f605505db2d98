"""The report's pages in a real Chromium: they fetch nothing, fit a phone, and their examples are browsed or listed."""

import re
from pathlib import Path
from typing import Any

import pytest
import reported
from artifacts import HOSTILE
from browser import CHROMIUM, Browser
from test_report_words import english

from flows import front, reporting
from storage import going
from storage.store import Store

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
Pages = dict[str, Path]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    """The page of a run that is done, in both languages, of one that goes on, and of all."""
    folder = tmp_path_factory.mktemp("reported")
    store, at = Store(folder / "store"), reported.graded(folder / "made")
    found = {}
    for language in ("en", "ko"):
        of = reported.recipe(f"report.language={language}")
        run = reported.begin(store, of)
        reported.do(store, run, at, of)
        run.finish("done")
        found[language] = reporting.write(reporting.chosen(store, run.id))
    found["all"], _ = front.write(store)
    run = reported.begin(store, reported.recipe("report.language=ko"))
    reported.do(store, run, at, of, ("ingest", "filter", "sft_unfiltered", "sft"))
    with going.told(store, run.id, "sample") as file:
        file.write_text('{"label": "sample", "done": 3, "total": 9}')
        found["going"] = reporting.write(reporting.chosen(store, run.id))
    run.finish("interrupted")
    return found


def wide(browser: Browser) -> int:
    return int(browser.value("document.documentElement.scrollWidth"))


@pytest.mark.parametrize("name", ["en", "ko", "going", "all"])
def test_a_page_fetches_nothing_and_fits(name: str, pages: Pages, browser: Browser) -> None:
    browser.events.clear()
    browser.go(pages[name].as_uri())
    assert browser.value("document.documentElement.lang") == ("en" if name == "en" else "ko")
    text = browser.value("document.querySelector('main').textContent")
    assert (HOSTILE in text) == (name != "all")
    assert browser.value("document.querySelectorAll('script').length") == (name in ("en", "ko"))
    assert browser.value("[...document.querySelectorAll('nav a')].every((a) => document.querySelector(a.hash))")
    ids = browser.value("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))
    browser.value("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    colours = []
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.ask("Emulation.setEmulatedMedia", features=features)
        for width in (1280, 390):
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
            browser.ask("Emulation.setDeviceMetricsOverride", **size)
            assert wide(browser) <= width
        colours.append(browser.value("getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(255, 255, 255)", "rgb(20, 23, 27)"]
    browser.ask("Emulation.clearDeviceMetricsOverride")
    for event in (
        "Runtime.exceptionThrown",
        "Runtime.consoleAPICalled",
        "Log.entryAdded",
        "Page.javascriptDialogOpening",
    ):
        assert not browser.seen(event)
    assert {e["request"]["url"] for e in browser.seen("Network.requestWillBeSent")} == {pages[name].as_uri()}


@pytest.mark.parametrize("name", ["ko", "going", "all"])
def test_no_english_is_left_on_the_page_of_a_korean_run(name: str, pages: Pages) -> None:
    assert english(re.sub(r"`align report [\w-]+ --follow`", "", pages[name].read_text())) == []


def shown(browser: Browser) -> list[str]:
    return list(
        browser.value("[...document.querySelectorAll('.answer')].filter((a) => !a.hidden).map((a) => a.dataset.kind)")
    )


def test_examples_are_browsed_by_keys_buttons_and_filter(pages: Pages, browser: Browser) -> None:
    browser.go(pages["en"].as_uri())
    kinds = browser.value("[...document.querySelectorAll('.answer')].map((a) => a.dataset.kind)")
    assert len(kinds) == 20 and {"gained", "lost"} <= set(kinds) and shown(browser) == kinds[:1]
    place = "document.querySelector('.browse .at').textContent"
    browser.value("scrollTo({top: 0, behavior: 'instant'})")
    browser.value("document.querySelector('#answers').scrollIntoView({behavior: 'instant'})")
    browser.press("ArrowRight", loads=False)
    browser.press("ArrowRight", loads=False)
    browser.press("ArrowLeft", loads=False)
    assert browser.value(place) == "2 / 20" and shown(browser) == kinds[1:2]
    browser.value("document.querySelector('[data-step=\"1\"]').click()")
    assert browser.value(place) == "3 / 20"
    for kind in ("lost", "gained"):
        browser.value(f"document.querySelector('[data-filter=\"{kind}\"]').click()")
        assert browser.value(place) == f"1 / {kinds.count(kind)}" and shown(browser) == [kind]
        assert (
            browser.value(f"document.querySelector('[data-filter=\"{kind}\"]').textContent")
            == f"{kind} {kinds.count(kind)}"
        )
        assert browser.value(f"document.querySelector('[data-filter=\"{kind}\"]').ariaPressed") == "true"
    for _ in kinds:
        browser.press("ArrowRight", loads=False)
    many = kinds.count("gained")
    assert browser.value(place) == f"{many} / {many}" and browser.value(
        "document.querySelector('[data-step=\"1\"]').disabled"
    )
    browser.value("scrollTo({top: 0, behavior: 'instant'})")
    browser.press("ArrowLeft", loads=False)  # nobody sees the examples: the key is the page's
    assert browser.value(place) == f"{many} / {many}"


def test_without_javascript_examples_are_a_list(pages: Pages, browser: Browser) -> None:
    browser.ask("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.go(pages["en"].as_uri())
        assert len(shown(browser)) == 20 and browser.value("document.querySelector('.browse').hidden")
    finally:
        browser.ask("Emulation.setScriptExecutionDisabled", value=False)


def test_the_verdict_stands_first(pages: Pages, browser: Browser) -> None:
    browser.go(pages["en"].as_uri())
    tops: Any = browser.value(
        "['.verdict', '.verdict ~ .verdict', 'header > p:not(.made)', 'nav', 'main'].map("
        "(s) => document.querySelector(s).getBoundingClientRect().top + scrollY)"
    )
    assert tops == sorted(tops) and tops[0] < 200
