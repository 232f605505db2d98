"""Drawing n responses per prompt from a policy, fast and reproducibly.

Samples of a prompt that have drawn the same tokens so far are one row of the batch, which forks where they differ: the
prompt is read once, and so is every common beginning. Finished rows leave the batch, and waiting prompts take their
places. A draw is the inverse of the cumulative distribution at a number that depends on (seed, prompt, sample index,
step) alone, so neither batch size, shards nor n change what sample i of a prompt is (up to floating point).
"""

import inspect
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from align.models.base import BaseConfig, load_chat
from align.models.chat import Chat
from align.models.draws import Share, certainty, choose, fork, key, uniform
from align.models.engine import Done, Prompt, Sample, Sampling, nothing, sample_of, with_room
from align.models.example import Example, pad
from align.models.memory_inference import (
    DRAWN,
    HEADROOM,
    cache_bytes,
    drawing,
    forward,
    free_bytes,
    rows_that_fit,
)
from align.models.plain import stop_ids
from align.models.rows import new_rows
from align.models.trained import policy
from align.progress import Progress

SCORING = 2 << 30  # bytes that scoring texts may take on a CPU beside the model


@dataclass(frozen=True)
class Drawn:
    """The tokens of a sample."""

    prompt: int
    """The position of its prompt."""
    index: int
    """Which of the prompt's samples it is."""
    tokens: list[int]
    """What was drawn, the stop token among it."""
    stopped: bool
    """Whether a stop token ended it."""
    logp: float
    """Their summed log-probability in nats, at temperature 1."""

    @property
    def content(self) -> list[int]:
        """The tokens without the stop token."""
        return self.tokens[: len(self.tokens) - self.stopped]


class Sampler:
    """A policy ready to draw from: base plus adapter, merged (see models.policy)."""

    def __init__(self, base: BaseConfig, adapter: Path | None = None):
        self.chat: Chat = load_chat(base)
        self.model = policy(base, adapter)
        self.context = int(getattr(self.model.config.get_text_config(), "max_position_embeddings", 0) or 1 << 30)
        self._keeps = "logits_to_keep" in inspect.signature(self.model.forward).parameters
        self.stop = stop_ids(self.model.generation_config, self.chat)

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
        """Samples `first` to n - 1 of every prompt, in the order of the prompts; see Engine.draw."""
        encoded = self.chat.prompts([p.messages for p in prompts])
        fits = with_room(prompts, [len(ids) for ids in encoded], self.context, too_long)
        drawn: dict[tuple[int, int], Sample] = {}
        with Progress(len(fits) * max(0, sampling.n - first), label) as progress:
            for ended in self.tokens(prompts, encoded, fits, sampling, first):
                said = self.chat.read([d.content for d in ended])
                for d, (text, thought) in zip(ended, said, strict=True):
                    reason = "stop" if d.stopped else "truncated"
                    row_id = prompts[d.prompt].row_id
                    drawn[d.prompt, d.index] = sample_of(row_id, d.index, text, reason, len(d.tokens), thought, d.logp)
                done([drawn[d.prompt, d.index] for d in ended])
                progress.advance(len(ended))
        return [drawn[i, index] for i in fits for index in range(first, sampling.n)]

    def tokens(
        self,
        prompts: Sequence[Prompt],
        encoded: Sequence[Sequence[int]],
        fits: Sequence[int],
        sampling: Sampling,
        first: int = 0,
    ) -> Iterator[list[Drawn]]:
        """What is drawn for the prompts at the positions `fits`, each with samples `first` to n - 1, as they end.

        `encoded` are the tokens of every prompt.
        """
        indices = range(first, sampling.n)
        places = min(self._places(sampling, [len(encoded[i]) for i in fits]), max(1, len(fits) * len(indices)))
        names = [(i, index) for i in sorted(fits, key=lambda i: len(encoded[i])) for index in indices]
        keys = np.array([key(sampling.seed, prompts[i].row_id, index) for i, index in names], dtype=np.uint64)
        limits = np.array([min(sampling.max_new_tokens, self.context - len(encoded[i])) for i, _ in names])
        n = max(1, len(indices))
        waiting = deque(np.arange(at, at + n) for at in range(0, len(names), n))
        for ended in self._run([list(encoded[i]) for i, _ in names], waiting, places, keys, limits, sampling):
            yield [Drawn(*names[i], tokens, stopped, logp) for i, tokens, stopped, logp in ended]

    def close(self) -> None:
        """Nothing is held beside memory."""

    def log_probabilities(
        self, prompts: Sequence[Prompt], texts: Sequence[str], batch_size: int = 64, label: str = "scoring answers"
    ) -> list[float]:
        """Summed log-probability in nats of each text and the end of its turn; see Engine.log_probabilities."""
        import torch

        examples = self.chat.examples([p.messages for p in prompts], list(texts))
        found = [0.0] * len(examples)
        order = sorted(range(len(examples)), key=lambda i: (examples[i].prompt, len(examples[i].ids)))
        with torch.inference_mode(), Progress(len(order), label) as progress:
            for batch in self._batches(order, examples, batch_size):
                some = [examples[i] for i in batch]
                ids, mask, response = (x.to(self.model.device) for x in pad(some, self.chat.pad_id))
                first = max(0, min(e.prompt for e in some) - 1)  # logits before the first response cost the most
                only = {"logits_to_keep": torch.arange(first, ids.shape[1], device=ids.device)} if self._keeps else {}
                logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False, **only).logits
                logits = logits[:, (0 if self._keeps else first) : -1].float()
                tokens = torch.gather(logits, 2, ids[:, first + 1 :, None])[..., 0] - logits.logsumexp(-1)
                for i, value in zip(batch, (tokens * response[:, first + 1 :]).sum(1).tolist(), strict=True):
                    found[i] = value
                progress.advance(len(batch))
        return found

    def _batches(self, order: Sequence[int], examples: Sequence[Example], most: int) -> Iterator[list[int]]:
        """`order` in runs of at most `most` examples whose logits fit beside the model."""
        shape, itemsize = self.model.config.get_text_config(), self.model.dtype.itemsize
        room, batch = HEADROOM * (free_bytes() or SCORING), list[int]()
        for i in order:
            some = [examples[at] for at in (*batch, i)]
            longest, first = max(len(e.ids) for e in some), min(e.prompt for e in some) if self._keeps else 0
            row = forward(shape, longest, itemsize) + (longest - first + 1) * shape.vocab_size * (itemsize + 2 * 4)
            if batch and (len(some) > most or len(some) * row > room):
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch

    def _places(self, sampling: Sampling, lengths: Sequence[int]) -> int:
        """How many rows are drawn together, of prompts of so many tokens."""
        fit = rows_that_fit(sampling.batch_size, DRAWN)
        if fit is None or not lengths:
            return DRAWN if sampling.batch_size == "auto" else sampling.batch_size
        shape, itemsize, longest = self.model.config.get_text_config(), self.model.dtype.itemsize, max(lengths)
        length = min(longest + sampling.max_new_tokens, self.context)
        row = sum(drawing(shape, cache_bytes(self.model), length, itemsize).values())
        return fit(row + forward(shape, longest, itemsize) / sampling.n)

    def _run(
        self,
        prompts: list[list[int]],
        waiting: deque[np.ndarray],
        places: int,
        keys: np.ndarray,
        limits: np.ndarray,
        sampling: Sampling,
    ) -> Iterator[list[tuple[int, list[int], bool, float]]]:
        """Draw samples, at most `places` rows at a time; yields what is done: sample, tokens, stopped, log-probability.

        `prompts`, `keys` and `limits` [S] are the samples' prompts, random keys and the most tokens that each may have.
        What waits are samples that share a row: of one prompt, with the same tokens so far.
        """
        import torch

        rows, share = new_rows(self.model, places), Share(places, len(keys))
        live, row = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)  # samples that are drawn; the row of each
        last = np.zeros(0, dtype=np.int64)  # the token that each row reads next
        tokens: list[list[int]] = [[] for _ in keys]
        counts, logps = np.zeros(len(keys), dtype=np.int64), np.zeros(len(keys))
        while waiting or len(live):
            came: list[np.ndarray] = []
            free = share.free(len(live), len(last)) if rows.open else 0.0
            while waiting and len(last) + len(came) < places:
                free -= share.rows(len(waiting[0]))
                if free < 0 and (came or len(live)):
                    break
                came.append(waiting.popleft())
            with torch.inference_mode():
                if came:
                    begun = [prompts[samples[0]] + tokens[samples[0]] for samples in came]
                    rows.join([ids[:-1] for ids in begun])
                    live = np.concatenate([live, *came])
                    row = np.concatenate([row, *(np.full(len(s), len(last) + k) for k, s in enumerate(came))])
                    last = np.append(last, [ids[-1] for ids in begun])
                logits = rows.step(last)
                drawn = choose(logits, row, uniform(keys[live], counts[live]), sampling.temperature, sampling.top_p)
                logps[live] += certainty(logits, row, drawn)
            share.saw(live, row)
            counts[live] += 1
            for sample, token in zip(live.tolist(), drawn.tolist(), strict=True):
                tokens[sample].append(token)
            ended = np.isin(drawn, self.stop)
            over = ended | (counts[live] >= limits[live])
            done = [
                (i, tokens[i], end, float(logps[i]))
                for i, end in zip(live[over].tolist(), ended[over].tolist(), strict=True)
            ]
            share.finished(live[over], counts[live[over]])
            parents, last, row = fork(row[~over], drawn[~over])
            live = live[~over]
            for full in range(places, len(parents)):  # no place for these: they wait, with what they have drawn
                waiting.appendleft(live[row == full])
            live, row = live[row < places], row[row < places]
            parents, last = parents[:places], last[:places]
            with torch.inference_mode():
                rows.select(parents)
            if done:
                yield done
                for i, *_ in done:
                    tokens[i] = []


def generate(
    base: BaseConfig, adapter: Path | None, prompts: Sequence[Prompt], sampling: Sampling, **options: Any
) -> list[Sample]:
    """Load base plus adapter and draw, with the options of Sampler.draw. To draw several times, keep a Sampler."""
    return Sampler(base, adapter).draw(prompts, sampling, **options)
