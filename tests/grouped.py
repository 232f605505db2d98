"""What the processes of a test's group do. Light: each of them imports this."""

import os
from pathlib import Path
from typing import Any

from align.config import Config
from align.errors import InputError
from align.models.shards import rank


class Call(Config):
    """What a rank is to do."""

    what: str = ""


def doing(config: Call, out: Path) -> dict[str, Any]:
    """Meet the others, unless this is a rank that fails or ends before."""
    import torch.distributed as dist

    (out.parent / f"{rank()}.pid").write_text(str(os.getpid()))
    dist.init_process_group("gloo")
    if rank() == 1 and config.what == "fail":
        raise InputError("row 7 is wrong")
    if rank() == 1 and config.what == "exit":
        os._exit(7)
    dist.barrier()
    return {"world": dist.get_world_size(), "rank": rank()}
