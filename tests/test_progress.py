"""Progress: lines in a log, a bar on a terminal that leaves nothing behind."""

import io
import sys

import pytest

from align import progress
from align.progress import Progress, track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the time is, to be set."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_now_and_then(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(40, "asking") as shown:
        for _ in range(4):
            clock[0] += progress.EVERY / 2 + 1
            shown.advance(10)
    told = capsys.readouterr()
    assert told.err == "  asking: 20 of 40\n  asking: 40 of 40\n" and told.out == ""


def test_quick_work_says_nothing(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(range(5), "counting")) == [0, 1, 2, 3, 4]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("total, told", [(None, "1 of ?"), (3, "1 of 3")])
def test_what_has_no_length_may_be_given_one(
    clock: list[float], capsys: pytest.CaptureFixture[str], total: int | None, told: str
) -> None:
    for _ in track(iter("abc"), "reading", total):
        clock[0] += progress.EVERY + 1
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["all", "break", "error"])
def test_a_terminal_gets_a_bar_that_is_taken_away(monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    try:
        for i in track(range(5), "choosing rows"):
            assert sys.stderr is not screen, "what is printed meanwhile goes above the bar"
            if i == 2 and ending == "break":
                break
            if i == 2 and ending == "error":
                raise ValueError
    except ValueError:
        pass
    assert "choosing rows" in screen.getvalue() and screen.getvalue().count("\x1b[?25l") == 1
    assert screen.getvalue().count("\x1b[?25h") == 1, "the cursor is shown again"
    assert sys.stderr is screen


def test_bars_within_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    for _ in track(range(2), "outer"):
        assert list(track(range(3), "inner")) == [0, 1, 2]
    assert sys.stderr is screen and screen.getvalue().count("\x1b[?25h") >= 1
