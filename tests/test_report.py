"""The report: every number right, everything escaped, nothing fetched, equal input gives equal bytes."""

import base64
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from artifacts import HOSTILE, artifacts, regraded

from align import tables
from align.errors import InputError
from align.report import charts, wording
from align.report import page as page_of
from align.report.answers import Scores, _most
from flows.recipe import load
from flows.stages import outline
from tasks.report import ReportConfig, report


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"


def make(folder: Path, inputs: Mapping[str, Path], **config: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The page, the result table, the metrics."""
    folder.mkdir()
    metrics = report(ReportConfig(**config), folder, outline=outline(load()), **inputs)
    return (folder / "report.html").read_text(), json.loads((folder / "summary.json").read_text()), metrics


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return artifacts(tmp_path_factory.mktemp("artifacts"), n=60)


@pytest.fixture(scope="module")
def made(
    inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    return make(tmp_path_factory.mktemp("out") / "report", inputs)


def test_table_holds_the_measured_shares(inputs: dict[str, Path], made: Any) -> None:
    html, table, _ = made
    assert table["columns"][:4] == ["model", "greedy %", "sampled %", "Δ sampled v. sft"]
    assert [row[0] for row in table["rows"]] == ["base", "sft_unfiltered", "sft", "sft_random", "sft_rs", "dpo"]
    answers = tables.read(inputs["evaluate"] / "evaluations.parquet")

    def share(model: str, mode: str) -> str:
        scores = [a["score"] for a in answers if (a["model"], a["mode"]) == (model, mode)]
        return f"{100 * sum(scores) / len(scores):.1f}"

    for row in table["rows"]:
        assert row[1].split()[0] == share(row[0], "greedy") and row[2].split()[0] == share(row[0], "sampled")
        cut = [a["finish_reason"] == "truncated" for a in answers if a["model"] == row[0]]
        assert row[4:] == ["60", "0.0", "0.0", f"{100 * sum(cut) / len(cut):.1f}"]
        for shown in (share(row[0], "greedy"), share(row[0], "sampled")):
            assert f">{shown} <span" in html
    delta = float(share("dpo", "sampled")) - float(share("sft", "sampled"))
    assert float(table["rows"][-1][3].split()[0]) == pytest.approx(delta, abs=0.11)
    assert table["rows"][2][3] == ""  # sft against itself
    widths = [max(len(row[i]) for row in [table["columns"], *table["rows"]]) for i in range(8)]
    assert sum(widths) + 2 * 8 <= 120


def test_differences_are_those_of_evaluate(inputs: dict[str, Path], made: Any) -> None:
    text = Page(made[0]).text
    found = {(c["mode"], c["model"], c["against"]): c for c in tables.read(inputs["evaluate"] / "comparisons.parquet")}
    d = found["sampled", "dpo", "sft_rs"]
    interval = f"[{wording.points(d['diff_low'], False)}, {wording.points(d['diff_high'], False)}]"
    assert interval in text and wording.points(abs(d["diff"]), False) in text
    d = found["sampled", "sft", "base"]
    assert f"SFT raised sampled accuracy by {100 * d['diff']:.1f} points over the base model" in text
    assert "on 60 questions" in text


def test_page_is_self_contained_and_safe(inputs: dict[str, Path], made: Any) -> None:
    html = made[0]
    page = Page(html)
    assert not {t for t, _ in page.tags} & {"img", "link", "iframe", "object", "b", "base"}
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert script == Path(page_of.__file__).with_name("templates").joinpath("examples.js").read_text()
    digest = base64.b64encode(sha256(script.encode()).digest()).decode()
    assert (
        f"default-src &#39;none&#39;; style-src &#39;unsafe-inline&#39;; script-src &#39;sha256-{digest}&#39;;" in html
    )
    for tag, attributes in page.tags:
        assert not [a for a in attributes if a.startswith("on")], tag
        for name in ("href", "src", "xlink:href", "action"):
            assert (attributes.get(name) or "#").startswith("#")
    assert not re.search(r"url\((?!#)|@import|https?://", html)
    assert HOSTILE in page.text
    ids = [a["id"] for _, a in page.tags if a.get("id")]
    assert len(ids) == len(set(ids))
    targets = [href[1:] for t, a in page.tags if t == "a" and (href := a.get("href"))]
    assert targets and set(targets) <= set(ids)
    svgs = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(svgs) > 15
    for svg in svgs:
        ElementTree.fromstring(svg)
        assert set(re.findall(r"url\(#([^)]+)\)", svg)) <= set(re.findall(r' id="([^"]+)"', svg))
        assert not re.search(r'(?:fill|stroke)="#00000[1-9]"', svg)
    assert str(inputs["ingest"].parent) not in html


def test_equal_input_gives_equal_bytes(inputs: dict[str, Path], made: Any, tmp_path: Path) -> None:
    assert make(tmp_path / "again", inputs) == made


def test_filter_funnel(inputs: dict[str, Path], made: Any) -> None:
    text = Page(made[0]).text
    rows = tables.read(inputs["filter"] / "instructions.parquet")
    kept = sum(r["kept"] for r in rows)
    assert f"{kept} of {len(rows)} rows kept" in text and f"{len(rows) - kept} dropped" in text
    drops = {r: sum(row["reason"] == r for row in rows) for r in ("empty", "near_duplicates")}
    assert kept + sum(drops.values()) == len(rows)
    for rule, n in drops.items():
        assert re.search(rf"{rule.replace('_', ' ')}\s*{n}\s", text)
    assert text.count("duplicate of: ") == 6 and text.count("similarity: 0.91") == 6  # three examples per rule
    assert made[0].count('class="example"') == 6
    assert re.search(r"near duplicates.*empty.*refusal\s*0\s", text)  # in the order of the rules
    for title in ("Response length", "Language of the response", "Score: ifd"):
        assert title in text
    first = min(r["row_id"] for r in rows if r["reason"] == "empty")
    assert first in text


def test_warnings_and_facts(made: Any) -> None:
    text = Page(made[0]).text
    assert "chosen responses of held-out pairs by −1.25 nats" in text and "The chosen became less likely" in text
    assert "is not JSON raw.jsonl:3" in text
    assert "longer one in" in text and text.count("prefers the chosen response in") == 2  # a finding, and its chapter


@pytest.mark.parametrize(
    ("options", "said", "models"),
    [
        ({"graded": False}, "No answer is graded, so nothing is claimed", 6),
        ({"graded": False, "imported": True, "arms": ("sft", "dpo")}, "imported 12 ", 3),
        ({"arms": ()}, "SFT was not evaluated", 1),
        ({"suites": 2, "arms": ("sft", "sft_rs", "dpo")}, "controls.unfiltered adds it", 4),
    ],
)
def test_incomplete_runs_say_what_is_missing(tmp_path: Path, options: Any, said: str, models: int) -> None:
    html, table, metrics = make(tmp_path / "report", artifacts(tmp_path, n=12, **options))
    text = Page(html).text
    assert said in text and metrics["models"] == models
    suites = options.get("suites", 1)
    assert len(table["rows"]) == models * suites and (table["columns"][0] == "suite") == (suites > 1)
    if not options.get("graded", True):
        assert all(row[1] == row[2] == "ungraded" and row[3] == "" for row in table["rows"])
        assert metrics["findings.unknown"] == 6 and "Not measured: no" in text
    if suites > 1:
        assert "suite <b>1</b>" in text and "<b>" not in html
        assert "<b>" not in (tmp_path / "report" / "summary.md").read_text()


def test_questions_count_only_where_graded(inputs: dict[str, Path], tmp_path: Path) -> None:
    """Partly ungraded suites say of how many; scores between 0 and 1 are no accuracy."""
    answers = tables.read(inputs["evaluate"] / "evaluations.parquet")
    blank = sorted({a["row_id"] for a in answers})[:20]

    def change(a: dict[str, Any]) -> dict[str, Any]:
        if a["row_id"] in blank:
            return {"score": None, "status": "ungraded"}
        return {"score": 0.75} if a["score"] else {}

    html, table, _ = make(tmp_path / "report", regraded(tmp_path, inputs, change))
    assert {row[4] for row in table["rows"]} == {"40 of 60"} and {row[6] for row in table["rows"]} == {"33.3"}
    text = Page(html).text
    assert "on 40 questions" in text and "scores " in text and "mean score" in text and "accuracy by" not in text


def test_an_artifact_without_metrics_is_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    empty = tmp_path / "reward"
    empty.mkdir()
    with pytest.raises(InputError, match=r"reward holds no metrics\.json"):
        make(tmp_path / "report", {**inputs, "reward": empty})


def test_examples_are_those_that_differ_most() -> None:
    def scores(first: float | None, last: float | None, mean: float = 0.0) -> Scores:
        return Scores({"sft": first, "dpo": last}, {"sft": 0.0, "dpo": mean})

    items = {("s", "a"): scores(0, 1, 0.25), ("s", "b"): scores(0, 1, 0.75), ("s", "c"): scores(0, 1, 0.5),
             ("s", "d"): scores(1, 0), ("s", "e"): scores(0, 0.5), ("s", "f"): scores(1, 1, 1),
             ("s", "g"): scores(None, 1)}  # fmt: skip
    kinds = dict(zip(items, ["gained"] * 3 + ["lost", "gained", "right in both", "not graded"], strict=True))
    # gained and lost in turns, the wider range on average first; then the narrower greedy range, then none
    assert "".join(row_id for _, row_id in _most(items, kinds, ["sft", "dpo"], 9)) == "bdcaefg"
    assert _most(items, kinds, ["sft", "dpo"], 1) == [("s", "b")] and _most({}, {}, ["sft"], 3) == []


def test_examples_hold_every_answer(inputs: dict[str, Path], made: Any) -> None:
    found = tables.read(inputs["evaluate"] / "evaluations.parquet", mode="greedy")
    status = {(a["row_id"], a["model"]): a["status"] for a in found}
    kinds = {i: (status[i, "sft"], status[i, "dpo"]) for i, _ in status}
    shown = re.findall(r'<div class="answer" data-kind="(\w+).*?<span class="muted"> (\w+)', made[0], re.DOTALL)
    assert len(shown) == 20 and {kind for kind, _ in shown} == {"gained", "lost", "right", "wrong"}
    ends = {
        "gained": ("wrong", "correct"),
        "lost": ("correct", "wrong"),
        "right": ("correct",) * 2,
        "wrong": ("wrong",) * 2,
    }
    for kind, row_id in shown:
        assert kinds[row_id] == ends[kind] and len({status[row_id, model] for model in ("sft", "sft_rs", "dpo")}) == 2
    for i, part in enumerate(made[0].split('<div class="answer"')[1:]):
        said = re.findall(r'class="side (\w+)"><div class="who">([^<]+)<', part.partition("</section>")[0])
        told = {model: state for state, models in said for model in models.split(", ")}
        assert told == {
            model: status[shown[i][1], model]
            for model in ("base", "sft_unfiltered", "sft", "sft_random", "sft_rs", "dpo")
        }


def test_wording() -> None:
    assert wording.points(-0.0004) == "0.0" and wording.points(0.061) == "+6.1" and wording.points(-0.061) == "−6.1"
    assert wording.plural(1, "row") == "1 row" and wording.plural(1200, "row") == "1,200 rows"
    assert wording.shorten("x" * 500, 100).endswith("… (400 more characters)") and wording.shorten(None) == ""
    assert wording.as_dict("not JSON") == {"evidence": "not JSON"} and wording.as_dict("[1]") == {"evidence": [1]}
    assert wording.evidence({"similar_to": "a", "score": 0.123456, "of": [1]}) == [
        ("similar to", "a"), ("score", "0.1235"), ("of", "[1]"),
    ]  # fmt: skip


def test_charts_escape_labels_and_survive_odd_values() -> None:
    svg = charts.bars({"<b>&": {"a": 0.5}, '"': {"a": 0.1}}, key="k")
    assert "&lt;b>&amp;" in svg.replace("&gt;", ">") and "<b>" not in svg
    ElementTree.fromstring(svg)
    for values in ([3.0], [1, 1, 1], [float("nan"), 2.0], list(range(1000))):
        ElementTree.fromstring(charts.distribution({"a": values}, x="x", key="k", clip=0.99))


def test_imports_wait() -> None:
    heavy = "import sys, tasks.report; print([m for m in ('altair','jinja2','vl_convert','numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert done.stdout.strip() == "[]"


def test_empty_buckets_are_drawn_as_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[dict[str, Any]]] = []

    def draw(points: list[dict[str, Any]], *rest: Any) -> str:
        drawn.append(points)
        return ""

    monkeypatch.setattr(charts, "_steps", draw)
    charts.steps({"a": {0.0: 0.5, 8.0: 0.5}}, x="x", key="k", octaves=True)
    charts.steps({"a": {0.1: 0.5, 0.2: 0.25, 0.4: 0.25}}, x="x", key="k")
    assert [(p["x"], p["y"]) for p in drawn[0]] == [(0, 0.5), (1, 0), (2, 0), (4, 0), (8, 0.5), (16, 0)]
    assert [(p["x"], p["y"]) for p in drawn[1]] == [(0.1, 0.5), (0.2, 0.25), (0.3, 0), (0.4, 0.25), (0.5, 0)]


def test_nothing_dropped_and_no_examples(inputs: dict[str, Path], tmp_path: Path) -> None:
    filtered = tmp_path / "filtered"
    filtered.mkdir()
    rows = [r | {"kept": True, "reason": None} for r in tables.read(inputs["filter"] / "instructions.parquet")]
    tables.write(filtered / "instructions.parquet", rows, tables.INSTRUCTIONS)
    (filtered / "metrics.json").write_text(json.dumps({"read": len(rows), "kept": len(rows), "rules": "empty"}))
    html, *_ = make(tmp_path / "report", {**inputs, "filter": filtered}, examples=0, answers=0)
    text = Page(html).text
    assert f"{len(rows)} of {len(rows)} rows kept (100.0 %), 0 dropped" in text
    assert "distributions.parquet is missing" in text and "There are no answers to show" in text
