"""The arithmetic of drawing tokens: counter-based random numbers, the inverse CDF, and a cache that grows in steps."""

from typing import Any

import numpy as np

from tasks.lib.text import digest

GROW = 32  # cache slots added at a time


def choose(logits: Any, u: Any, temperature: float, top_p: float) -> Any:
    """One token per row of logits [B, V]: the argmax at temperature 0, else the inverse CDF at u [B] in [0, 1).

    With top_p < 1 the distribution is cut to the smallest set of most likely tokens whose mass reaches top_p
    (Holtzman et al., 2020).
    """
    import torch

    if temperature == 0:
        return logits.argmax(-1)
    probs = torch.softmax(logits.float() / temperature, dim=-1)
    if top_p >= 1:
        cdf = probs.cumsum(-1)
        index = torch.searchsorted(cdf, (u.float() * cdf[:, -1])[:, None], right=True)[:, 0]
        return index.clamp(max=probs.shape[-1] - 1)
    width = min(64, probs.shape[-1])
    while True:
        top, ids = probs.topk(width, dim=-1)
        cdf = top.cumsum(-1)
        if width == probs.shape[-1] or bool((cdf[:, -1] >= top_p).all()):
            break
        width = min(width * 8, probs.shape[-1])
    inside = (cdf - top < top_p).sum(-1)
    mass = cdf.gather(1, inside[:, None] - 1)
    index = torch.searchsorted(cdf, u.float()[:, None] * mass, right=True)[:, 0]
    return ids.gather(1, torch.minimum(index, inside - 1)[:, None])[:, 0]


def uniform(keys: np.ndarray, step: int) -> np.ndarray:
    """Counter-based random numbers in [0, 1): a function of key and step (SplitMix64 of Steele et al., 2014)."""
    with np.errstate(over="ignore"):
        z = keys + np.uint64(step + 1) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)


def key(seed: int, prompt_id: str, index: int) -> int:
    """The 64-bit key of sample `index` of a prompt."""
    return int(digest(str(seed), prompt_id, str(index)), 16)


def new_cache(model: Any) -> Any:
    """An empty key/value cache; with plain attention one that grows in steps instead of being copied per token."""
    from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

    plain = DynamicCache(config=model.config)
    if not plain.layers or any(type(layer) is not DynamicLayer for layer in plain.layers):
        return plain
    return Cache(layers=[_growing_layer()() for _ in plain.layers])


def _growing_layer() -> Any:
    from transformers.cache_utils import DynamicLayer

    class GrowingLayer(DynamicLayer):
        """Keys and values are views into buffers with room for GROW more tokens."""

        room: tuple[Any, Any] | None = None

        def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
            keys, values = self.keys, self.values
            if keys is None or values is None:
                self.lazy_initialization(key_states, value_states)
                self.keys, self.values = key_states, value_states
                return key_states, value_states
            used, length = keys.shape[2], keys.shape[2] + key_states.shape[2]
            if self.room is None or self.room[0].shape[2] < length:
                shape = (*keys.shape[:2], length + GROW, keys.shape[3])
                self.room = (keys.new_empty(shape), values.new_empty(shape))
                self.room[0][:, :, :used] = keys
                self.room[1][:, :, :used] = values
            self.room[0][:, :, used:length] = key_states
            self.room[1][:, :, used:length] = value_states
            self.keys, self.values = self.room[0][:, :, :length], self.room[1][:, :, :length]
            return self.keys, self.values

        def batch_select_indices(self, indices: Any) -> None:
            super().batch_select_indices(indices)
            self.room = None

        def batch_repeat_interleave(self, repeats: int) -> None:
            super().batch_repeat_interleave(repeats)
            self.room = None

    return GrowingLayer
