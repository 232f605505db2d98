"""What drawing and scoring take of a device per row, and how many rows fit beside the model.

A draw does not depend on how many rows are drawn together, so a batch may be as large as the device allows.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from align.models.shards import gather

Batch = Annotated[int, Field(ge=1, le=1_000_000)] | Literal["auto"]
"""Rows of a batch, or what fits."""

DRAWN, SCORED = 256, 64  # rows of a batch that is auto: all of them on a CPU, at most so many on a GPU

HEADROOM = 0.9  # share of the free memory that is planned for; the allocator loses some to fragments


def free_bytes() -> int | None:
    """Bytes that this process can still allocate on its CUDA device; None where there is no such device."""
    import torch

    if not torch.cuda.is_available():
        return None
    kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return int(torch.cuda.mem_get_info()[0]) + int(kept)


def release() -> None:
    """Give back what nothing refers to any more: trainers and models refer to each other in cycles."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def rows_that_fit(batch_size: Batch, most: int, *, alike: bool = False) -> Callable[[float], int] | None:
    """How many rows that take so many bytes each make a batch; None where that does not depend on their bytes.

    It does where `batch_size` is auto and there is a CUDA device; then at most `most` are taken. `alike`: as many as
    fit on the fullest device of all processes.
    """
    free = free_bytes() if batch_size == "auto" else None
    if alike and free is not None:
        free = min(gather(free))
    return None if free is None else lambda row: max(1, min(most, int(HEADROOM * free / row)))


def batches(order: Sequence[int], rows_of: Callable[[int], int]) -> list[list[int]]:
    """`order` in runs, each of at most as many as `rows_of` allows with the last of it."""
    found: list[list[int]] = []
    for i in order:
        if not found or len(found[-1]) >= rows_of(i):
            found.append([])
        found[-1].append(i)
    return found


def cache_bytes(model: Any) -> list[tuple[int, int | None]]:
    """Per layer the bytes that one token of one row adds to the cache, and the tokens of its window where it has one.

    Asks the model itself, with one token; it may be one without storage (see memory_parameters).
    """
    import torch
    from transformers.cache_utils import DynamicCache

    cache = DynamicCache(config=model.config)
    ids = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    with torch.no_grad():
        model(input_ids=ids, past_key_values=cache, use_cache=True)
    layers: list[Any] = [layer for layer in cache.layers if getattr(layer, "keys", None) is not None]
    return [
        (sum(t.numel() * t.element_size() for t in (layer.keys, layer.values)), getattr(layer, "sliding_window", None))
        for layer in layers
    ]


def kv_cache(layers: list[tuple[int, int | None]], tokens: int) -> int:
    """Bytes of a row's cache over so many tokens, with what a fork takes: one layer at a time is there twice."""
    each = [size * min(tokens, window or tokens) for size, window in layers]
    return sum(each) + max(each, default=0)


def drawing(shape: Any, layers: list[tuple[int, int | None]], tokens: int, itemsize: int) -> dict[str, int]:
    """Bytes by part that a row of at most `tokens` tokens takes while it is drawn. `shape` is the text config."""
    heads = shape.num_attention_heads
    groups = heads // (getattr(shape, "num_key_value_heads", None) or heads)
    largest = max((size * min(tokens, window or tokens) for size, window in layers), default=0)
    return {
        "kv_cache": kv_cache(layers, tokens),
        "logits": shape.vocab_size * (itemsize + 3 * 4),  # probabilities, their sums, and the sums row by row, in fp32
        "activations": largest * (groups if groups > 1 else 0) + forward(shape, 1, itemsize),  # heads are written out
    }


def forward(shape: Any, tokens: int, itemsize: int) -> int:
    """Bytes that a forward pass without gradients holds at once for a row of so many tokens."""
    wide = getattr(shape, "intermediate_size", None) or 4 * shape.hidden_size
    mask = tokens * tokens * (1 + itemsize)
    return tokens * itemsize * (4 * shape.hidden_size + 3 * wide) + mask
