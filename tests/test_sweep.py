"""What a sweep is asked for, and what it says of its points. That it runs them is in test_chain.py."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from artifacts import HOSTILE
from browser import CHROMIUM, Browser
from served import TINY

from align.errors import InputError
from align.paired import paired
from align.stats import mean_interval
from flows.points import Point, Sweep
from flows.show_sweep import as_json, as_rows, html
from flows.space import Axis, Listed, Range, space
from flows.sweep import sweep
from storage.store import Store


def test_values_are_split_at_commas_of_their_own():
    asked = space(["dpo.beta=0.05, 1e-1", "sft.lora.r=8,16", "report.title='a, b'", "x=[1,2]", "y={a: 1, b: 2}"])
    assert asked.fixed == ["report.title='a, b'", "x=[1,2]", "y={a: 1, b: 2}"]
    assert asked.axes == [Listed("dpo.beta", ("0.05", "1e-1")), Listed("sft.lora.r", ("8", "16"))]
    assert asked.size == 4 and list(asked.points())[1] == ("dpo.beta=0.05", "sft.lora.r=16")
    assert space(["x=[1,2],[3]"]).axes == [Listed("x", ("[1,2]", "[3]"))]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["dpo.beta=0.1"], "needs a setting with several values"),
        ([], "needs a setting with several values"),
        (["dpo.beta=0.1,0.2,0.1"], "dpo.beta=0.1,0.2,0.1: 0.1 stands there twice"),
        ([f"a={','.join(map(str, range(40)))}", f"b={','.join(map(str, range(40)))}"], "1600 combinations"),
        (["dpo.beta=0.1,x"], "dpo.beta"),
        (["dpo.beta=0.1,"], "dpo.beta"),
        (["dpo.betta=0.1,0.2"], "did you mean beta"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_anything_runs(overrides, message, tmp_path):
    with pytest.raises(InputError, match=message):
        sweep(str(TINY), overrides, Store(tmp_path / "store"))
    assert not (tmp_path / "store").exists()


def test_a_model_that_is_not_evaluated_is_refused(tmp_path):
    with pytest.raises(InputError, match="--model reward: this recipe evaluates base, .*dpo"):
        sweep(str(TINY), ["dpo.beta=0.1,0.2"], Store(tmp_path / "store"), model="reward")


def point(beta: float, scores: list[float], first: list[float] | None = None) -> Point:
    found = Point((f"dpo.beta={beta}",), "run", results={"sql": mean_interval(scores)})
    if first is not None:
        found.against["sql"] = paired([a - b for a, b in zip(scores, first, strict=True)], level=0.975)
    return found


@pytest.mark.parametrize(
    ("scores", "verdict"),
    [([1.0] * 60 + [0.0] * 40, "shown to be better over dpo.beta=0.1"), ([1.0] * 42 + [0.0] * 58, "not shown")],
)
def test_the_best_by_its_mean_is_only_called_better_where_that_is_shown(scores, verdict):
    given = [1.0] * 40 + [0.0] * 60
    first, other = point(0.1, given), point(0.2, scores, given)
    found = Sweep("dpo", "greedy", 0.975, [other, first], first, "align run", [Listed("dpo.beta", ("0.1", "0.2"))])
    assert verdict in found.verdict()
    names, lines = as_rows(found)
    assert names == ["dpo.beta", "greedy %", "Δ v. first", "run"]
    assert [line[0] for line in lines] == ["0.2", "0.1"] and lines[1][2] == "first"


def swept(axes: Sequence[Axis], settings: Sequence[tuple[str, ...]], seed: int | None = None) -> Sweep:
    """A sweep whose second point is best and shown to be better, and whose last failed."""
    given = [1.0] * 40 + [0.0] * 60
    points = []
    for i, chosen in enumerate(settings[:-1]):
        scores = [1.0] * (40 + (25 if i == 1 else -i)) + [0.0] * (60 - (25 if i == 1 else -i))
        found = Point(chosen, f"run-{i}", results={"sql": mean_interval(scores)})
        if i:
            found.against["sql"] = paired([a - b for a, b in zip(scores, given, strict=True)], level=0.99)
        points.append(found)
    points.append(Point(settings[-1], error=f"sft: {HOSTILE}"))
    best = sorted(points, key=lambda p: -p.mean)
    return Sweep("dpo", "greedy", 0.99, best, points[0], f"align run tiny --set {best[0].settings[0]}", axes, seed)


RATES = [(f"sft.learning_rate={x}",) for x in ("0.001", "0.0003", "0.01", "0.0001", "0.1")]
SEVERAL = [(f"dpo.beta={b}", f"ingest.file={f}") for b in ("0.1", "0.2") for f in ("a", HOSTILE, "long " * 30)]
SWEEPS = {
    "one": swept([Range("sft.learning_rate", 1e-4, 0.1, log=True, whole=False)], RATES, 3),
    "listed": swept([Listed("sft.learning_rate", tuple(r[0].partition("=")[2] for r in RATES))], RATES),
    "several": swept([Listed("dpo.beta", ("0.1", "0.2")), Listed("ingest.file", ("a", HOSTILE))], SEVERAL, 0),
}


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize("name", SWEEPS)
def test_the_page_says_what_the_table_and_the_json_say(name: str, browser: Browser, tmp_path: Path) -> None:
    found, page = SWEEPS[name], tmp_path / "page.html"
    page.write_text(html(found, f"tiny {HOSTILE}"))
    assert "<script" not in page.read_text() and not re.search(r"url\((?!#)|@import|https?://", page.read_text())
    browser.events.clear()
    browser.go(page.as_uri())
    cells = browser.value("[...document.querySelectorAll('tbody tr')].map(r => [...r.cells].map(c => c.textContent))")
    names, rows = as_rows(found)
    assert browser.value("[...document.querySelectorAll('th')].map(c => c.textContent)") == names
    assert [[c.replace("\u2212", "-") for c in row] for row in cells] == [
        [c.replace("\u2212", "-") for c in row] for row in rows
    ]
    text = browser.value("document.querySelector('main').textContent")
    facts = json.loads(json.dumps(as_json(found)))
    assert browser.value("document.querySelector('.headline').textContent") == found.verdict() == facts["verdict"]
    assert browser.value("document.querySelector('pre').textContent") == found.command == facts["command"]
    assert "shown to be better" in facts["verdict"] and HOSTILE in text and "99.00 % one" in text
    assert facts["seed"] == found.seed and len(facts["points"]) == len(rows) and facts["points"][-1]["error"]
    assert browser.value("document.querySelectorAll('svg').length") == 1
    dots = browser.value("[...document.querySelectorAll('svg .mark-symbol path')].map(p => p.getAttribute('fill'))")
    assert sorted(set(dots)) == ["var(--blue)", "var(--green)", "var(--grey)"] and len(dots) == len(rows) - 1
    for scheme, width in (("light", 1280), ("dark", 390)):
        browser.picture(tmp_path / f"{scheme}-{width}.png", width, 900, scheme)
    browser.ask("Emulation.setDeviceMetricsOverride", width=390, height=900, deviceScaleFactor=1, mobile=True)
    assert browser.value("document.documentElement.scrollWidth") <= 390
    browser.ask("Emulation.clearDeviceMetricsOverride")
    assert not browser.seen("Runtime.exceptionThrown") and not browser.seen("Log.entryAdded")
    assert {e["request"]["url"] for e in browser.seen("Network.requestWillBeSent")} == {page.as_uri()}


def test_a_page_of_failures_has_no_chart_and_no_command() -> None:
    failed = Point(("dpo.beta=0.1",), error="no memory")
    page = html(Sweep("dpo", "greedy", 0.95, [failed], failed, "", [Listed("dpo.beta", ("0.1",))]), "tiny")
    assert "<svg" not in page and "<pre" not in page and page.count("No run has a result.") == 2
