"""The rows of a batch that is drawn, and where their keys and values lie.

A row is a prompt and what was drawn after it. Rows join, read one token each per step, and continue, fork or leave; how
rows move is decided on the host, so that nothing waits for the device in between.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from transformers.cache_utils import DynamicLayer

GROW = 64  # tokens that the places of a batch are made longer by at a time
PREFILL = 16_384  # tokens of prompts that are read in one forward pass, padding included


def new_rows(model: Any, places: int) -> "Slots | Wave":
    """No rows yet, and room for `places`: with slots where every layer attends to all tokens, else as a wave."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    layers = DynamicCache(config=model.config).layers
    if layers and all(type(layer) is DynamicLayer for layer in layers):
        return Slots(model, places, len(layers))
    return Wave(model)


class Slots:
    """Rows in places of their own, each from token 0 on, so that rows of any age are one batch.

    Row i lies in place i of one buffer per layer, [places, heads, tokens, size]. The buffers are made once and become
    longer, one at a time, so that keys and values never take more than the places do, and one buffer.
    """

    open = True
    """Whether rows may join now."""

    def __init__(self, model: Any, places: int, layers: int):
        from transformers.cache_utils import Cache

        self.model, self.places = model, places
        self.lengths = np.zeros(0, dtype=np.int64)  # tokens of each row whose keys and values are there
        self.width = 0  # tokens of the longest row, this step's included
        self.index: tuple[torch.Tensor, torch.Tensor] | None = None  # (row, position) of this step's keys and values
        layer: Any = _slot_layer()
        self._layers = [layer(self) for _ in range(layers)]
        self._cache = Cache(layers=self._layers)

    def join(self, prompts: list[list[int]]) -> None:
        """Read prompts, without their last token, into the next places."""
        at = 0
        while at < len(prompts):
            size, longest = 1, len(prompts[at])
            while at + size < len(prompts):
                longest = max(longest, len(prompts[at + size]))
                if longest * (size + 1) > PREFILL:
                    break
                size += 1
            self._prefill(prompts[at : at + size])
            at += size

    def _prefill(self, prompts: list[list[int]]) -> None:
        import torch

        self.width, self.index = max(map(len, prompts)), None
        if self.width:
            # Padding on the right is behind every token that counts: causal attention needs no mask.
            ids = torch.tensor([p + [0] * (self.width - len(p)) for p in prompts]).to(self.model.device)
            self.model(input_ids=ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        self.lengths = np.append(self.lengths, [len(p) for p in prompts])

    def step(self, tokens: np.ndarray) -> "torch.Tensor":
        """Logits [R, V] after each row has read its next token [R]."""
        import torch

        self.width = int(self.lengths.max()) + 1
        table = np.stack([tokens, self.lengths, np.arange(len(tokens))])
        read, position, row = torch.from_numpy(table).to(self.model.device, non_blocking=True)
        mask = None
        if self.lengths.min() + 1 < self.width:
            mask = torch.arange(self.width, device=row.device) <= position[:, None]
        self.index = row, position
        logits = self.model(
            input_ids=read[:, None],
            attention_mask=mask,
            position_ids=position[:, None],
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        self.lengths = self.lengths + 1
        return logits[:, -1]

    def select(self, parents: np.ndarray) -> None:
        """Row i continues the old row parents[i]. Only rows that move are copied."""
        import torch

        moved = np.flatnonzero(parents != np.arange(len(parents)))
        self.lengths = self.lengths[parents]
        if not len(moved):
            return
        used = int(self.lengths[moved].max())
        table = torch.from_numpy(np.stack([moved, parents[moved]]))
        to, of = table.to(self.model.device, non_blocking=True)
        for layer in self._layers:
            layer.move(to, of, used)


def _slot_layer() -> "type[DynamicLayer]":
    import torch
    from transformers.cache_utils import DynamicLayer

    class SlotLayer(DynamicLayer):
        """One layer of Slots. New rows attend to themselves; a step attends to the first `width` tokens of all rows."""

        def __init__(self, slots: Slots):
            super().__init__()
            self.slots = slots
            self.buffers: list[torch.Tensor] = []

        def update(
            self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
        ) -> tuple[torch.Tensor, torch.Tensor]:
            new, slots = (key_states, value_states), self.slots
            first, width = len(slots.lengths), slots.width
            if not self.buffers or self.buffers[0].shape[2] < width:
                self._lengthen(new, first, -(-width // GROW) * GROW)
            if slots.index is None:
                for states, buffer in zip(new, self.buffers, strict=True):
                    buffer[first : first + len(states), :, :width] = states
                return key_states, value_states
            row, position = slots.index
            for states, buffer in zip(new, self.buffers, strict=True):
                buffer[row, :, position] = states[:, :, 0]
            keys, values = (buffer[:first, :, :width] for buffer in self.buffers)
            return keys, values

        def move(self, to: torch.Tensor, of: torch.Tensor, used: int) -> None:
            for buffer in self.buffers:
                buffer[to, :, :used] = buffer[of, :, :used]

        def get_seq_length(self) -> int:
            return 0 if self.slots.index is None else self.slots.width - 1

        def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
            return self.slots.width, 0

        def _lengthen(self, new: tuple[torch.Tensor, torch.Tensor], rows: int, length: int) -> None:
            """Buffers of `length` tokens; what masked positions hold must be finite, as 0 times it counts."""
            old = self.buffers or [states[:0] for states in new]
            self.buffers = []
            while old:
                states, have = new[len(self.buffers)], old.pop(0)
                buffer = states.new_zeros((self.slots.places, states.shape[1], length, states.shape[3]))
                buffer[:rows, :, : have.shape[2]] = have[:rows]
                self.buffers.append(buffer)
                del have

    return SlotLayer


class Wave:
    """Rows that begin together, for caches that take no row in between (sliding windows): padded on the left."""

    def __init__(self, model: Any):
        self.model = model
        self.rows = 0

    @property
    def open(self) -> bool:
        """Whether rows may join now."""
        return not self.rows

    def join(self, prompts: list[list[int]]) -> None:
        """Read prompts, without their last token."""
        import torch
        from transformers.cache_utils import DynamicCache

        self.rows, width = len(prompts), max(map(len, prompts))
        self._padded = any(len(p) < width for p in prompts)
        ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts], dtype=torch.long)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], dtype=torch.long)
        self._mask = mask.to(self.model.device)
        self._position = self._mask.sum(1, keepdim=True)
        self._cache = DynamicCache(config=self.model.config)
        if width:
            positions = (self._mask.cumsum(1) - 1).clamp(min=0)
            self._forward(ids.to(self.model.device), positions)

    def step(self, tokens: np.ndarray) -> "torch.Tensor":
        """Logits [R, V] after each row has read its next token [R]."""
        import torch

        self._mask = torch.cat([self._mask, self._mask.new_ones((self.rows, 1))], 1)
        logits = self._forward(torch.from_numpy(tokens)[:, None].to(self.model.device), self._position)
        self._position = self._position + 1
        return logits

    def select(self, parents: np.ndarray) -> None:
        """Row i continues the old row parents[i]."""
        import torch

        stay = np.array_equal(parents, np.arange(self.rows))
        self.rows = len(parents)
        if self.rows and not stay:
            index = torch.from_numpy(parents).to(self.model.device, non_blocking=True)
            self._cache.batch_select_indices(index)
            self._mask, self._position = self._mask[index], self._position[index]

    def _forward(self, ids: "torch.Tensor", positions: "torch.Tensor") -> "torch.Tensor":
        logits: torch.Tensor = self.model(
            input_ids=ids,
            attention_mask=self._mask if self._padded else None,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        return logits
