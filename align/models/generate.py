"""Drawing n responses per prompt from a policy, fast and reproducibly.

Samples of a prompt that have drawn the same tokens so far are one row of the batch, which forks where they differ: the
prompt is read once, and so is every common beginning. Finished rows leave the batch. A draw is the inverse of the
cumulative distribution at a number that depends on (seed, prompt, sample index, step) alone, so neither batch size,
shards nor n change what sample i of a prompt is (up to floating point).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from align.console import Progress
from align.errors import InputError
from align.models.base import BaseConfig, load_chat, policy
from align.models.chat import Chat, Message
from align.models.draws import choose, fork, key, new_cache, uniform
from align.text import digest


@dataclass(frozen=True)
class Prompt:
    prompt_id: str
    messages: list[Message]


@dataclass(frozen=True)
class Sample:
    prompt_id: str
    sample_id: str
    sample_index: int
    text: str
    finish_reason: str
    """stop: the end-of-turn token was drawn; length: the token limit or the context ended it."""
    n_tokens: int
    """Tokens drawn, the end-of-turn token among them."""


class Sampler:
    """A policy ready to draw from: base plus adapter, merged (see models.policy)."""

    def __init__(self, base: BaseConfig, adapter: Path | None = None):
        self.chat: Chat = load_chat(base)
        self.model = policy(base, adapter)
        self.context = int(getattr(self.model.config.get_text_config(), "max_position_embeddings", 0) or 1 << 30)
        stop = self.model.generation_config.eos_token_id
        stop = stop if isinstance(stop, list) else [stop]
        self.stop = sorted({self.chat.end_id, self.chat.tokenizer.eos_token_id, *stop} - {None})

    def draw(
        self,
        prompts: Sequence[Prompt],
        *,
        n: int = 1,
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_new_tokens: int = 256,
        batch_size: int = 256,
        seed: int = 0,
        label: str = "sampling",
        too_long: list[str] | None = None,
    ) -> list[Sample]:
        """n samples of every prompt, in the order of the prompts. temperature 0 is greedy.

        `batch_size` counts sequences. A prompt that leaves no room in the model's context is appended to `too_long`
        and has no samples; without `too_long` it raises InputError.
        """
        encoded = self.chat.prompts([p.messages for p in prompts])
        fits = [i for i, ids in enumerate(encoded) if len(ids) < self.context]
        long = [p.prompt_id for p, ids in zip(prompts, encoded, strict=True) if len(ids) >= self.context]
        if long and too_long is None:
            raise InputError(
                f"{len(long)} prompts fill the model's {self.context} tokens of context, such as {long[0]}."
            )
        if too_long is not None:
            too_long.extend(long)
        order = sorted(fits, key=lambda i: len(encoded[i]))
        drawn: dict[int, list[Sample]] = {}
        with Progress(len(order) * n, label) as progress:
            for group in _groups(order, [len(ids) for ids in encoded], max(1, batch_size // n)):
                ids = [encoded[i] for i in group]
                keys = np.array(
                    [key(seed, prompts[i].prompt_id, index) for i in group for index in range(n)], dtype=np.uint64
                )
                tokens, counts, stopped = self._run(ids, n, keys, temperature, top_p, max_new_tokens, progress)
                texts = self._decode(tokens, counts, stopped)
                for g, i in enumerate(group):
                    drawn[i] = [
                        self._sample(prompts[i].prompt_id, k, texts[g * n + k], stopped[g * n + k], counts[g * n + k])
                        for k in range(n)
                    ]
        return [sample for i in fits for sample in drawn[i]]

    def _sample(self, prompt_id: str, index: int, text: str, stopped: bool, count: int) -> Sample:
        reason = "stop" if stopped else "length"
        return Sample(prompt_id, digest(prompt_id, str(index), text, reason), index, text, reason, int(count))

    def _decode(self, tokens: np.ndarray, counts: np.ndarray, stopped: np.ndarray) -> list[str]:
        kept = [row[: c - s].tolist() for row, c, s in zip(tokens, counts, stopped, strict=True)]
        return [str(t) for t in self.chat.tokenizer.batch_decode(kept, skip_special_tokens=True)]

    def _run(
        self,
        ids: list[list[int]],
        n: int,
        keys: np.ndarray,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        progress: Progress,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw n samples for each of the prompts `ids`: tokens [B, T], how many [B], and whether each stopped [B]."""
        import torch

        model, device = self.model, self.model.device
        width = max(len(p) for p in ids)
        padded = any(len(p) < width for p in ids)
        input_ids = torch.full((len(ids), width), self.chat.pad_id, dtype=torch.long)
        mask = torch.zeros((len(ids), width), dtype=torch.long)
        for row, p in enumerate(ids):
            input_ids[row, width - len(p) :] = torch.tensor(p)
            mask[row, width - len(p) :] = 1
        lengths = np.array([len(p) for p in ids])
        limits = np.minimum(max_new_tokens, self.context - np.repeat(lengths, n))
        tokens = np.zeros((len(keys), int(limits.max())), dtype=np.int64)
        counts, stopped = np.zeros(len(keys), dtype=np.int64), np.zeros(len(keys), dtype=bool)
        rows = np.repeat(np.arange(len(ids)), n)  # sample -> row of the batch that holds its tokens so far
        live = np.arange(len(keys))  # the samples that are not finished
        with torch.inference_mode():
            cache = new_cache(model)
            mask = mask.to(device)
            inputs, position = input_ids.to(device), (mask.cumsum(1) - 1).clamp(min=0)
            for step in range(tokens.shape[1]):
                logits = model(
                    input_ids=inputs,
                    attention_mask=mask if padded else None,
                    position_ids=position,
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                ).logits[:, -1]
                drawn = choose(logits, rows[live], uniform(keys[live], step), temperature, top_p)
                tokens[live, step] = drawn
                counts[live] += 1
                ended = np.isin(drawn, self.stop)
                stopped[live[ended]] = True
                over = ended | (step + 1 >= limits[live])
                progress.advance(int(over.sum()))
                live, drawn = live[~over], drawn[~over]
                if not len(live):
                    break
                parents, children, rows[live] = fork(rows[live], drawn)
                if not np.array_equal(parents, np.arange(len(logits))):
                    index = torch.from_numpy(parents).to(device)
                    cache.batch_select_indices(index)
                    mask, position = mask[index], position[index]
                inputs = torch.from_numpy(children)[:, None].to(device)
                position = position[:, -1:] + 1
                if padded:
                    mask = torch.cat([mask, mask.new_ones((len(mask), 1))], 1)
        return tokens, counts, stopped


def generate(base: BaseConfig, adapter: Path | None, prompts: Sequence[Prompt], **options: Any) -> list[Sample]:
    """Load base plus adapter and draw, with the options of Sampler.draw. To draw several times, keep a Sampler."""
    return Sampler(base, adapter).draw(prompts, **options)


def _groups(order: list[int], lengths: list[int], size: int) -> list[list[int]]:
    """Runs of at most `size` prompts of increasing length."""
    return [order[i : i + size] for i in range(0, len(order), size)]
