"""Whose turn it is: as many stages that want a GPU at once as there are GPUs, one other beside them.

With one GPU or none, all take turns. Those that wait go in the order of the DAG.
"""

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path

UNKNOWN = 4_000  # MB that a stage is taken to need which has never run here
_LOOK = 0.2  # seconds between looks at the memory and at what else has ended


@cache
def devices() -> tuple[str, ...]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them. No library that touches one is loaded."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return tuple(name.strip() for name in given.split(",") if name.strip() not in ("", "-1"))
    if shutil.which("nvidia-smi") is None:
        return ()
    done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    lines = [line for line in done.stdout.splitlines() if line.startswith("GPU ")] if done.returncode == 0 else []
    return tuple(str(i) for i in range(len(lines)))


def free_memory() -> int:
    """MB of memory that a new process may take; a large number where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) // 1000
    except (OSError, StopIteration):
        return 1 << 30


Lend = Callable[[int, Sequence[str], Callable[[], bool]], AbstractContextManager[Sequence[str]]]
"""Called with how many devices a stage wants, those that its own run has free, and whether the run is stopped: which it
may use, held against other processes."""


def unshared(wanted: int, free: Sequence[str], stopped: Callable[[], bool]) -> AbstractContextManager[Sequence[str]]:
    """No other process is asked."""
    return nullcontext(free)


class Slots:
    """Places on this machine."""

    def __init__(
        self,
        gpus: tuple[str, ...] | None = None,
        free: Callable[[], int] = free_memory,
        earlier: Callable[[int], bool] = lambda order: False,
        stopped: Callable[[], bool] = lambda: False,
        lend: Lend = unshared,
    ):
        """`earlier` says whether a stage before that place in the DAG has not ended: taking turns, it goes first.

        Where the run is `stopped` nobody waits any more, and nobody may begin either: whoever has a turn then asks.
        """
        self._gpus = list(devices() if gpus is None else gpus)
        self._all = len(self._gpus)
        self._alone = self._all < 2
        self._free, self._earlier, self._stopped, self._lend = free, earlier, stopped, lend
        self._changed = threading.Condition()
        self._waiting: list[tuple[int, int]] = []
        self._running = 0
        self._beside = False  # whether a stage that wants no GPU is running

    @contextmanager
    def turn(self, order: int, gpus: int, memory: int | None = None) -> Iterator[dict[str, str]]:
        """Wait for a place and hold it; yields the environment of what runs there.

        `order` is the stage's place in the DAG, `gpus` how many it wants where there are any, `memory` what it needs of
        this machine's in MB: beside others it starts only where so much is free.
        """
        wanted, gpus = gpus, min(gpus, self._all)
        me = (order, gpus)
        with self._changed:
            self._waiting.append(me)
            try:
                while not self._stopped() and not self._may_go(me, UNKNOWN if memory is None else memory):
                    self._changed.wait(_LOOK)
            finally:
                self._waiting.remove(me)
            self._running += 1
            held, self._gpus = self._gpus[:gpus], self._gpus[gpus:]
            self._beside |= not held
        try:
            with self._lend(wanted, held, self._stopped) as lent:
                yield {"CUDA_VISIBLE_DEVICES": ",".join(lent)} if lent else {}
        finally:
            with self._changed:
                self._running -= 1
                if not held:
                    self._beside = False
                self._gpus = held + self._gpus
                self._changed.notify_all()

    def _may_go(self, me: tuple[int, int], memory: int) -> bool:
        if self._running == 0:
            return me == min(self._waiting) and not (self._alone and self._earlier(me[0]))
        if self._alone or me != min(w for w in self._waiting if bool(w[1]) == bool(me[1])):
            return False
        room = len(self._gpus) >= me[1] if me[1] else not self._beside
        return room and self._free() >= memory
