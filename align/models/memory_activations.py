"""What training keeps for the backward pass, by running the step on tensors that have shapes and no storage.

torch's FakeTensorMode runs the model's own code with trl's LM head and PEFT's layers, forward and backward, and
autograd tells what it saves: the figure follows the architecture, the adapter's dropout, the attention and
checkpointing without a formula for any of them. It is linear in the layers, where they are alike, and in the rows.
"""

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from align.models.arguments import LoraSettings, Training
from align.models.memory_parameters import Architecture, Head


@dataclass(frozen=True)
class Activations:
    """Saved bytes of a training step over rows of `tokens` tokens each. `head` is what the model ends in."""

    architecture: Architecture
    lora: LoraSettings
    tokens: int
    head: Head = "lm"
    checkpointing: bool = False

    def peak(self, rows: int) -> int:
        """Bytes that are held at once at most."""
        one, two = self._of_one_and_two
        return one + (rows - 1) * (two - one)

    @cached_property
    def _of_one_and_two(self) -> tuple[int, int]:
        """Bytes for one row and for two."""
        found = [self._whole(rows) for rows in (1, 2)]
        return found[0], found[1]

    def _whole(self, rows: int) -> int:
        if not self._alike:
            return self._saved(self._depth, rows)
        two, three = self._saved(2, rows), self._saved(3, rows)
        return two + (self._depth - 2) * (three - two)

    def _saved(self, layers: int, rows: int) -> int:
        model = self.architecture.cut(layers)
        return saved(model, self.lora, rows, self.tokens, self.head, self.checkpointing)

    @cached_property
    def _depth(self) -> int:
        return int(self.architecture.plain.config.get_text_config().num_hidden_layers)

    @cached_property
    def _alike(self) -> bool:
        """Whether the layers have the same weights and the same attention, and are more than three."""
        import torch

        model = self.architecture.plain
        lists = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == self._depth]
        kinds = getattr(model.config.get_text_config(), "layer_types", None) or [None]
        shapes = {tuple((n, p.shape) for n, p in layer.named_parameters()) for layer in (lists[0] if lists else ())}
        return self._depth > 3 and len(shapes) == 1 and len(set(kinds)) == 1


@cache
def saved(
    architecture: Architecture, lora: LoraSettings, rows: int, tokens: int, head: Head, checkpointing: bool
) -> int:
    """The most bytes that autograd holds at once in a training step, parameters not counted."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from trl.trainer.utils import add_fused_lm_head

    model = architecture.adapted(lora, head).train()
    if head == "lm":
        add_fused_lm_head(model if architecture.full else model.get_base_model())
    if checkpointing:  # the variant that tells autograd what it keeps; the usual one keeps the same
        model.gradient_checkpointing_enable({"use_reentrant": True, "preserve_rng_state": False})
        model.enable_input_require_grads()
    with FakeTensorMode():
        _give_shapes(model)
        ids = torch.zeros(rows, tokens, dtype=torch.long)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
        if head == "lm":
            inputs |= {"labels": ids, "fused_lm_head": True}
        half = torch.autocast("cpu", torch.bfloat16, enabled=architecture.dtype == "bfloat16")
        with saving(model) as held:
            with half:
                output = model(**inputs)
                loss = output.loss if head == "lm" else output.logits.float().mean()
            if checkpointing:
                loss.backward()
    return held.peak


def shape_of(config: Training) -> LoraSettings:
    """The adapter's settings, without dropout where trl's trainer turns it off, as those of reward and DPO do."""
    import trl

    lora = config.lora or LoraSettings()
    off = config.extra.get("disable_dropout", getattr(getattr(trl, config.TRL), "disable_dropout", False))
    return lora.model_copy(update={"lora_dropout": 0.0}) if off else lora


class Held:
    """A tensor that autograd saves, for as long as it does."""

    def __init__(self, tensor: Any):
        self.tensor = tensor


class Saved:
    """Bytes of the storages that autograd holds now (`live`) and held at most (`peak`), but for those of `known`."""

    def __init__(self, known: Iterable[Any]):
        self.known = {t.untyped_storage()._cdata for t in known}
        self.holders: Counter[int] = Counter()
        self.live = self.peak = 0

    def pack(self, tensor: Any) -> Held:
        """What autograd keeps in place of a tensor."""
        storage = tensor.untyped_storage()
        held, place, size = Held(tensor), storage._cdata, storage.nbytes()
        if place not in self.known:
            self.live += 0 if self.holders[place] else size
            self.peak = max(self.peak, self.live)
            self.holders[place] += 1
            weakref.finalize(held, self._let_go, place, size)
        return held

    def _let_go(self, place: int, size: int) -> None:
        self.holders[place] -= 1
        self.live -= 0 if self.holders[place] else size


@contextmanager
def saving(model: Any) -> Iterator[Saved]:
    """Watch what autograd saves; a model's parameters are there anyway."""
    import torch

    saved = Saved(model.parameters())
    with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda held: held.tensor):
        yield saved


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
