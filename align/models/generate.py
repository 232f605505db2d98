"""Drawing n responses per prompt from a policy, fast and reproducibly.

Samples of a prompt that have drawn the same tokens so far are one row of the batch, which forks where they differ: the
prompt is read once, and so is every common beginning. Finished rows leave the batch. A draw is the inverse of the
cumulative distribution at a number that depends on (seed, prompt, sample index, step) alone, so neither batch size,
shards nor n change what sample i of a prompt is (up to floating point).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from align.errors import InputError
from align.models.base import BaseConfig, load_chat, policy
from align.models.chat import Chat, pad
from align.models.draws import choose, fork, key, new_cache, uniform
from align.models.engine import Prompt, Sample, Sampling, sample_of
from align.progress import Progress


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
        sampling: Sampling,
        *,
        first: int = 0,
        label: str = "sampling",
        too_long: list[str] | None = None,
    ) -> list[Sample]:
        """Samples `first` to n - 1 of every prompt, in the order of the prompts; see Engine.draw."""
        encoded = self.chat.prompts([p.messages for p in prompts])
        fits = [i for i, ids in enumerate(encoded) if len(ids) < self.context]
        long = [p.row_id for p, ids in zip(prompts, encoded, strict=True) if len(ids) >= self.context]
        if long and too_long is None:
            raise InputError(
                f"{len(long)} prompts fill the model's {self.context} tokens of context, such as {long[0]}."
            )
        if too_long is not None:
            too_long.extend(long)
        indices = range(first, sampling.n)
        order = sorted(fits, key=lambda i: len(encoded[i]))
        drawn: dict[int, list[Sample]] = {}
        with Progress(len(order) * len(indices), label) as progress:
            size = max(1, sampling.batch_size // len(indices))
            for group in _groups(order, [len(ids) for ids in encoded], size):
                ids = [encoded[i] for i in group]
                keys = np.array(
                    [key(sampling.seed, prompts[i].row_id, index) for i in group for index in indices], dtype=np.uint64
                )
                tokens, counts, stopped = self._run(ids, len(indices), keys, sampling, progress)
                said = iter(self._decode(tokens, counts, stopped))
                ends = iter(zip(stopped, counts, strict=True))
                for i in group:
                    drawn[i] = []
                    for index in indices:
                        (stop, count), (text, thought) = next(ends), next(said)
                        reason = "stop" if stop else "truncated"
                        drawn[i].append(sample_of(prompts[i].row_id, index, text, reason, count, thought))
        return [sample for i in fits for sample in drawn[i]]

    def log_probabilities(self, prompts: Sequence[Prompt], texts: Sequence[str], batch_size: int = 64) -> list[float]:
        """Summed log-probability in nats of each text and the end of its turn; see Engine.log_probabilities."""
        import torch

        examples = self.chat.examples([p.messages for p in prompts], list(texts))
        found = [0.0] * len(examples)
        order = sorted(range(len(examples)), key=lambda i: len(examples[i].ids))
        with torch.inference_mode():
            for at in range(0, len(order), batch_size):
                batch = order[at : at + batch_size]
                ids, mask, response = (
                    x.to(self.model.device) for x in pad([examples[i] for i in batch], self.chat.pad_id)
                )
                logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
                tokens = torch.gather(logits.log_softmax(-1), 2, ids[:, 1:, None])[..., 0]
                for i, value in zip(batch, (tokens * response[:, 1:]).sum(1).tolist(), strict=True):
                    found[i] = value
        return found

    def _decode(self, tokens: np.ndarray, counts: np.ndarray, stopped: np.ndarray) -> list[tuple[str, str | None]]:
        return self.chat.read([row[: c - s].tolist() for row, c, s in zip(tokens, counts, stopped, strict=True)])

    def _run(
        self,
        ids: list[list[int]],
        n: int,
        keys: np.ndarray,
        sampling: Sampling,
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
        limits = np.minimum(sampling.max_new_tokens, self.context - np.repeat(lengths, n))
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
                drawn = choose(logits, rows[live], uniform(keys[live], step), sampling.temperature, sampling.top_p)
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


def generate(
    base: BaseConfig, adapter: Path | None, prompts: Sequence[Prompt], sampling: Sampling, **options: Any
) -> list[Sample]:
    """Load base plus adapter and draw, with the options of Sampler.draw. To draw several times, keep a Sampler."""
    return Sampler(base, adapter).draw(prompts, sampling, **options)


def _groups(order: list[int], lengths: list[int], size: int) -> list[list[int]]:
    """Runs of at most `size` prompts of increasing length."""
    return [order[i : i + size] for i in range(0, len(order), size)]
