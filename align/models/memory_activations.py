"""What training keeps for the backward pass, by running the step on tensors that have shapes and no storage.

torch's FakeTensorMode runs the model's own code with trl's LM head and PEFT's layers, and autograd tells what it saves:
the figure follows the architecture, the adapter's dropout and the attention without a formula for any of them. It is
linear in the layers, where they are alike, and in the rows.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from align.models.arguments import Training
from align.models.memory_parameters import Architecture, Head


@dataclass(frozen=True)
class Activations:
    """Saved bytes of a training step over rows of `tokens` tokens each. `head` is what the model ends in."""

    architecture: Architecture
    config: Training
    tokens: int
    head: Head = "lm"

    def kept(self, rows: int, checkpointing: bool) -> int:
        """Bytes that are held at the peak: all layers in full; checkpointing keeps their inputs and one in full."""
        outside, layer, depth = self._parts(rows)
        if not checkpointing:
            return outside + layer * depth
        return outside + layer + depth * rows * self.tokens * self._stream

    @cached_property
    def _stream(self) -> int:
        """Bytes of a token in the residual stream, which is what a checkpoint holds."""
        model = self.architecture.empty(self.head)
        return int(model.config.get_text_config().hidden_size) * int(model.dtype.itemsize)

    def _parts(self, rows: int) -> tuple[int, int, int]:
        """Bytes outside of layers, of a layer (the mean), and how many layers there are."""
        (one, two), depth = self._linear, self._depth
        outside, layer = ((a + (rows - 1) * (b - a)) for a, b in zip(one, two, strict=True))
        return outside, layer, depth

    @cached_property
    def _linear(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Bytes outside of layers and of a layer, for one row and for two."""
        low, high = (1, 2) if self._alike else (1, self._depth)
        found = []
        for rows in (1, 2):
            few = saved(self.architecture.cut(low), self.config, rows, self.tokens, self.head)
            many = saved(self.architecture.cut(high), self.config, rows, self.tokens, self.head) if high > low else few
            layer = (many - few) // max(1, high - low)
            found.append((few - low * layer, layer))
        return found[0], found[1]

    @cached_property
    def _depth(self) -> int:
        return int(self.architecture.empty(self.head).config.get_text_config().num_hidden_layers)

    @cached_property
    def _alike(self) -> bool:
        """Whether the layers have the same weights and the same attention."""
        import torch

        model = self.architecture.empty(self.head)
        lists = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == self._depth]
        kinds = getattr(model.config.get_text_config(), "layer_types", None) or [None]
        shapes = {tuple((n, p.shape) for n, p in layer.named_parameters()) for layer in (lists[0] if lists else ())}
        return self._depth > 1 and len(shapes) == 1 and len(set(kinds)) == 1


def saved(architecture: Architecture, config: Training, rows: int, tokens: int, head: Head) -> int:
    """Bytes that autograd saves in the forward pass of a training step without checkpointing, parameters not counted."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from trl.trainer.utils import add_fused_lm_head

    model = architecture.adapted(config, head).train()
    if head == "lm":
        add_fused_lm_head(model.get_base_model())
    with FakeTensorMode() as mode:
        _give_shapes(model)
        ids = torch.zeros(rows, tokens, dtype=torch.long)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
        if head == "lm":
            inputs |= {"labels": ids, "fused_lm_head": True}
        half = torch.autocast("cpu", torch.bfloat16, enabled=architecture.dtype == "bfloat16")
        with half, storages(model) as found:
            model(**inputs)
        del mode
    return sum(found.values())


@contextmanager
def storages(model: Any) -> Iterator[dict[Any, int]]:
    """Collect the bytes of each storage that autograd saves, but for those of the model's own parameters."""
    import torch

    own = {p.untyped_storage()._cdata for p in model.parameters()}
    found: dict[Any, int] = {}
    held = []  # a storage that is freed would give its place to another

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage._cdata not in own and storage._cdata not in found:
            found[storage._cdata] = storage.nbytes()
            held.append(storage)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found


def _give_shapes(model: Any) -> None:
    """Put tensors of the mode that is on in place of the model's own. Ties stay."""
    import torch

    made: dict[int, Any] = {}
    for module in model.modules():
        for named in (module._parameters, module._buffers):
            for name, old in named.items():
                if old is not None and id(old) not in made:
                    new = torch.empty(old.shape, dtype=old.dtype)
                    parameter = isinstance(old, torch.nn.Parameter)
                    made[id(old)] = torch.nn.Parameter(new, old.requires_grad) if parameter else new
                if old is not None:
                    named[name] = made[id(old)]
