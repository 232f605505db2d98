"""What draws responses: the settings of a draw, the protocol of an engine, and work kept per draw.

To add an engine: a module with a class that has this protocol, and a name in ENGINES.
"""

import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import pyarrow as pa
from pydantic import Field, field_validator

from align.config import Config, Seed
from align.digests import file_digest
from align.errors import InputError
from align.kept import Kept, code_of, key
from align.models.base import BaseConfig, identity
from align.models.device import device
from align.models.memory_inference import Batch
from align.models.servers import Server
from align.models.shards import gather, share
from align.models.tools import Message
from align.models.trained import files
from align.text import digest

ENGINES = {
    "transformers": "align.models.generate:Sampler",
    "vllm": "align.models.served:Served",
    "openai": "align.models.served:Served",
}
KEEP = 30.0  # seconds after which what was drawn meanwhile is kept, so that a killed stage goes on from there


class Sampling(Config):
    """Settings of drawing responses."""

    n: int = Field(default=8, ge=1, le=100_000)
    """Samples per prompt."""
    temperature: float = Field(default=0.8, ge=0)
    """Softmax temperature; 0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus: draw from the most likely tokens that hold this much of the mass (Holtzman et al., 2020)."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Longest response in tokens."""
    batch_size: Batch = "auto"
    """Sequences that are drawn together; auto is 256, on a GPU what fits of them. No draw depends on it."""
    seed: Seed = 0
    """Seed, also of which prompts a limit takes; sample i of a prompt depends on it, the prompt and i alone."""
    engine: Literal["transformers"] | Server = "transformers"
    """What draws: transformers, in the stage itself, or servers: vllm, or a mapping as in docs/engines.md."""

    @field_validator("engine", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) and value != "transformers" else value

    def contradictions(self) -> Iterator[str]:
        if self.temperature == 0 and self.top_p < 1:
            yield "top_p: has no effect at temperature 0, where always the likeliest token is taken; leave it out."

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules of the engine: part of what a draw depends on."""
        return (ENGINES[self.drawn_by].partition(":")[0],)

    @property
    def drawn_by(self) -> str:
        """The engine's name in ENGINES."""
        return self.engine if isinstance(self.engine, str) else self.engine.kind

    @property
    def sampling(self) -> "Sampling":
        """These settings without those of a stage that has more."""
        values = {name: getattr(self, name) for name in Sampling.model_fields}
        return Sampling(**values | {"n": max(1, self.n)})

    def greedy(self) -> "Sampling":
        """One sample per prompt, always the likeliest token."""
        return self.sampling.model_copy(update={"n": 1, "temperature": 0.0, "top_p": 1.0})


@dataclass(frozen=True)
class Prompt:
    """A conversation that waits for its next turn."""

    row_id: str
    messages: list[Message]


@dataclass(frozen=True)
class Sample:
    """A response that was drawn."""

    row_id: str
    sample_id: str
    sample_index: int
    text: str
    finish_reason: str
    """stop: the end-of-turn token was drawn; truncated: the token limit or the context ended it."""
    n_tokens: int
    """Tokens drawn, the end-of-turn token among them."""
    reasoning: str | None = None
    """What stood in the template's reasoning block before the response; None where there is none."""
    logp: float | None = field(default=None, compare=False)
    """Summed log-probability of the drawn tokens in nats, at temperature 1; None where the engine does not tell. Its
    last digits depend on which samples were drawn together, as the sample itself does not."""


Done = Callable[[Sequence[Sample]], None]


def nothing(samples: Sequence[Sample]) -> None:
    """What is done with finished samples where nobody asks for them."""


class Engine(Protocol):
    """A policy ready to draw from."""

    def draw(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        *,
        first: int = 0,
        label: str = "sampling",
        too_long: list[str] | None = None,
        done: Done = nothing,
    ) -> list[Sample]:
        """Samples `first` to n - 1 of every prompt, in the order of the prompts.

        A prompt that leaves no room in the model's context is appended to `too_long` and has no samples; without
        `too_long` it raises InputError. `done` is told of samples as they are finished, in any order.
        """
        ...

    def log_probabilities(self, prompts: Sequence[Prompt], texts: Sequence[str], batch_size: int = 64) -> list[float]:
        """Summed log-probability in nats of each text and the end of its turn, as the answer to its prompt."""
        ...

    def close(self) -> None:
        """Give back what it holds beside this process's memory."""
        ...


def open_engine(sampling: Sampling, base: BaseConfig, adapter: Path | None) -> Engine:
    """The engine that the settings name, with base plus adapter."""
    module, _, member = ENGINES[sampling.drawn_by].partition(":")
    more = () if isinstance(sampling.engine, str) else (sampling.engine,)
    engine: Engine = getattr(import_module(module), member)(base, adapter, *more)
    return engine


Open = Callable[[Sampling, BaseConfig, Path | None], Engine]
_COLUMNS = {
    "text": pa.string(),
    "finish_reason": pa.string(),
    "n_tokens": pa.int32(),
    "reasoning": pa.string(),
    "logp": pa.float32(),
}
_NO_ROOM = "no room"


class Policy:
    """Base plus adapter, drawn from through an engine that is opened at the first draw that is not kept. Leaving it as
    a context closes the engine."""

    def __init__(self, base: BaseConfig, adapter: Path | None, cache: Path | None, open_: Open = open_engine):
        self._base, self._adapter, self._open = base, adapter, open_
        self._engines: dict[str, Engine] = {}
        weights = _weights(adapter) if adapter else ""
        code = code_of(Path(__file__).parent)
        facts = [*sorted(identity(base).items()), base.dtype, device(), weights, code]
        self._name, self._cache = hashlib.sha256(repr(facts).encode()).hexdigest()[:24], cache
        self._kept = Kept(self.folder("draws"), _COLUMNS)

    def folder(self, kind: str) -> Path | None:
        """Where work of a kind is kept that depends on this policy; None where none is."""
        return self._cache / kind / self._name if self._cache else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give the engines back; the next draw opens them again."""
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()

    def engine(self, sampling: Sampling) -> Engine:
        """The opened engine."""
        name = sampling.drawn_by
        if name not in self._engines:
            self._engines[name] = self._open(sampling, self._base, self._adapter)
        return self._engines[name]

    def draw(self, prompts: Sequence[Prompt], sampling: Sampling, *, label: str, too_long: list[str]) -> list[Sample]:
        """n samples of every prompt in the order of the prompts, drawing only what is not kept from earlier runs."""
        known = self._kept.read()
        keys = {p.row_id: [_key(p, sampling, i) for i in range(sampling.n)] for p in prompts}
        missing: dict[int, list[Prompt]] = defaultdict(list)  # the first sample that is not known -> prompts
        have = [next((i for i, k in enumerate(keys[p.row_id]) if k not in known), sampling.n) for p in prompts]
        # Others may add to what is kept between the looks of two processes, which have to draw the same.
        for p, first in zip(prompts, map(min, zip(*gather(have), strict=True)), strict=True):
            if first < sampling.n:
                missing[first].append(p)
        for first, todo in sorted(missing.items()):
            no_room: list[str] = []
            keeping = _Keeping(self._kept, keys)
            if mine := share(todo):
                engine = self.engine(sampling)
                engine.draw(mine, sampling, first=first, label=label, too_long=no_room, done=keeping.add)
            keeping.add_without_room(no_room)
            for theirs in gather(keeping.close()):
                known |= theirs
        found = []
        for p in prompts:
            for i, k in enumerate(keys[p.row_id]):
                text, reason, n_tokens, reasoning, logp = known[k]
                if text is None:
                    too_long.append(p.row_id)
                    break
                found.append(sample_of(p.row_id, i, text, reason, n_tokens, reasoning, logp))
        return found


def with_room(prompts: Sequence[Prompt], lengths: Sequence[int], context: int, too_long: list[str] | None) -> list[int]:
    """Positions of the prompts, of so many tokens each, that leave room in the context; the others are dealt with as
    Engine.draw says."""
    long = [p.row_id for p, n in zip(prompts, lengths, strict=True) if n >= context]
    if long and too_long is None:
        raise InputError(f"{len(long)} prompts fill the model's {context} tokens of context, such as {long[0]}.")
    if too_long is not None:
        too_long.extend(long)
    return [i for i, n in enumerate(lengths) if n < context]


class _Keeping:
    """What is drawn, kept every KEEP seconds and at the end. `keys` are those of a row's samples."""

    def __init__(self, kept: Kept, keys: Mapping[str, Sequence[bytes]]):
        self._kept, self._keys, self._last = kept, keys, time.monotonic()
        self._all: dict[bytes, tuple[Any, ...]] = {}
        self._fresh: dict[bytes, tuple[Any, ...]] = {}

    def add(self, samples: Sequence[Sample]) -> None:
        for s in samples:
            self._fresh[self._keys[s.row_id][s.sample_index]] = (
                s.text,
                s.finish_reason,
                s.n_tokens,
                s.reasoning,
                s.logp,
            )
        if time.monotonic() - self._last >= KEEP:
            self.close()

    def add_without_room(self, row_ids: Sequence[str]) -> None:
        self._fresh |= {k: (None, _NO_ROOM, 0, None, None) for row_id in row_ids for k in self._keys[row_id]}

    def close(self) -> dict[bytes, tuple[Any, ...]]:
        """Keep what is not kept yet; all that came."""
        self._kept.add(self._fresh)
        self._all |= self._fresh
        self._fresh, self._last = {}, time.monotonic()
        return self._all


def sample_of(
    row_id: str,
    index: int,
    text: str,
    reason: str,
    n_tokens: int,
    reasoning: str | None = None,
    logp: float | None = None,
) -> Sample:
    """A sample with its id."""
    return Sample(row_id, digest(row_id, str(index), text, reason), index, text, reason, int(n_tokens), reasoning, logp)


def _key(prompt: Prompt, sampling: Sampling, index: int) -> bytes:
    settings = sampling.model_dump(exclude={"n", "batch_size"}) | {"engine": sampling.drawn_by}
    settings |= {"seed": 0} if sampling.temperature == 0 else {}
    return key(prompt.row_id, json.dumps(prompt.messages), json.dumps(settings, sort_keys=True), str(index))


def _weights(adapter: Path) -> str:
    return hashlib.sha256(b"".join(bytes.fromhex(file_digest(p)) for p in files(adapter))).hexdigest()
