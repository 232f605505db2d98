"""Real questions through judges and pairing: what people preferred of Anthropic's pairs, and Spider's SQL.

What is expected is computed here from the files themselves, by other means than the pipeline's.
"""

import gzip
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from endpoints import ChatHandler
from real import SHARED, Row, paired, rows_of

from align.errors import StageError
from align.grading.audit import FILLER, KEY, NULL, Audit, audit
from align.grading.graders import NoGrader
from align.grading.pairwise import Contest, PairJudge

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not here")

Rule = Callable[[str, str, str], str]
"""Of a reference and the responses in places A and B: the letter of the better one, or C."""


class Judging(ChatHandler):
    """Answers MT-Bench's question by a rule."""

    prefers: Rule
    asked_for = 0

    def do_POST(self) -> None:
        text = self.asked()["messages"][0]["content"]
        type(self).asked_for += 1
        found = re.findall(r"\[The Start of [^\]]*Answer\]\n(.*?)\n\[The End of [^\]]*Answer\]", text, re.S)
        self.say(f"[[{type(self).prefers(*found)}]]")


@pytest.fixture
def judging() -> Iterator[Callable[[Rule], tuple[type[Judging], PairJudge]]]:
    """A judge behind a real endpoint, by the rule that it is given."""
    started: list[ThreadingHTTPServer] = []

    def start(prefers: Rule) -> tuple[type[Judging], PairJudge]:
        kind = type("Handler", (Judging,), {"prefers": staticmethod(prefers), "asked_for": 0})
        server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        started.append(server)
        return kind, PairJudge(base_url=f"http://127.0.0.1:{server.server_address[1]}/v1", model="m", attempts=1)

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def worth(text: str) -> float:
    """Short responses are worth more than long ones; what says nothing is worth least."""
    hollow = not text.strip() or text == KEY or NULL in text or FILLER.strip() in text
    return -1e9 if hollow else -len(text)


def shorter(reference: str, a: str, b: str) -> str:
    """Two that are nearly as long, the first of them."""
    if a == b:
        return "C"
    near = min(len(a), len(b)) > 0.8 * max(len(a), len(b)) and worth(a) > -1e9 < worth(b)
    return "A" if near or worth(a) > worth(b) else "B"


def human_pairs(folder: Path, n: int) -> list[Row]:
    rows = rows_of(folder, "hh_rlhf/test.jsonl.gz", "preferences", limit=n)
    with gzip.open(SHARED / "hh_rlhf/test.jsonl.gz", "rt", encoding="utf-8") as file:
        final_turns = {tuple(r[c].rsplit("\n\nAssistant:", 1)[1].strip() for c in ("chosen", "rejected"))
                       for r in map(json.loads, file)}  # fmt: skip
    assert len(rows) == n and {(r["chosen"], r["rejected"]) for r in rows} <= final_turns
    return rows


def agreement(rows: list[Row]) -> tuple[int, int, int, float]:
    """Of pairs with the better one first: agreed, decided, flipped, and Cohen's kappa from the table of verdicts, each
    pair standing once in either order."""
    table: Counter[tuple[str, str]] = Counter()
    decided = flipped = 0
    for r in rows:
        forward, backward = shorter("", r["chosen"], r["rejected"]), shorter("", r["rejected"], r["chosen"])
        flipped += forward == backward != "C"
        if forward != backward:
            decided += 1
            table["A", forward] += 1
            table["B", backward] += 1
    n = sum(table.values())
    observed = (table["A", "A"] + table["B", "B"]) / n
    people = {x: sum(v for (a, _), v in table.items() if a == x) / n for x in "AB"}
    judge = {x: sum(v for (_, b), v in table.items() if b == x) / n for x in "AB"}
    chance = sum(people[x] * judge[x] for x in "AB")
    return table["A", "A"], decided, flipped, (observed - chance) / (1 - chance)


def test_a_judges_agreement_with_people_on_real_pairs(tmp_path: Path, judging: Any) -> None:
    rows = human_pairs(tmp_path, 250)
    agreed, decided, flipped, kappa = agreement(rows)
    assert 0 < flipped < 60 and 60 < decided < 250 and 0.3 < agreed / decided < 0.7, "the rule is no oracle"
    kind, judge = judging(shorter)
    people = [Contest(r["row_id"], r["prompt"], r["chosen"], r["rejected"]) for r in rows]
    metrics = audit(Audit(pairs=250, least_agreement=0), judge, [], people, people, tmp_path / "c", judge.budget())
    assert metrics["audit.agreement"] == pytest.approx(agreed / decided) and metrics["audit.decided"] == decided
    assert metrics["audit.flips"] == pytest.approx(flipped / len(rows)) and metrics["audit.kappa"] == pytest.approx(
        kappa
    )
    assert kind.asked_for == 2 * len({(c.prompt, c.first, c.second) for c in people}), "each order once"
    with pytest.raises(StageError, match=f"it agrees with people on {agreed} of {decided} pairs"):
        audit(Audit(pairs=250, least_agreement=0.9), judge, [], [], people, tmp_path / "c", judge.budget())


def test_real_pairs_are_judged_and_become_pairs(tmp_path: Path, judging: Any) -> None:
    """Both responses of each human pair as samples: the judge's rule decides, not who labelled them."""
    rows = human_pairs(tmp_path, 60)
    _, decided, flipped, _ = agreement(rows)
    _, judge = judging(shorter)
    responses = {r["row_id"]: [r["chosen"], r["rejected"]] for r in rows}
    made, _, metrics = paired(
        tmp_path, responses, grader=NoGrader(), judge=judge, audit=Audit(pairs=12, least_agreement=0, most_flips=1)
    )
    assert len(made) == metrics["pairs"] == decided and metrics["judge.tie"] == flipped == len(rows) - decided
    assert metrics["judge.flips"] == pytest.approx(flipped / len(rows))
    assert all(worth(p["chosen"]) > worth(p["rejected"]) for p in made)
    best = {r["row_id"]: r["chosen"] for r in rows}
    assert {p["chosen"] == best[p["row_id"]] for p in made} == {True, False}
    people = sorted(rows, key=lambda r: r["row_id"])[:12]
    agreed, of, _, kappa = agreement(people)
    assert metrics["audit.agreement"] == pytest.approx(agreed / of) and metrics["audit.kappa"] == pytest.approx(kappa)


def test_spider_queries_are_judged_without_a_warehouse(tmp_path: Path, judging: Any) -> None:
    """All 20 databases, and a judge that is shown the reference: the question's own SQL is chosen over another's."""
    rows = rows_of(tmp_path, "spider/dev.json", "prompts", limit=80)

    def same(reference: str, a: str, b: str) -> str:
        right = [x.split() == reference.split() for x in (a, b)]
        return "C" if right[0] == right[1] else "A" if right[0] else "B"

    _, judge = judging(same)
    responses = {r["row_id"]: [rows[at - 1]["reference"], r["reference"]] for at, r in enumerate(rows)}
    made, _, metrics = paired(tmp_path, responses, grader=NoGrader(), judge=judge, audit=Audit(pairs=10))
    differ = {i for i, (a, b) in responses.items() if a.split() != b.split()}
    assert len({json.loads(r["meta"])["db_id"] for r in rows}) > 10
    assert {p["row_id"] for p in made} == differ and len(made) == len(differ) > 70
    assert all(p["chosen"] == responses[p["row_id"]][1] and p["chosen_id"].endswith("-1") for p in made)
    assert metrics["judge.flips"] == 0 and metrics["audit.nothing"] == 0 and "audit.agreement" not in metrics
