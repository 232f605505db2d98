"""Several processes of one stage: how they share its rows and, with the strategy fsdp, the weights of its model.

Processes are those that torchrun started (flows/ranks.py, or a launcher of the user's), each with the same arguments
and a device of its own. In sampling and scoring each does its share of the rows, and all know what came of every row.
Alone, a process does everything, and nothing here touches torch.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, Literal, TypeVar

T = TypeVar("T")

Strategy = Literal["ddp", "fsdp"]

_STRATEGY: ContextVar[tuple[Strategy, bool]] = ContextVar("strategy", default=("ddp", False))


@contextmanager
def strategy(name: Strategy, offload: bool = False) -> Iterator[None]:
    """In this block models that are trained are split as `name` says; see flows.compute.Compute."""
    token = _STRATEGY.set((name, offload))
    try:
        yield
    finally:
        _STRATEGY.reset(token)


def rank() -> int:
    """Which of the processes this is."""
    return int(os.environ.get("RANK", "0"))


def size() -> int:
    """How many there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def splitting() -> dict[str, Any]:
    """What from_pretrained needs to read this process's part of every weight only; nothing where weights stay whole."""
    name, offload = _STRATEGY.get()
    if name == "ddp" or size() == 1:
        return {}
    from transformers.distributed import DistributedConfig

    return {"distributed_config": DistributedConfig(fsdp_size=size(), fsdp_cpu_offload=offload)}


def is_split(model: Any) -> bool:
    """Whether each process holds a part of the model's weights: all have to run it together, and equally often."""
    if size() == 1:
        return False
    from torch.distributed.tensor import DTensor

    return any(isinstance(p, DTensor) for p in model.parameters())


def reshard(model: Any) -> None:
    """Let each process hold its part of the weights again. A forward pass without gradients leaves the last layers
    whole, and an optimiser that is made then, or a file that is written, would have copies of them."""
    if is_split(model):
        from torch.distributed.fsdp import FSDPModule

        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


def local(tensor: Any) -> Any:
    """What of a tensor this process holds: all of it, where it is not split."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def share(rows: Sequence[T], model: Any = None) -> list[T]:
    """The rows that fall to this process: every so-manieth, so that rows in the order of their lengths are shared
    evenly; all, where `model` is split."""
    return list(rows) if model is not None and is_split(model) else list(rows[rank() :: size()])


def gather(found: T) -> list[T]:
    """What each process found, by rank. All processes have to call it, and in the same order."""
    if size() == 1:
        return [found]
    import torch.distributed as dist

    everyones: list[Any] = [None] * size()
    dist.all_gather_object(everyones, found, group=_group())
    return everyones


def of_first(value: T) -> T:
    """What `value` is in the first process. All have to call it; each goes on when all have."""
    return gather(value)[0]


@cache
def _group() -> Any:
    """All processes, over the CPU: what is exchanged are texts and numbers, beside whatever group a training has."""
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("gloo")
    return dist.new_group(backend="gloo")
