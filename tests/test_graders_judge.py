"""A judge behind a real HTTP server: its ratings, how it is asked, and how it fails."""

import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from typing import Any

import pytest
from endpoints import ChatHandler
from pydantic import ValidationError

from align.errors import StageError
from align.grading.grade import Item
from align.grading.graders import grade_all
from align.grading.judge import JudgeGrader, fill


class Judge(ChatHandler):
    """Rates by what the response says; `failures` counts down errors, `most` records how many asked at once."""

    failures: dict[str, int] = {}
    seen: list[dict[str, Any]] = []
    active = most = 0
    lock = threading.Lock()

    def do_POST(self) -> None:
        body = self.asked()
        text = body["messages"][0]["content"]
        with Judge.lock:
            Judge.seen.append({**body, "path": self.path, "key": self.headers.get("Authorization")})
            Judge.active += 1
            Judge.most = max(Judge.most, Judge.active)
            failing = next((k for k in Judge.failures if k in text and Judge.failures[k] > 0), None)
            if failing:
                Judge.failures[failing] -= 1
        threading.Event().wait(0.05)
        with Judge.lock:
            Judge.active -= 1
        if failing:
            return self.reply(400 if failing == "bad" else 503, {"error": {"message": f"{failing} thing"}})
        answer = {"great": "Fine.\nRating: [[10]]", "middling": "Was [[1]]. Rating: [[5.5]]", "odd": "Rating: [[99]]"}
        said = next((v for k, v in answer.items() if k in text), "I would rather not say.")
        return self.say(said)


@pytest.fixture
def judge() -> Iterator[JudgeGrader]:
    Judge.failures, Judge.seen, Judge.most = {}, [], 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield JudgeGrader(base_url=f"http://127.0.0.1:{server.server_port}/v1", model="j", concurrency=3, attempts=3)
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_judge_rates_and_what_it_does_not_rate_is_ungraded(
    judge: JudgeGrader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    responses = ["great", "middling", "odd", "mute"]
    grades = grade_all(judge, [Item(str(i), "Why?", r, "Because.") for i, r in enumerate(responses)])
    assert [(g.score, g.status) for g in grades] == [
        (1, "correct"), (0.5, "correct"), (None, "ungraded"), (None, "ungraded")]  # fmt: skip
    assert "outside" in grades[2].detail and "no rating" in grades[3].detail
    asked = Judge.seen[0]
    assert (asked["path"], asked["key"], asked["temperature"]) == ("/v1/chat/completions", "Bearer k", 0)
    assert "Why?" in asked["messages"][0]["content"] and "Because." in asked["messages"][0]["content"]


def test_a_judge_is_asked_a_few_at_a_time(judge: JudgeGrader) -> None:
    grade_all(judge, [Item(str(i), "?", "great") for i in range(12)])
    assert len(Judge.seen) == 12 and 1 < Judge.most <= 3


def test_passing_failures_are_retried(judge: JudgeGrader) -> None:
    Judge.failures = {"great": 2}
    assert [g.score for g in grade_all(judge, [Item("r", "?", "great")])] == [1]
    assert len(Judge.seen) == 3


def test_a_judge_that_keeps_failing_names_the_row(judge: JudgeGrader) -> None:
    Judge.failures = {"great": 99}
    with pytest.raises(StageError, match="failed for row r5.*great thing"):
        grade_all(judge, [Item("r5", "?", "great")])
    assert len(Judge.seen) == 3


def test_a_refused_request_is_not_retried(judge: JudgeGrader) -> None:
    Judge.failures = {"bad": 99}
    with pytest.raises(StageError, match="failed for row r5.*bad thing"):
        grade_all(judge, [Item("r5", "?", "bad")])
    assert len(Judge.seen) == 1


def test_no_server_is_an_error() -> None:
    grader = JudgeGrader(base_url="http://127.0.0.1:9/v1", model="j", attempts=1)
    with pytest.raises(StageError, match="The judge j at http://127.0.0.1:9/v1 failed for row r"):
        grade_all(grader, [Item("r", "?", "x")])


def test_what_is_filled_in_is_not_a_template() -> None:
    item = Item("r", "say {response}", "{reference} {0} {", "secret")
    assert fill("{prompt}|{response}|{{x}}", item) == "say {response}|{reference} {0} {|{{x}}"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"lowest": 5, "highest": 5}, "below"), ({"template": "hi"}, "response"), ({"pattern": r"\d+"}, "group")],
)
def test_a_judge_that_cannot_work_is_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        JudgeGrader(base_url="http://x", model="j", **settings)
