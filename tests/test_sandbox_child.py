"""The child that runs the queries: what it gives up, how it ends, and what becomes of its queries."""

import os
import signal
from pathlib import Path

import duckdb
import psutil
import pytest
from sandboxes import LIMITS

from align.grading import sandbox_worker
from align.grading.sandbox import Limits, Sandbox


def test_the_child_gives_everything_up(sandbox: Sandbox) -> None:
    assert sandbox._child is not None
    child = psutil.Process(sandbox._child.pid)
    assert set(child.environ()) <= {"TZ", "LANG", "LC_CTYPE"}
    if hasattr(child, "rlimit"):
        for limit in (psutil.RLIMIT_NOFILE, psutil.RLIMIT_FSIZE, psutil.RLIMIT_NPROC, psutil.RLIMIT_CORE):
            assert child.rlimit(limit) == (0, 0)
        space = child.rlimit(psutil.RLIMIT_AS)[1]
        assert 0 < space - child.memory_info().vms <= 3 * LIMITS.memory_mb << 20


def test_settings_are_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    con = duckdb.connect(":memory:")
    monkeypatch.setitem(sandbox_worker.SETTINGS, "threads", "1")  # set, but read back as a number
    with pytest.raises(RuntimeError, match="setting threads is 1, not '1'"):
        sandbox_worker.lock(con, 64)


@pytest.mark.parametrize("memory_mb", [32, 1000, 1500, 5000])
def test_memory_limits_read_back_rounded(memory_mb: int) -> None:
    con = duckdb.connect(":memory:")
    sandbox_worker.lock(con, memory_mb)
    with pytest.raises(duckdb.InvalidInputException, match="locked"):
        con.execute("SET threads = 2")


def test_waiting_has_a_deadline(warehouse: Path) -> None:
    """A query that uses no CPU time is ended by the clock."""
    with Sandbox(warehouse, Limits(deadline=1)) as box:
        asleep, after = box.run(["SELECT sleep_ms(100000)", "SELECT 1"])
    assert (asleep.status, asleep.detail, after.rows) == ("timeout", "more than 1 s", [[1]])


def test_a_child_that_ignores_its_timers_is_killed(warehouse: Path) -> None:
    with Sandbox(warehouse, Limits(deadline=1)) as box:
        assert box._child is not None
        box._child.send_signal(signal.SIGSTOP)
        stopped, after = box.run(["SELECT 1", "SELECT 2"])
    assert (stopped.status, stopped.detail, after.rows) == ("timeout", "more than 1 s", [[2]])


def test_a_crash_of_the_engine_is_a_result(warehouse: Path) -> None:
    with Sandbox(warehouse, LIMITS) as box:
        assert box._child is not None
        results = box.run(["SELECT 1", "SELECT sleep_ms(2000)", "SELECT 3"])
        first = next(results)
        box._child.send_signal(signal.SIGSEGV)
        second, third = results
        assert (first.rows, third.rows) == ([[1]], [[3]])
        assert second.status == "crash" and "SIGSEGV" in second.detail


def test_answers_that_nobody_took_are_not_given_to_others(warehouse: Path) -> None:
    with Sandbox(warehouse, LIMITS) as box:
        abandoned = box.run(["SELECT 1", "SELECT 2", "SELECT 3"])
        assert next(abandoned).rows == [[1]]
        del abandoned
        assert [r.rows for r in box.run(["SELECT 4"])] == [[[4]]]


def test_leaving_it_ends_the_child(warehouse: Path) -> None:
    with Sandbox(warehouse) as box:
        assert box._child is not None
        pid = box._child.pid
    assert not psutil.pid_exists(pid)


def test_a_child_without_parent_ends(warehouse: Path) -> None:
    with Sandbox(warehouse, LIMITS) as box:
        child = box._child
        assert child is not None and child.stdin is not None
        os.close(os.dup(child.stdin.fileno()))
        child.stdin.close()
        assert child.wait(10) == 0
        child.stdin = None
