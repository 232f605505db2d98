"""Sampling and scoring in several processes: each does its share of the rows, and all know what came of every row.

Processes are those that torchrun started (flows/ranks.py, or a launcher of the user's), each with the same arguments
and a device of its own. Alone, a process does everything, and nothing here touches torch.
"""

import os
from collections.abc import Sequence
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


def rank() -> int:
    """Which of the processes this is."""
    return int(os.environ.get("RANK", "0"))


def size() -> int:
    """How many there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def share(rows: Sequence[T]) -> list[T]:
    """The rows that fall to this process: every so-manieth, so that rows in the order of their lengths are shared
    evenly."""
    return list(rows[rank() :: size()])


def gather(found: T) -> list[T]:
    """What each process found, by rank. All processes have to call it, and in the same order."""
    if size() == 1:
        return [found]
    import torch.distributed as dist

    everyones: list[Any] = [None] * size()
    dist.all_gather_object(everyones, found, group=_group())
    return everyones


@cache
def _group() -> Any:
    """All processes, over the CPU: what is exchanged are texts and numbers, beside whatever group a training has."""
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("gloo")
    return dist.new_group(backend="gloo")
