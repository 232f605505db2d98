"""`align report`: every figure on a run's page is the store's, a run that goes on says how far it is, and all runs."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import reported

from align import progress
from flows import front, pages, reporting
from flows.cli import main
from storage import champions, going, runs
from storage.runs import StageRun
from storage.store import Store
from storage.views import ask

Table = list[list[str]]


class Tables(HTMLParser):
    """The tables of a page, by the id of their section."""

    def __init__(self, html: str):
        super().__init__()
        self.found: dict[str, list[Table]] = {}
        self.section, self.cell = "", False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        tables = self.found.setdefault(self.section, [])
        if tag == "section":
            self.section = dict(attrs)["id"] or ""
        elif tag == "table":
            tables.append([])
        elif tag == "tr":
            tables[-1].append([])
        elif tag in ("td", "th"):
            tables[-1][-1].append("")
            self.cell = True

    def handle_endtag(self, tag: str) -> None:
        self.cell = self.cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.cell:
            self.found[self.section][-1][-1][-1] += data


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, str, str, dict[str, Path]]:
    """A store in which a run did everything and became champion, and a later one found all of it but the report, which
    is Korean; their ids, and the artifacts."""
    folder = tmp_path_factory.mktemp("reported")
    store, at = Store(folder / "store"), reported.graded(folder / "made")
    ids = []
    for of in (reported.recipe(), reported.recipe("report.language=ko")):
        run = reported.begin(store, of)
        done = reported.do(store, run, at, of)
        run.finish("done")
        ids.append(run.id)
    champions.crown(store, "quickstart", 0, run_id=ids[0], model="dpo", artifact=done["dpo"], base={}, verdict="it is better",
                    decision=done["promote"])  # fmt: skip
    return store, ids[0], ids[1], at


def page_of(store: Store, run: str) -> str:
    return reporting.write(reporting.chosen(store, run)).read_text()


def rows(store: Store, query: str, run: str) -> list[tuple[Any, ...]]:
    return ask(store, query, run)[1]


def number(text: str) -> float | None:
    plain = text.replace(",", "").replace("\N{MINUS SIGN}", "-")
    return None if plain in ("–", "") else float(plain)


def test_what_it_cost_is_what_the_store_says(made: Any) -> None:
    store, first, second, _ = made
    for run, other in ((first, ""), (second, first)):
        (costs, *_) = Tables(page_of(store, run)).found["costs"]
        body = {row[0]: row[1:] for row in costs[1:]}
        known = rows(store, "SELECT stage, status, seconds, artifact FROM stage_runs", run)
        told = {(s, n): v for s, n, v in rows(store, "SELECT stage, name, value FROM metrics", run)}
        spent = dict(rows(store, "SELECT artifact, max(seconds) FROM attempts GROUP BY 1", run))
        assert set(body) == {stage for stage, *_ in known} | {"all" if run == first else "전체"}
        for stage, status, seconds, artifact in known:
            became, by, now, then, drawn, trained, peak, gpu = body[stage]
            assert (
                became
                == (
                    {"ran": "ran", "cached": "cached"} if run == first else {"ran": "실행함", "cached": "저장소에 있음"}
                )[status]
            )
            assert by == (other if status == "cached" else "")
            assert number(now) == (pytest.approx(seconds, abs=0.05) if status == "ran" else None)
            assert number(then) == pytest.approx(spent[artifact], abs=0.05)
            tokens = told.get((stage, "tokens"))
            assert number(drawn) == (tokens if stage in ("sample", "resample") else None)
            assert number(trained) == (tokens if stage in reported.TRAINED else None)
            assert number(peak) == told.get((stage, "process.peak_mb"))
            assert number(gpu) == told.get((stage, "process.peak_gpu_mb"))
        ran = [seconds for _, status, seconds, _ in known if status == "ran"]
        total = body["all" if run == first else "전체"]
        assert (
            number(total[2]) == pytest.approx(sum(ran), abs=0.06) and number(total[6]) == 312 and number(total[7]) == 51
        )
        assert number(total[4]) == sum(told[s, "tokens"] for s in ("sample", "resample"))


def test_lineage_is_the_stores(made: Any) -> None:
    store, first, *_ = made
    (table,) = Tables(page_of(store, first)).found["lineage"]
    artifacts = dict(rows(store, "SELECT stage, artifact FROM stage_runs", first))
    edges = rows(store, "SELECT child, role, parent FROM lineage", first)
    assert {row[0]: row[1] for row in table[1:]} == artifacts
    for _, artifact, digest, parents in table[1:]:
        found = store.artifact(artifact)
        assert found and found.digest() == digest and artifact.endswith(digest[:16])
        told = {tuple(line.split(": ")) for line in parents.split("\n") if ": " in line}
        assert {(r, p) for r, p in told if not p.startswith("sha256 ")} == {
            (role, parent) for child, role, parent in edges if child == artifact and parent in artifacts.values()
        }
        assert {r for r, p in told if p.startswith("sha256 ")} <= {"outline", "contest"}


def test_results_and_data_are_the_stores(made: Any) -> None:
    store, first, *_ = made
    html = page_of(store, first)
    tables = Tables(html).found
    alone = {(m, mode): values for m, mode, *values in rows(
        store, "SELECT model, mode, mean, low, high FROM comparisons WHERE against IS NULL", first)}  # fmt: skip
    against = {m: values for m, *values in rows(
        store, "SELECT model, diff, diff_low, diff_high FROM comparisons WHERE against = 'sft' AND mode = 'greedy'", first)}  # fmt: skip
    cut = dict(
        rows(store, "SELECT model, 100 * avg((finish_reason = 'truncated')::INT) FROM evaluations GROUP BY 1", first)
    )
    results, *pairs = tables["results"]
    for row in results[1:]:
        name = next(m for m in sorted(cut, key=len, reverse=True) if row[0].startswith(m))
        for cell, mode in ((row[1], "greedy"), (row[2], "sampled")):
            figures = [float(f) for f in re.findall(r"[\d.]+", cell)]
            assert figures == [pytest.approx(100 * v, abs=0.051) for v in alone[name, mode]]
        if name != "sft":
            figures = [float(f.replace("\N{MINUS SIGN}", "-")) for f in re.findall(r"[\N{MINUS SIGN}\d.]+", row[3])]
            assert figures == [pytest.approx(100 * v, abs=0.051) for v in against[name]]
        assert row[4] == "40" and number(row[7]) == pytest.approx(cut[name], abs=0.051)
    every = {(mode, m, a): (d, n) for mode, m, a, d, n in rows(
        store, "SELECT mode, model, against, diff, n FROM comparisons WHERE against IS NOT NULL", first)}  # fmt: skip
    assert len(pairs) == 2 and all(len(table) == 16 for table in pairs)
    for mode, table in zip(("greedy", "sampled"), pairs, strict=True):
        for model_, other, diff, _, n, *_ in table[1:]:
            d, many = every[mode, model_, other]
            assert number(diff) == pytest.approx(100 * d, abs=0.051) and number(n) == many
    read = {(s, u): n for s, u, n in rows(store, "SELECT source, use, count(*) FROM rows GROUP BY ALL", first)}
    assert {(r[0], r[1]): number(r[4]) for r in tables["ingest"][0][1:]} == read
    splits = {s: n for s, n in rows(store, "SELECT split, count(*) FROM rows GROUP BY 1", first)}
    assert {r[0]: sum(number(c) or 0 for c in r[1:]) for r in tables["ingest"][1][1:]} == splits
    drawn = rows(store, "SELECT count(DISTINCT row_id), count(*), avg(n_tokens) FROM samples "
                 "WHERE artifact LIKE 'sample-%'", first)[0]  # fmt: skip
    cells = [number(c) for c in tables["sampling"][0][1][1:5]]
    assert cells == [drawn[0], drawn[1], 8, pytest.approx(drawn[2], abs=0.01)]
    logged = {s: ends for s, *ends in rows(store, "SELECT stage, arg_min(t.value, step), arg_max(t.value, step) FROM "
              "training_log t JOIN stage_runs USING (artifact) WHERE t.name = 'loss' GROUP BY 1", first)}  # fmt: skip
    named = "SELECT stage, name, value FROM metrics WHERE name LIKE 'loss.%'"
    losses = {(stage, name): value for stage, name, value in rows(store, named, first)}
    assert len(tables["training"][0]) == 7
    for stage, _, _, *ends, _ in tables["training"][0][1:]:
        told = [losses.get((stage, f"loss.{name}"), logged[stage][k]) for k, name in enumerate(("first", "final"))]
        assert [number(end) for end in ends] == [pytest.approx(v, rel=1e-3) for v in told]
    kept = rows(store, "SELECT count(*) FILTER (kept), count(*) FROM instructions", first)[0]
    assert f"{kept[0]} of {kept[1]} rows kept" in html
    (rule,) = rows(store, "SELECT 100 * diff, 100 * low, 100 * high, held FROM promotion WHERE rule = 'better'", first)
    box = html.partition("dpo is fit to be champion.")[2].partition("</ul>")[0]
    assert rule[3] and f"{rule[0]:+.1f} points [{rule[1]:.1f}, {rule[2]:.1f}] on 40 items" in box
    assert f"{100 * alone['dpo', 'greedy'][0]:.1f} %" in html.partition("The chain helped: dpo scores ")[2][:10]


def test_the_command_and_what_changed_since(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store, first, second, _ = made
    html = page_of(store, first)
    command = f"align run quickstart {' '.join(reported.WORDS)}"
    assert command in html and "Today this command gives the same settings." in html
    assert "그 뒤로 레시피의 report.language 설정이 바뀌었습니다" in page_of(store, second)
    assert "transformers" in html and "primary: greedy" in html
    monkeypatch.setattr(runs, "planned", lambda *_: (["no/such.yaml"], []))
    assert "The recipe is not there any more" in page_of(store, first)
    monkeypatch.setattr(runs, "planned", lambda *_: ([], []))
    assert "The command is not on record" in page_of(store, first)


def test_a_run_that_goes_on(made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    at, of = made[3], reported.recipe()
    store = Store(tmp_path / "store")
    run = reported.begin(store, of)
    reported.do(store, run, at, of, ("ingest", "filter"))
    with going.progress_of(store, run.id), going.told(store, run.id, "sft") as file:
        assert going.running(store, run.id) == {"sft": {}}
        monkeypatch.setenv(progress.TOLD, str(file))
        with progress.Progress(40, "tokenising prompts") as bar:
            bar.advance(13)
            main(["report", "--json", "--store", str(store.root)])
        told = json.loads(capsys.readouterr().out)
        html = Path(told["page"]).read_text()
        assert [s["status"] for s in told["stages"]] == ["ran", "ran", "to come", "running", *["to come"] * 11]
        assert (
            "2 of 15 stages done." in html
            and 'sft</strong> <span class="running">is running · 13 / 40</span> <span class="muted" lang="en">tokenising prompts</span>'
            in html
        )
        assert '<progress max="40" value="13">' in html and "Still to come: sft_unfiltered, sample, pairs" in html
        assert '<meta http-equiv="refresh" content="10">' in html and "goes on. Made 20" in html
        assert "What the filter kept" in html and 'id="results"' not in html
    assert going.running(store, run.id) == {}
    run.stage(StageRun("sft", None, None, "failed", 0.0, "There are 0 rows <to> train on.", {}))
    run.finish("failed")
    html = page_of(store, run.id)
    cost = html.partition("sft failed:")[2]
    assert "There are 0 rows &lt;to&gt; train on." in cost and "What was read</h2>" in cost
    assert "refresh" not in html and "failed. Made 20" in html and "What it cost" in html
    monkeypatch.setattr(reporting, "REFRESH", 0)
    reporting.follow(reporting.chosen(store, None))  # it is over


def test_all_runs(made: Any, capsys: Any) -> None:
    store, first, second, _ = made
    main(["report", "--all", "--json", "--store", str(store.root)])
    told = json.loads(capsys.readouterr().out)
    assert [run["run_id"] for run in told["runs"]] == [first, second]
    query = "SELECT mean, low, high, n FROM all_comparisons WHERE against IS NULL AND model = 'dpo' AND mode = 'greedy' AND run_id = '{}'"
    for run in told["runs"]:
        (score,) = run["scores"]
        ((mean, low, high, n),) = rows(store, query.format(run["run_id"]), first)
        assert (score["mean"], score["low"], score["high"], score["n"]) == (mean, low, high, n)
        assert Path(run["page"]).is_file() and run["final"] == "dpo"
    assert [(run["champion"], run["reigns"]) for run in told["runs"]] == [(1, True), (None, False)]
    html = Path(told["page"]).read_text()
    table = Tables(html).found["recipe-0"][0]
    assert [row[0] for row in table[1:]] == [second, first] and [row[1] for row in table[1:]] == [
        "승격 안 됨",
        "1번째 챔피언(현재)",
    ]
    assert table[1][2].startswith(f"{100 * mean:.1f} [") and f"챔피언: 실행 {first}의 dpo" in html
    assert "dpo is the champion of quickstart." in page_of(store, first) and "챔피언은 이" not in page_of(store, second)
    links = re.findall(r'href="(file:[^"]+)"', html)
    assert len(links) == 2 and all(Path(link.removeprefix("file://")).is_file() for link in links)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--all", "abc"], "leave RUN and --follow out"),
        (["--all", "--follow"], "leave RUN"),
        (["nothing"], "no such run"),
    ],
)
def test_bad_input(made: Any, words: list[str], message: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["report", *words, "--store", str(made[0].root)])
    assert ended.value.code == 2 and message in capsys.readouterr().err


def test_an_empty_store_and_one_that_takes_no_files(made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    for ask_for in (lambda s: reporting.chosen(s, None), front.write):
        with pytest.raises(Exception, match="`align run` makes one"):
            ask_for(Store(tmp_path / "empty"))
    store, first, *_ = made
    write = pages.whole.write

    def refuse(path: Path, content: bytes) -> None:
        if store.root in path.parents:
            raise OSError(30, "Read-only file system")
        write(path, content)

    monkeypatch.setattr(pages.whole, "write", refuse)
    page = reporting.write(reporting.chosen(store, first))
    assert store.root not in page.parents and "The chain helped" in page.read_text()
