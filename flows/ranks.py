"""One stage in several processes at once, as torch.distributed knows them: started, watched and ended together.

The stage's own process calls `spread`; torchrun starts the ranks, `python -m flows.ranks FOLDER`. Each calls the stage
with the same arguments. Rank 0 writes the artifact and says what comes of it; the others write to a directory that is
thrown away. Over several nodes (flows/nodes.py) torchrun's own variables say how many there are and where the first is.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from align.config import Metrics
from align.errors import StageError
from align.models.shards import rank, strategy
from align.parent import end_with_parent
from align.whole import write
from flows import asked
from flows.compute import Compute
from storage.store import Store

CALLS, CALL = "ranks", "call"
GRACE = 3.0  # seconds that the others have when one has failed
_LOOK = 0.1


def spread(
    function: Callable[..., Metrics],
    config: Any,
    out: Path,
    inputs: Mapping[str, Any],
    processes: int,
    compute: Compute | None = None,
) -> Metrics:
    """`function(config, out, **inputs)` in so many processes of one process group; returns what rank 0 returns. They
    share a training as `compute` says.

    Raises what the first rank raised that failed, an AlignError as it is; StageError where a rank just ended.
    """
    with _folder(out) as folder:
        asked.ask(folder / CALL, function, config, out, inputs, processes, compute or Compute())
        started = torchrun(folder, processes)
        gone: list[str] = []
        try:
            gone = _wait(started, folder)
        finally:
            end(started, folder)
        if (answer := folder / "done-0").exists() and not started.returncode:
            return asked.answered(answer)
        raise _error(folder, started.returncode, gone)


@contextmanager
def _folder(out: Path) -> Iterator[Path]:
    """Where the ranks meet: for several nodes beside the draft `out`, in the store that all of them see."""
    if nodes() > 1:
        with Store(out.parent.parent).draft(CALLS) as folder:
            yield folder
    else:
        with tempfile.TemporaryDirectory(prefix=CALLS) as name:
            yield Path(name)


def nodes() -> int:
    """On how many machines a stage runs, by torchrun's variable."""
    return int(os.environ.get("PET_NNODES", "1"))


def torchrun(folder: Path, processes: int) -> "subprocess.Popen[bytes]":
    """Start this machine's ranks of what is called in `folder`; torchrun reads PET_NNODES and its kin by itself."""
    alone = ["--standalone"] if nodes() == 1 else []
    with (folder / f"log-{socket.gethostname()}-{os.getpid()}").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *alone, "--nproc_per_node", str(processes),
             "--monitor-interval", str(5 * _LOOK), "-m", "flows.ranks", str(folder)],  # so that who ended first is seen
            stdout=log, stderr=None if sys.stderr.isatty() else sys.stderr.fileno(),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )  # fmt: skip


def _wait(started: "subprocess.Popen[bytes]", folder: Path) -> list[str]:
    """Wait until all have ended, or one has failed and the others had their grace. Returns who ended without a word."""
    deadline: float | None = None
    gone: list[str] = []
    while started.poll() is None:
        if deadline is None and (any(folder.glob("failed-*")) or _gone(folder)):
            deadline, gone = time.monotonic() + GRACE, _gone(folder)
        if deadline is not None and time.monotonic() > deadline:
            break  # a rank that waits for one that is gone hears no signal
        time.sleep(_LOOK)
    return gone if gone or any(folder.glob("failed-*")) else _gone(folder)


def _gone(folder: Path) -> list[str]:
    here = _here(folder)
    silent = [r for r in here if not any((folder / f"{end}-{r}").exists() for end in ("done", "failed"))]
    return [r for r in silent if not _alive(here[r])]


def _here(folder: Path) -> dict[str, int]:
    """The processes of the ranks on this machine, by rank."""
    told = {file.name.removeprefix("pid-"): file.read_text().split() for file in folder.glob("pid-*")}
    return {rank: int(pid) for rank, (host, pid) in told.items() if host == socket.gethostname()}


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def end(started: "subprocess.Popen[bytes]", folder: Path) -> None:
    """End torchrun and this machine's ranks."""
    if started.poll() is None:
        started.kill()
    started.wait()
    for pid in _here(folder).values():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + GRACE
    while any(map(_alive, _here(folder).values())) and time.monotonic() < deadline:
        time.sleep(0.01)  # a signal is sent, not obeyed, when kill returns


def _error(folder: Path, code: int, gone: list[str]) -> Exception:
    if gone:  # what the others say is only that they lost it
        who = f"Process {gone[0]}" if len(gone) == 1 else f"Processes {' and '.join(sorted(gone))}"
        return StageError(f"{who} of the stage ended without a word; the machine may have run out of memory.")
    failed = sorted(folder.glob("failed-*"), key=lambda p: p.stat().st_mtime_ns)
    if not failed:
        return StageError(f"The processes of the stage ended with status {code}.")
    return asked.failed(failed[0], failed[0].name.replace("failed-", "Process "))


def _run(folder: Path) -> None:
    end_with_parent()  # without torchrun nobody would end it
    me = rank()
    write(folder / f"pid-{me}", f"{socket.gethostname()} {os.getpid()}".encode())
    call = asked.read(folder / CALL)
    out = call.out
    if me:
        sys.stderr = sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 (progress is told once)
        out = folder / f"out-{me}"
        out.mkdir()
    try:
        _device()
        function, config, inputs = call.call()
        with strategy(call.compute.strategy, call.compute.offload):
            metrics = function(config, out, **inputs)
        asked.answer(folder / f"done-{me}", metrics)
    except BaseException as error:
        asked.fail(folder / f"failed-{me}", error)
        raise SystemExit(1) from None


def _device() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


if __name__ == "__main__":
    _run(Path(sys.argv[1]))
