"""How much GPU memory each stage needs, from the base's config.json alone: no weights are read, no GPU is touched.

Estimates of what is allocated at the peak, in bytes by part. What the parts are made of: memory_parameters for weights,
adapter, gradients and optimiser, memory_activations for training, memory_inference for drawing and scoring.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from align.errors import InputError
from align.models.arguments import LoraSettings, Training, share
from align.models.base import BaseConfig
from align.models.files import check_config
from align.models.memory_activations import Activations, shape_of
from align.models.memory_inference import DRAWN, SCORED, cache_bytes, drawing, forward
from align.models.memory_parameters import Architecture, Head, state_bytes

Load = Literal["sft", "reward", "dpo", "grpo", "sample", "score"]
"""What a stage puts on a GPU: a kind of training, drawing samples, or scoring them."""

Parts = dict[str, int]

CONTEXT = 600 << 20  # the CUDA context and cuBLAS workspaces
FRAGMENTS = 0.05  # share of the rest that the allocator loses to fragments
PROMPT = 512  # tokens of prompt that sampling and scoring are estimated for, where the context allows
TILE = (4096, 32768)  # tokens and vocabulary entries of a tile of trl's fused LM head
MOST = {"sample": DRAWN, "score": SCORED}  # rows of a batch that is auto, at most


@dataclass(frozen=True)
class Need:
    """What a stage loads and its settings; `tokens` is the length of what it scores."""

    load: Load
    config: Any
    tokens: int = 2 * PROMPT
    processes: int = 1
    """How many share a training, each on a GPU of its own."""
    split: bool = False
    """Whether each of them has a part of the weights only (fsdp)."""
    offload: bool = False
    """Whether what is split lies in the CPU's memory."""


@dataclass(frozen=True)
class Estimate:
    """Bytes by part at the peak, with their `total`, for the batch in `settings`; `fitting` is one that fits."""

    parts: Parts
    settings: Parts
    fits: bool | None = None
    fitting: Parts | None = field(default=None)
    """The largest micro-batch with its accumulation, or batch, that fits; None where none does, or no GPU is given."""


def estimates(base: BaseConfig, stages: Mapping[str, Need], gpu: int | None = None) -> dict[str, Estimate]:
    """Stage -> estimate. With the bytes of a GPU, whether it fits there, and if not, what does.

    A batch that is `auto` is the largest that fits on the GPU; without one, the least that the stage can do with.
    """
    # a reward model may be trained on another base than the pipeline's
    return {
        name: _fitted(Memory(_architecture(getattr(need.config, "base", None) or base), need), gpu)
        for name, need in stages.items()
    }


_KNOWN: dict[str, Architecture] = {}  # what was found out about one is kept with it


def _architecture(base: BaseConfig) -> Architecture:
    dtype = "bfloat16" if base.dtype == "auto" else base.dtype
    described = (_config(base), base.quantization == "nf4", dtype, base.attention, base.adapter == "none")
    return _KNOWN.setdefault(json.dumps(described, sort_keys=True), Architecture(*described))


def _fitted(memory: "Memory", gpu: int | None) -> Estimate:
    asked = memory.settings
    tries = memory.smaller(asked)
    if gpu is None:
        settings = asked if asked else tries[-1]
        return Estimate(memory.parts(settings), settings)
    fitting = next((s for s in (*([asked] if asked else []), *tries) if memory.parts(s)["total"] <= gpu), None)
    settings = asked or fitting or tries[-1]
    return Estimate(memory.parts(settings), settings, settings == fitting, fitting)


class Memory:
    """What one stage of a model takes, for any batch."""

    def __init__(self, model: Architecture, need: Need):
        self.model, self.need, self.config = model, need, need.config

    @cached_property
    def settings(self) -> Parts:
        """The batch that the settings ask for; none where it is auto."""
        if isinstance(self.config, Training):
            return {name: getattr(self.config, name) for name in BATCH}
        size = self.config.batch_size
        return {} if size == "auto" else {"batch_size": size}

    def smaller(self, asked: Parts) -> list[Parts]:
        """Other batches that do the same, the largest first. A training step keeps its number of rows."""
        if isinstance(self.config, Training):
            rows, times = (asked[name] for name in BATCH)
            tries = [(n, rows * times // n) for n in range(rows - 1, 0, -1) if rows * times % n == 0]
            return [dict(zip(BATCH, each, strict=True)) for each in tries if self._shared(*each)]
        least = getattr(self.config, "n", 1) or 1
        most = asked.get("batch_size", MOST[self.need.load] + 1) - 1
        return [{"batch_size": n} for n in range(most // least * least, 0, -least)] or [{"batch_size": least}]

    def parts(self, settings: Parts) -> Parts:
        """Bytes by part and their total."""
        if BATCH[0] in settings:
            found = self._training(self._shared(*settings.values()) or settings[BATCH[0]])
        else:
            found = self._inference(settings["batch_size"])
        found["overhead"] = CONTEXT + int(FRAGMENTS * sum(found.values()))
        return {**found, "total": sum(found.values())}

    def _shared(self, rows: int, passes: int) -> int | None:
        """Rows of a pass of one process, or None where the processes cannot share a step of so many."""
        try:
            return share(rows, passes, self.need.processes)[0]
        except InputError:
            return None

    @cached_property
    def _head(self) -> Head:
        return "reward" if self.need.load == "reward" and self.config.kind == "head" else "lm"

    @cached_property
    def _fixed(self) -> Parts:
        """What a training stage takes whatever its batch."""
        weights, trained = self.model.held(self.config.lora or LoraSettings(), self._head)
        adapter = 4 * sum(trained)
        found = {"weights": weights, "adapter": adapter}
        if self.model.full:  # what autocast makes of them is among the activations
            found = {"weights": weights + adapter}
        if getattr(self.config, "unpaired", False):  # KTO keeps a copy of the policy, DPO what it said of the pairs
            found["reference"] = self._itemsize * sum(trained) if self.model.full else adapter
        found |= {"gradients": adapter, "optimiser": state_bytes(self.config.optim, trained)}
        return self._split(found) if self.need.split and self.need.processes > 1 else found

    def _split(self, found: Parts) -> Parts:
        """One process's part; of the layers two are whole at a time, one that computes and one that is fetched."""
        parts = 0.0 if self.need.offload else 1 / self.need.processes
        own = found if self.model.full else {"weights": found["weights"]}  # an adapter is whole everywhere
        size = 4 if self.model.full else self._itemsize
        return {**found, **{n: int(b * parts) for n, b in own.items()}, "gathered": size * self._gathered}

    @cached_property
    def _gathered(self) -> int:
        """Weights that are put together at once: of two layers, and of what stands after the last."""
        import torch

        model = self.model.plain
        layers = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList)]
        of = [sum(p.numel() for p in layer.parameters()) for layer in max(layers, key=len, default=[])]
        return 2 * max(of, default=0) + int(model.get_output_embeddings().weight.numel())

    @cached_property
    def _activations(self) -> Activations:
        tokens, checkpointing = (
            min(self.config.max_length, self._context),
            self.config.gradient_checkpointing is not False,
        )
        return Activations(self.model, shape_of(self.config), tokens, self._head, checkpointing)

    def _training(self, rows: int) -> Parts:
        rows *= 2 if self.need.load in ("reward", "dpo") else 1  # pairs are two sequences
        found = dict(self._fixed)
        found["activations"] = self._activations.peak(rows)
        tokens = rows * self._activations.tokens
        # a matrix at a time is dequantised, and three of the widest gradients of a layer are there at once
        found["workspace"] = self._itemsize * (self._widest[0] * self.model.nf4 + 3 * tokens * self._widest[1])
        if self._head == "lm":
            tile = min(tokens, TILE[0]) * min(self._shape.vocab_size, TILE[1])
            found["logits"] = 2 * tile * self._itemsize + 4 * tokens * self._shape.hidden_size  # and its gradient
        return self._online(found) if self.need.load == "grpo" else found

    def _online(self, found: Parts) -> Parts:
        """With a plain copy that draws, and what the policy started from. Drawing and training take turns."""
        drawn = min(DRAWN, self.config.prompts * self.config.num_generations)
        draws = self._drawing(drawn, self.config.max_completion_length, self.config.num_generations)
        found |= {"start": found.get("adapter", found["weights"]), "sampler": draws.pop("weights")}
        return found | {"activations": max(found["activations"], sum(draws.values()))}

    def _inference(self, rows: int) -> Parts:
        if self.need.load == "score":
            weights = sum(p.numel() * p.element_size() for p in self.model.plain.parameters())
            tokens = min(self.need.tokens, self._context)
            return {"weights": weights, "activations": rows * forward(self._shape, tokens, self._itemsize)}
        return self._drawing(rows, self.config.max_new_tokens, self.config.n or 1)

    def _drawing(self, rows: int, new: int, n: int) -> Parts:
        """What drawing so many rows takes, of at most `new` tokens each, n of them to a prompt."""
        weights = sum(p.numel() * p.element_size() for p in self.model.plain.parameters())
        prompt = min(PROMPT, self._context)
        row = drawing(self._shape, self._cache, min(prompt + new, self._context), self._itemsize)
        read = -(-rows // n) * forward(self._shape, prompt, self._itemsize)
        found = {name: rows * size for name, size in row.items()}
        return {"weights": weights, **found, "activations": max(found["activations"], read)}

    @cached_property
    def _widest(self) -> tuple[int, int]:
        """Weights of the largest linear layer within the model, and numbers per token of the widest."""
        import torch

        head = self.model.plain.get_output_embeddings()
        linear = [m for m in self.model.plain.modules() if isinstance(m, torch.nn.Linear) and m is not head]
        return max((m.weight.numel() for m in linear), default=0), max((max(m.weight.shape) for m in linear), default=0)

    @cached_property
    def _cache(self) -> list[tuple[int, int | None]]:
        return cache_bytes(self.model.plain)

    @property
    def _shape(self) -> Any:
        return self.model.plain.config.get_text_config()

    @property
    def _itemsize(self) -> int:
        return int(self.model.plain.dtype.itemsize)

    @property
    def _context(self) -> int:
        return int(getattr(self._shape, "max_position_embeddings", 0) or 1 << 20)


BATCH = ("per_device_train_batch_size", "gradient_accumulation_steps")


def _config(base: BaseConfig) -> dict[str, Any]:
    """config.json of the base; of a Hub model only this file is fetched."""
    if base.path is not None:
        file = base.path / "config.json"
        if not file.is_file():
            raise InputError(f"{base.path} is not a model directory (it has no config.json).")
        return check_config(base.path)
    from huggingface_hub import hf_hub_download

    try:
        fetched = hf_hub_download(str(base.hub), "config.json", revision=base.revision)
    except Exception as error:
        raise InputError(f"config.json of {base.hub} at {base.revision} cannot be fetched: {error}") from error
    return check_config(Path(fetched).parent)
