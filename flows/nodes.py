"""`align join`: this machine takes part in the stages of a run that was started on another.

Every node has torchrun's variables (PET_NNODES, PET_NODE_RANK, PET_MASTER_ADDR, PET_MASTER_PORT), the same installation
and the same store on a shared file system. The first runs `align run`, the others this. What is to be done is read from
the store's tmp folder, where the first puts each call.
"""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from align.errors import InputError
from flows import asked
from flows.ranks import CALL, CALLS, end, nodes, torchrun
from storage.store import Store

_LOOK = 0.2


def join(store: Store, told: Callable[[str], None]) -> None:
    """Take part until KeyboardInterrupt. Raises InputError where torchrun's variables do not say that this is a node
    after the first."""
    if nodes() < 2 or os.environ.get("PET_NODE_RANK", "0") == "0":
        raise InputError("align join needs PET_NNODES of 2 or more, and PET_NODE_RANK of 1 or more, as torchrun does.")
    done: set[Path] = set()
    told(f"node {os.environ['PET_NODE_RANK']} of {nodes()} waits for calls in {store.root}")
    while True:
        for call in (store.root / "tmp").glob(f"{CALLS}-*/{CALL}"):
            if call.parent not in done:
                done.add(call.parent)
                told(f"{call.parent.name} begins")
                _take_part(call)
                told(f"{call.parent.name} ended")
        time.sleep(_LOOK)


def _take_part(call: Path) -> None:
    started: subprocess.Popen[bytes] | None = None
    try:
        started = torchrun(call.parent, asked.read(call).processes)
        while call.exists() and started.poll() is None:  # the first node removes the folder when it has its answer
            time.sleep(_LOOK)
    except FileNotFoundError:  # it ended before this one began
        pass
    finally:
        if started:
            end(started, call.parent)
