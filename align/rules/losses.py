"""Losses of responses under the base model, in batches by length, and kept per row between runs.

With a directory for what is kept, losses stay there by the model's weights and the tokens, so that an added source
scores only its new rows. They are written once, when all are there: what a killed run leaves behind is nothing, and its
successor computes the same batches as an undisturbed one.
"""

import hashlib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from align.kept import Kept
from align.models.base import BaseConfig, directory, identity
from align.models.device import device
from align.models.trained import policy
from align.progress import track

log = logging.getLogger(__name__)
HEAD = 1024  # positions whose logits are made at a time: a large vocabulary would not fit otherwise

Pair = tuple[tuple[int, ...], tuple[int, ...]]  # tokens before the response, tokens of the response


class Scorer:
    """Mean loss per response token, after what stands before it. Loads the model at the first miss."""

    def __init__(self, base: BaseConfig, max_tokens: int, batch_tokens: int, cache: Path | None = None):
        from transformers import AutoTokenizer

        self.base, self.max_tokens, self.batch_tokens = base, max_tokens, batch_tokens
        self.tokenizer = AutoTokenizer.from_pretrained(directory(base))
        self.tokenizer.model_max_length = 1 << 30
        first = self.tokenizer.bos_token_id
        self.start = int(first if first is not None else self.tokenizer.eos_token_id)
        self.kept = Kept(cache / "losses" / _model_key(base) if cache else None, {"loss": pa.float64()})
        self._model: Any = None

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""
        found: list[list[int]] = []
        for i in range(0, len(texts), 1000):
            found += self.tokenizer(list(texts[i : i + 1000]), add_special_tokens=False)["input_ids"]
        return found

    def pairs(self, prompts: Sequence[str], responses: Sequence[str]) -> list[Pair]:
        """Tokens before and of each response; a long response loses its end, then a long prompt its beginning."""
        tails = [t[: max(self.max_tokens * 3 // 4, 1)] for t in self.tokens(responses)]
        heads = [
            h[max(len(h) - (self.max_tokens - 1 - len(t)), 0) :]
            for h, t in zip(self.tokens(prompts), tails, strict=True)
        ]
        return [((self.start, *h), tuple(t)) for h, t in zip(heads, tails, strict=True)]

    def alone(self, pairs: Sequence[Pair]) -> list[Pair]:
        """The same responses after nothing."""
        return [((self.start,), tail) for _, tail in pairs]

    def losses(self, pairs: Sequence[Pair], label: str) -> np.ndarray:
        """Mean negative log-likelihood per response token in nats; nan for an empty response. [pairs]

        Equal pairs are scored once, known ones not at all.
        """
        keys = [_key(p) for p in pairs]
        known = self.kept.read()
        missing = {k: p for k, p in zip(keys, pairs, strict=True) if k not in known and p[1]}
        if missing:
            if self._model is None:
                self._model = policy(self.base, None)
            new = mean_losses(self._model, list(missing.values()), self.batch_tokens, label)
            self.kept.add({k: (loss,) for k, loss in zip(missing, new.tolist(), strict=True)})
        return np.array([known.get(k, (np.nan,))[0] for k in keys])


def _model_key(base: BaseConfig) -> str:
    """What a loss depends on besides the tokens."""
    facts = [*sorted(identity(base).items()), base.dtype, device()]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:24]


def _key(pair: Pair) -> bytes:
    data = np.array([len(pair[0]), *pair[0], *pair[1]], np.int32).tobytes()
    return hashlib.blake2b(data, digest_size=16).digest()


def mean_losses(model: Any, pairs: Sequence[Pair], batch_tokens: int, label: str) -> np.ndarray:
    """Mean loss of each response, in batches of pairs of like length. [pairs]

    On a CPU one batch per core at a time: matrices of this size are too small to share one between cores.
    """
    import torch

    out = np.full(len(pairs), np.nan)
    made = batches([len(h) + len(t) for h, t in pairs], batch_tokens)
    cores = torch.get_num_threads() if device() == "cpu" else 1
    torch.set_num_threads(1 if cores > 1 else cores)
    try:
        with ThreadPoolExecutor(cores) as threads:
            scored = threads.map(lambda batch: _batch_losses(model, [pairs[i] for i in batch]), made)
            for batch, found in zip(made, track(scored, label, len(made)), strict=True):
                out[batch] = found
    finally:
        torch.set_num_threads(cores)
    return out


def batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices by length, in batches that padded take at most `budget` tokens (but one sequence at least)."""
    found: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if not found or lengths[i] * (len(found[-1]) + 1) > budget:
            found.append([])
        found[-1].append(i)
    return found


def _batch_losses(model: Any, pairs: Sequence[Pair]) -> np.ndarray:
    import torch

    width = max(len(h) + len(t) for h, t in pairs)
    ids = np.zeros((len(pairs), width), np.int64)
    wanted = np.zeros((len(pairs), width), bool)
    for row, (head, tail) in enumerate(pairs):
        ids[row, : len(head) + len(tail)] = head + tail
        wanted[row, len(head) : len(head) + len(tail)] = True
    tokens, mask = torch.from_numpy(ids).to(device()), torch.from_numpy(wanted).to(device())
    with torch.inference_mode():
        # padding stands on the right: under the causal mask no real position sees it
        hidden = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state[:, :-1][mask[:, 1:]]
        targets = tokens[:, 1:][mask[:, 1:]]
        loss = torch.cat([_nll(model, h, t) for h, t in zip(hidden.split(HEAD), targets.split(HEAD), strict=True)])
        rows = mask[:, 1:].nonzero()[:, 0]
        total = torch.zeros(len(pairs), dtype=torch.float64, device=loss.device).index_add_(0, rows, loss.double())
    return (total.cpu().numpy() / wanted.sum(1)).astype(float)


def _nll(model: Any, hidden: Any, targets: Any) -> Any:
    import torch

    logits = model.get_output_embeddings()(hidden).float()
    cap = getattr(model.config, "final_logit_softcapping", None)
    logits = torch.tanh(logits / cap) * cap if cap else logits
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")
