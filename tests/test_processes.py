"""A process per stage, and whose turn it is. Real processes throughout."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import psutil
import pytest
from served import alive, wait_for

from align.config import Config
from align.errors import InputError, StageError
from flows import child
from flows.compute import Compute
from flows.processes import PEAK, ROOT, Processes
from flows.slots import Slots
from flows.work import Work
from storage.store import Store


class Ask(Config):
    what: str = ""


def tell(config: Ask, out: Path, **inputs: Any) -> dict[str, float | int | str]:
    """Does what it is asked."""
    if config.what == "pid":
        print("here", os.getpid())
        with redirect_stdout(StringIO()) as caught:
            print("caught")
        assert caught.getvalue() == "caught\n"
        logging.getLogger("align.test").warning("mind the gap")
        return {
            "pid": os.getpid(),
            "visible": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
            "cwd": str(Path.cwd()),
            **inputs,
        }
    if config.what == "memory":
        return {"bytes": len(bytearray(os.urandom(1)) * 300_000_000)}
    if config.what == "input":
        raise InputError("rows.jsonl:3: no.")
    if config.what == "error":
        raise KeyError("absent")
    if config.what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if config.what == "exit":
        os._exit(3)
    if config.what == "torch":
        import torch

        a = torch.randn(256, 256, requires_grad=True)
        (a @ a).sum().backward()
        return {"threads": torch.get_num_threads()}
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (out / "pids").write_text(f"{os.getpid()} {child.pid}")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)
    return {}


@pytest.fixture(scope="module")
def processes():
    with Processes(forward=True) as running:
        yield running


def ask(processes: Processes, what: str, out: Path, **options):
    return processes.run(tell, Ask(what=what), out, options.pop("inputs", {}), **options)


def test_each_stage_has_a_process_with_what_it_is_given(processes, tmp_path, capsys, caplog):
    first, second = (
        ask(processes, "pid", tmp_path, inputs={"n": n}, environment={"CUDA_VISIBLE_DEVICES": str(n)}) for n in (1, 2)
    )
    assert len({first["pid"], second["pid"], os.getpid()}) == 3
    assert (first["n"], first["visible"], second["visible"], first["cwd"]) == (1, "1", "2", str(Path.cwd()))
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    said = capsys.readouterr().err
    assert f"here {first['pid']}" in said and "caught" not in said
    assert "mind the gap" in caplog.text
    assert not alive(first["pid"])


def test_memory_is_measured_and_gone(processes, tmp_path):
    small = ask(processes, "pid", tmp_path)[PEAK]
    assert ask(processes, "memory", tmp_path)[PEAK] >= small + 280
    assert ask(processes, "pid", tmp_path)[PEAK] < small + 100


def test_errors_come_back_as_they_are(processes, tmp_path):
    with pytest.raises(InputError, match=r"^rows.jsonl:3: no\.$"):
        ask(processes, "input", tmp_path)
    with pytest.raises(Exception, match="absent") as raised:
        ask(processes, "error", tmp_path)
    assert type(raised.value).__name__ == "KeyError" and "in tell" in raised.value.__notes__[0]
    with pytest.raises(StageError, match="status -9; the machine may have run out of memory"):
        ask(processes, "die", tmp_path)
    with pytest.raises(StageError, match="status 3"):
        ask(processes, "exit", tmp_path)


def test_torch_works_after_the_fork(processes, tmp_path):
    assert min(ask(processes, "torch", tmp_path)["threads"] for _ in range(3)) >= 1


def test_a_stage_that_only_reads_is_not_shared_with_other_nodes(tmp_path, monkeypatch):
    """In a group of two nodes it would wait for the other."""
    monkeypatch.setenv("PET_NNODES", "2")
    with Processes() as alone:
        work = Work(
            "ingest", tell, Ask(what="pid"), Store(tmp_path), inputs={}, files={}, recipe="r", run="r", refresh=False,
            order=0, memory=None, slots=Slots(gpus=()), compute=Compute(processes=2), processes=alone,
            tell=lambda work: None, stopped=lambda: False,
        )  # fmt: skip
        done = work()
    assert done is not None
    attempt, ran = done
    assert ran and attempt.metrics["pid"] != os.getpid()


def test_a_child_is_ended_after_a_signal_came_in_the_middle_of_looking_at_it(tmp_path):
    """Then the lock of its Popen is never released."""
    running = child.spawn("http.server", "0", env=os.environ, log=tmp_path / "log")
    running._waitpid_lock.acquire()  # type: ignore[attr-defined]
    begun = time.monotonic()
    child.stop(running)
    assert time.monotonic() - begun < 10 and not alive(running.pid)


def asleep(processes: Processes, out: Path) -> tuple[threading.Thread, list[BaseException], list[int]]:
    """The thread that waits for a stage that does not end, what it will have raised, and the stage and its child."""
    ended: list[BaseException] = []

    def call() -> None:
        try:
            ask(processes, "sleep", out)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    pids = wait_for(lambda: (out / "pids").exists() and (out / "pids").read_text().split())
    return thread, ended, [int(pid) for pid in pids]


def test_closing_ends_a_stage_and_what_it_started(tmp_path):
    running = Processes()
    thread, ended, pids = asleep(running, tmp_path)
    running.close()
    thread.join(30)
    assert isinstance(ended[0], KeyboardInterrupt)
    wait_for(lambda: not any(alive(pid) for pid in pids))  # though it ignores SIGTERM


def test_a_server_that_was_killed_is_one_sentence(tmp_path):
    with Processes() as running, pytest.raises(StageError, match="could not be started or was lost"):
        running._server.process.kill()
        running._server.process.wait()
        ask(running, "tell", tmp_path, models=False)


def test_a_killed_caller_takes_its_stages_with_it(tmp_path):
    code = (
        "import sys; sys.path.insert(0, 'tests'); from pathlib import Path; from flows.processes import Processes; "
        "from test_processes import Ask, tell; "
        "Processes().run(tell, Ask(what='sleep'), Path(sys.argv[1]), {})"
    )
    caller = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT)
    pids = wait_for(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text().split())
    caller.kill()
    caller.wait()
    wait_for(lambda: not any(alive(int(pid)) for pid in pids))


def test_a_stage_ends_with_the_process_that_watches_it(processes, tmp_path):
    """Which the kernel may choose where memory runs out."""
    thread, ended, (stage, started) = asleep(processes, tmp_path)
    os.kill(psutil.Process(stage).ppid(), signal.SIGKILL)
    thread.join(30)
    assert isinstance(ended[0], StageError) and "status -9" in str(ended[0])
    wait_for(lambda: not alive(stage))
    os.kill(started, signal.SIGKILL)


def in_turn(
    slots: Slots, wanted: Sequence[tuple[int, int, int]], hold: float = 0.05
) -> tuple[list[int], int, list[dict]]:
    """Run these (order, gpu, memory) at once: the order in which they began, the most at once, their environments."""
    began: list[int] = []
    given: list[dict] = []
    now, most, lock = 0, 0, threading.Lock()

    def go(order: int, gpu: int, memory: int) -> None:
        nonlocal now, most
        with slots.turn(order, gpu, memory) as environment:
            with lock:
                began.append(order)
                given.append(environment)
                now += 1
                most = max(most, now)
            time.sleep(hold)
            with lock:
                now -= 1

    with ExitStack() as places:  # all are taken until everybody waits
        places.enter_context(slots.turn(-1, 99, 0))
        if not slots._alone:
            places.enter_context(slots.turn(-1, 0, 0))
        threads = [threading.Thread(target=go, args=w) for w in wanted]
        for thread in threads:
            thread.start()
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    return began, most, given


@pytest.mark.parametrize("gpus", [(), ("0",)])
def test_on_one_device_or_none_stages_take_turns_in_order(gpus):
    wanted = [(3, True, 0), (1, False, 0), (2, True, 0), (0, False, 0)]
    began, most, given = in_turn(Slots(gpus), wanted)
    assert (began, most) == ([0, 1, 2, 3], 1)
    assert given == [{}, {}, *([{"CUDA_VISIBLE_DEVICES": g} for g in gpus] * 2 or [{}, {}])]


def test_where_all_take_turns_an_earlier_stage_that_is_not_ready_yet_is_waited_for():
    ended = [False, False]
    slots = Slots((), earlier=lambda order: not all(ended[:order]))
    began: list[int] = []

    def go(order: int, after: float) -> None:
        time.sleep(after)
        with slots.turn(order, False, 0):
            began.append(order)
        ended[order] = True

    threads = [threading.Thread(target=go, args=a) for a in ((0, 0.3), (1, 0.0))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert began == [0, 1]


def test_on_two_devices_two_stages_and_one_beside_them(tmp_path):
    wanted = [(order, order % 2 == 0, 0) for order in range(8)]
    began, most, given = in_turn(Slots(("0", "1")), wanted, hold=0.3)
    assert most == 3
    assert [o for o in began if o % 2] == [1, 3, 5, 7] and set(began[:3]) == {0, 1, 2}
    assert {g.get("CUDA_VISIBLE_DEVICES") for g in given} == {"0", "1", None}


def test_a_stage_waits_for_memory_but_never_for_ever():
    began, most, _ = in_turn(Slots(("0", "1"), free=lambda: 10), [(0, True, 50), (1, True, 50)], hold=0.3)
    assert (began, most) == ([0, 1], 1)


def test_a_stage_may_have_several_devices():
    wanted = [(0, 1, 0), (1, 2, 0), (2, 1, 0), (3, 8, 0)]
    began, most, given = in_turn(Slots(("0", "1", "2")), wanted, hold=0.3)
    assert began == [0, 1, 2, 3] and most == 2
    assert sorted(len(e["CUDA_VISIBLE_DEVICES"].split(",")) for e in given) == [1, 1, 2, 3]


def test_who_waits_for_a_turn_goes_on_when_the_run_is_over() -> None:
    """Else a run in which an earlier stage never began would wait for ever."""
    over = threading.Event()
    slots = Slots(gpus=(), earlier=lambda order: order > 0, stopped=over.is_set)
    gone: list[int] = []

    def wait() -> None:
        with slots.turn(1, 0):
            gone.append(1)

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    waiting.join(0.5)
    assert not gone
    over.set()
    waiting.join(5)
    assert gone == [1]


def test_the_stores_files_are_not_kept_open_by_stages(tmp_path, processes):
    """A lock that a stage inherited would outlive the process that took it."""
    store = Store(tmp_path / "s")
    with store.computing("k"):
        assert ask(processes, "pid", tmp_path)
    with store.computing("k"):
        pass
