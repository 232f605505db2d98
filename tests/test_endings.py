"""Runs that lose Prefect's server or are told to end: real processes and signals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import warm
from served import ALIGN, PATIENCE, TINY, alive, descendants, next_line, own_environment, wait_for

from flows import server
from storage.runs import history, stages
from storage.store import Store
from storage.upkeep import verify


def running(store: Path, *words: str) -> subprocess.Popen:
    """A typed run of the tiny recipe up to where sft is at work."""
    command = [*ALIGN, "run", str(TINY), "--store", str(store), *words]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=own_environment()
    )
    return at_work(process, store)


def at_work(process: Any, store: Path) -> Any:
    wait_for(lambda: list((store / "tmp").glob("sft-*/")) or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    return process


def served_run(folder: Path, *words: str) -> tuple[server.Server, warm.Command]:
    """A run at work, and the server that it uses."""
    up, store = server.start(folder / "prefect"), folder / "store"
    env = own_environment(**server.settings(folder / "prefect"), **up.clients, PREFECT_CLIENT_MAX_RETRIES="0")
    return up, at_work(warm.Command("run", str(TINY), "--store", str(store), *words, env=env), store)


def test_a_run_outlives_its_server(tmp_path):
    """The stage at work when the server is killed is kept, and nothing is done twice, though everything is refreshed."""
    up, process = served_run(tmp_path, "--select", "+sample", "--refresh")
    up.process.kill()
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    said = [line for line in err.splitlines() if line.startswith("align: ")]
    assert len(said) == 1 and "its UI lost this run" in said[0] and "Traceback" not in err and "Error" not in err, err
    assert "4 stages ran" in out
    store = Store(tmp_path / "store")
    (run,) = history(store)
    names = ["ingest", "filter", "sft", "sample"]
    assert run["status"] == "done" and [(s["stage"], s["status"]) for s in stages(store, run["run_id"])] == [
        (name, "ran") for name in names
    ]
    assert sorted(attempt.stage for attempt in store.attempts()) == sorted(names)
    up.stop()


@pytest.mark.parametrize("how", ["stopped", "started again"])
def test_a_server_that_comes_back_is_used_again(tmp_path, how):
    """It is away for longer than a run waits for it: 15 s, without the two more tries that there are elsewhere. What it
    was told meanwhile may be lost to its UI, and nothing else."""
    up, process = served_run(tmp_path, "--select", "+sft", "--set", "sft.num_train_epochs=4")
    if how == "stopped":
        up.process.send_signal(signal.SIGSTOP)
        time.sleep(20)
        up.process.send_signal(signal.SIGCONT)
    else:
        up.process.kill()
        up.process.wait()
        up = server.start(tmp_path / "prefect", int(up.ui.rpartition(":")[2]), known=up.login)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and "Traceback" not in err and "Error" not in err, err
    assert len([line for line in err.splitlines() if line.startswith("align: ")]) <= 1, err
    store = Store(tmp_path / "store")
    assert sorted(attempt.stage for attempt in store.attempts()) == ["filter", "ingest", "sft"]
    env = own_environment(**server.settings(tmp_path / "prefect"), **up.clients)
    again = ["run", str(TINY), "--store", str(store.root), "--select", "ingest", "--refresh"]
    done = warm.align(*again, env=env, timeout=PATIENCE)
    assert done.returncode == 0 and "lost" not in done.stderr, done.stderr
    assert [run["status"] for run in history(store)] == ["done", "done"]
    assert not [wrong for _, wrong in verify(store) if wrong]
    up.stop()


def test_a_stage_that_fails_without_a_server_says_why(tmp_path):
    up, process = served_run(
        tmp_path, "--select", "+pairs", "--set", "pairs.use_reference=false", "--set", "sample.temperature=1.0e-6"
    )
    up.process.kill()
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, err
    said = [line for line in err.splitlines() if line.startswith("align: ")]
    assert "its UI lost this run" in said[0] and said[1].startswith("align: pairs: ") and "resumes" in said[2], err
    store = Store(tmp_path / "store")
    (run,) = history(store)
    assert run["status"] == "failed"
    assert [s["status"] for s in stages(store, run["run_id"])] == [*["ran"] * 4, "failed"]
    up.stop()


def test_a_server_that_is_not_there_is_one_sentence(tmp_path):
    env = own_environment(PREFECT_API_URL="http://127.0.0.1:1/api")
    command = [*ALIGN, "run", str(TINY), "--store", str(tmp_path), "--select", "ingest"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=PATIENCE)
    assert done.returncode == 1 and "http://127.0.0.1:1/api does not answer" in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 2 and history(Store(tmp_path)) == []


@pytest.fixture(scope="module")
def filtered(tmp_path_factory) -> Path:
    """A store in which sft is next, by a run for which an empty PREFECT_API_URL was no server."""
    store = tmp_path_factory.mktemp("filtered")
    command = [*ALIGN, "run", str(TINY), "--store", str(store), "--select", "+filter"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, env=own_environment(PREFECT_API_URL="")
    )
    assert done.returncode == 0, done.stderr
    return store


def test_no_process_stays_after_a_run(filtered):
    def of_this_store(process: psutil.Process) -> bool:
        try:
            return str(filtered) in " ".join([*process.cmdline(), *process.environ().values()])
        except psutil.Error:
            return False

    assert not [p for p in psutil.process_iter() if p.pid != os.getpid() and of_this_store(p)]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGQUIT"])
def test_signals_end_a_run_like_ctrl_c(filtered, name):
    process = running(filtered, "--select", "+sft", "--set", "sft.num_train_epochs=500")
    children = descendants(process.pid)
    assert children
    process.send_signal(signal.Signals[name])
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signal.Signals[name], err
    assert err.splitlines()[-1] == "align: interrupted; the same command resumes." and "Traceback" not in err
    assert history(Store(filtered))[-1]["status"] == "interrupted"
    assert not list((filtered / "tmp").glob("sft-*")) and not [pid for pid in children if alive(pid)]


SLEEPER = """
import signal, sys, time
if sys.argv[1] == "ignored": signal.signal(signal.SIGHUP, signal.SIG_IGN)
from flows import ending
try:
    with ending.told():
        try:
            print("ready", flush=True)
            sys.stdin.readline()
        finally:
            print("cleaning", flush=True)
            sys.stdin.readline()
            print("clean", flush=True)
except ending.Told as told:
    print(told, flush=True)
"""


def test_a_second_signal_does_not_stop_the_cleaning(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", SLEEPER, "caught"], stdin=-1, stdout=-1, text=True)
    assert next_line(process) == "ready\n"
    process.send_signal(signal.SIGHUP)
    assert next_line(process) == "cleaning\n"
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT):
        process.send_signal(number)
    assert process.communicate("\n")[0] == "clean\nSIGHUP\n" and process.returncode == 0


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGQUIT"])
@pytest.mark.parametrize("flow", ["", "signal.signal(signal.SIGTERM, signal.default_int_handler); ending.listen()"])
def test_a_signal_in_an_import_is_heard_after_it(tmp_path, name, flow):
    """A library that swallows everything while it is imported does not swallow the signal."""
    (tmp_path / "swallowing.py").write_text(
        "import sys\nprint('importing', flush=True)\n"
        "try:\n    sys.stdin.readline()\nexcept BaseException:\n    print('swallowed', flush=True)\n"
        "print('imported', flush=True)\n"
    )
    code = (
        "import signal, sys, time; sys.path.append(sys.argv[1])\nfrom flows import ending\n"
        f"try:\n    with ending.told():\n        {flow or 'pass'}\n        import swallowing\n        time.sleep(60)\n"
        "        print('slept', flush=True)\nexcept ending.Told as told: print(told, flush=True)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=-1, stdout=-1, text=True)
    assert next_line(process) == "importing\n"
    process.send_signal(signal.Signals[name])
    with pytest.raises(subprocess.TimeoutExpired):  # the import goes on
        process.wait(1)
    assert process.communicate("\n")[0] == f"imported\n{name}\n" and process.returncode == 0


def test_what_nohup_ignores_stays_ignored():
    process = subprocess.Popen([sys.executable, "-c", SLEEPER, "ignored"], stdin=-1, stdout=-1, text=True)
    assert next_line(process) == "ready\n"
    process.send_signal(signal.SIGHUP)
    assert process.communicate("\n\n")[0] == "cleaning\nclean\n" and process.returncode == 0
