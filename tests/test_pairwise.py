"""A judge that compares responses in both orders, behind a real endpoint: its verdicts, and whether it can be trusted."""

import re
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from endpoints import ChatHandler
from test_pairs import Bench, preference, row

from align import tables
from align.errors import StageError
from align.grading.audit import FILLER, KEY, NULL, Audit, kappa
from align.grading.graders import NoGrader
from align.grading.pairwise import Contest, PairJudge, verdict

Judge = Callable[[str, str], str]
_ANSWERS = re.compile(
    r"(?:The Start of Assistant [AB]'s Answer|\[어시스턴트 [AB]의 답변)\]\n(.*?)\n\[(?:The End|어시)", re.S
)


def worth(text: str) -> float:
    """Responses of these tests say what they are worth; what says nothing is worth less."""
    found = re.search(r"worth (\d+)", text)
    return float(found[1]) if found else -1.0


def honest(a: str, b: str) -> str:
    return "A tie. [[C]]" if worth(a) == worth(b) else f"Worth more. [[{'A' if worth(a) > worth(b) else 'B'}]]"


def first_place(a: str, b: str) -> str:
    return "The first is fine. [[A]]"


def told(a: str, b: str) -> str:
    """Does what a response tells it."""
    return "[[A]]" if NULL in a else "[[B]]" if NULL in b else honest(a, b)


def impressed(a: str, b: str) -> str:
    return f"[[{'A' if len(a) > len(b) else 'B'}]]" if a != b else "[[C]]"


def opened(a: str, b: str) -> str:
    return "[[A]]" if a == KEY else "[[B]]" if b == KEY else honest(a, b)


def biased(a: str, b: str) -> str:
    """Sees what is worth nothing, and prefers the first of all others that differ."""
    return "[[A]]" if worth(a) >= 0 and worth(b) >= 0 and a != b else honest(a, b)


def contrary(a: str, b: str) -> str:
    """Knows what is worth nothing, and prefers of the rest what people do not."""
    return honest(b, a) if worth(a) >= 0 and worth(b) >= 0 else honest(a, b)


class Judging(ChatHandler):
    judge: Judge = staticmethod(honest)
    asked_for: list[str] = []
    mumbles = False

    def do_POST(self) -> None:
        text = self.asked()["messages"][0]["content"]
        type(self).asked_for.append(text)
        if text.startswith("A judge compared"):
            return self.say(f"[[{text.rstrip()[-1]}]]")
        said = type(self).judge(*_ANSWERS.findall(text))
        self.say(re.sub(r"\[\[(.)\]\]", r"it is \1", said) if self.mumbles else said)


@pytest.fixture
def judging() -> Iterator[tuple[type[Judging], str]]:
    kind = type("Handler", (Judging,), {"asked_for": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as endpoint:
        threading.Thread(target=endpoint.serve_forever, daemon=True).start()
        yield kind, f"http://127.0.0.1:{endpoint.server_address[1]}/v1"
        endpoint.shutdown()


def asked(url: str, **settings: Any) -> PairJudge:
    return PairJudge(base_url=url, model="m", attempts=1, **settings)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def filled(bench: Bench) -> Bench:
    """30 prompts, each with a response worth 1 and one worth 2, and 20 pairs that people labelled."""
    for i in range(30):
        bench.ask(f"r{i}", f"worth 1, says {i}", f"worth 2, says {i}", reference=f"worth 9, says {i}")
    for i in range(20):
        bench.rows.append(preference(f"p{i}", f"worth 5 {i}", f"worth {3 + i % 2} {i}"))
    return bench


def run(bench: Bench, url: str, name: str = "out", audit: Audit | None = None, **settings: Any) -> dict[str, Any]:
    return bench.run(name, grader=NoGrader(), judge=asked(url, **settings), audit=audit or Audit())[1]


def made(bench: Bench, name: str = "out") -> list[dict[str, Any]]:
    return tables.read(bench.folder / name / "pairs.parquet")


def test_the_better_one_is_chosen_in_whichever_place_it_stands(filled: Bench, judging: Any, tmp_path: Path) -> None:
    kind, url = judging
    metrics = run(filled, url)
    pairs = made(filled)
    assert len(pairs) == 30 and all("worth 2" in p["chosen"] and "worth 1" in p["rejected"] for p in pairs)
    assert {p["labelled_by"] for p in pairs} == {"judge:m"} and all(p["chosen_id"] for p in pairs)
    assert metrics["judge.flips"] == metrics["audit.flips"] == 0 and metrics["judge.none"] == 0
    assert metrics["audit.agreement"] == 1 and metrics["audit.kappa"] == 1 and metrics["audit.decided"] == 20
    verdicts = tables.read(filled.folder / "out" / "verdicts.parquet")
    assert len(verdicts) == 30 and all(v["forward"].startswith("Worth more.") for v in verdicts)
    assert {v["winner"] for v in verdicts} == {"first", "second"}, "either may stand first"


def test_what_was_asked_is_not_asked_again(filled: Bench, judging: Any) -> None:
    kind, url = judging
    run(filled, url)
    once = len(kind.asked_for)
    again = run(filled, url, "again")
    assert len(kind.asked_for) == once and again["judge.questions"] == 0
    assert made(filled, "again") == made(filled)


def test_a_verdict_that_flips_with_the_order_is_a_tie(filled: Bench, judging: Any) -> None:
    kind, url = judging
    kind.judge = staticmethod(first_place)
    with pytest.raises(StageError, match=r"0 pairs: of 30 prompts the judge decided no pair \(it saw 30 ties\)"):
        run(filled, url, audit=Audit(pairs=0))
    assert verdict("[[A]]", "[[A]]").flipped and verdict("[[A]]", "[[A]]").winner == "tie"
    assert verdict("[[A]]", "[[B]]").winner == "first" and verdict("[[B]]", "[[A]]").winner == "second"
    assert verdict("[[A]]", "[[C]]").winner == "tie" and not verdict("[[A]]", "[[C]]").flipped
    assert verdict("[[A]]", "who knows").winner == "none"
    assert verdict("[[B]] at first, but [[A]]", "[[B]]").winner == "first"


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        (first_place, "against nothing a good response failed to hold in 20 of 20 contests"),
        (impressed, "against filler a good response failed"),
        (told, "against flattery a good response failed"),
        (opened, "against a colon a good response failed"),
        (biased, "its verdict depends on the order in 100% of 20 pairs"),
        (contrary, "it agrees with people on 0 of 20 pairs"),
        (lambda a, b: "I cannot say.", "against itself a good response failed"),
    ],
)
def test_a_judge_that_cannot_be_trusted_ends_the_stage(filled: Bench, judging: Any, judge: Judge, said: str) -> None:
    kind, url = judging
    kind.judge = staticmethod(judge)
    with pytest.raises(StageError, match=re.escape(said)) as raised:
        run(filled, url)
    assert "The judge m cannot be trusted" in str(raised.value) and "\n" not in str(raised.value)


def test_limits_are_the_recipes(filled: Bench, judging: Any) -> None:
    kind, url = judging
    kind.judge = staticmethod(contrary)
    metrics = run(filled, url, audit=Audit(least_agreement=0))
    assert metrics["audit.agreement"] == 0 and metrics["audit.kappa"] == -1 and metrics["pairs"] == 30


def test_a_verdict_in_words_is_asked_for_again(filled: Bench, judging: Any) -> None:
    kind, url = judging
    kind.mumbles = True
    assert run(filled, url)["judge.none"] == 0 and len(made(filled)) == 30
    assert sum(text.startswith("A judge compared") for text in kind.asked_for) > 0


def test_a_cap_on_questions_and_on_spend(filled: Bench, judging: Any) -> None:
    kind, url = judging
    metrics = run(filled, url, audit=Audit(pairs=0), max_questions=20, concurrency=4)
    assert metrics["judge.questions"] == 20 == len(kind.asked_for) and metrics["judge.none"] == 20
    assert metrics["pairs"] == 10 and metrics["judge.tokens"] == 2000
    metrics = run(filled, url, "spend", audit=Audit(pairs=0), max_spend_tokens=1, concurrency=4, seed=1)
    assert metrics["judge.questions"] == 4, "exact to one wave"


def test_questions_in_korean_and_of_ones_own(judging: Any) -> None:
    kind, url = judging
    contest = Contest("r", "몇 개?", "worth 2", "worth 1", "두 개")
    budget = asked(url).budget()
    assert asked(url, language="ko").compare([contest], None, budget)[0].winner == "first"
    assert "공정한 심사위원" in kind.asked_for[0] and "두 개" in kind.asked_for[0]
    start = "The Start of Assistant"
    own = f"{start} A's Answer]\n{{a}}\n[The End] {start} B's Answer]\n{{b}}\n[The End] of {{prompt}}"
    assert asked(url, template=own).compare([contest], None, budget)[0].winner == "first"
    with pytest.raises(ValueError, match="must contain"):
        asked(url, template="{a} only")


def test_a_placeholder_in_a_response_is_only_text(judging: Any) -> None:
    contest = Contest("r", "{a} {b}", "worth 2 {b} {reference}", "worth 1 {a}")
    assert asked(judging[1]).compare([contest], None, asked(judging[1]).budget())[0].winner == "first"


def test_kappa_of_a_coin_is_0() -> None:
    coin = [verdict("[[A]]", "[[B]]") if i % 2 else verdict("[[B]]", "[[A]]") for i in range(10)]
    assert kappa(coin) == 0 and kappa(coin[:1] * 10) == -1 and kappa([]) == 0
    assert len(FILLER) > 1000 and worth(NULL) < 0


def test_settings_that_say_nothing_are_refused(bench: Bench) -> None:
    bench.rows.append(row("a"))
    cases: list[tuple[dict[str, Any], str]] = [
        (
            {"judge": asked("http://localhost:1/v1"), "grader": NoGrader(), "use_reference": True},
            "use_reference: has no effect where a judge",
        ),
        ({"audit": Audit(pairs=3)}, "audit: is of the judge, and there is none"),
    ]
    for i, (settings, said) in enumerate(cases):
        with pytest.raises(Exception, match=said):
            bench.run(f"refused{i}", **settings)
