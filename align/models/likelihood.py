"""How likely a policy finds texts that it did not write: the options of a question, a reference answer."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pyarrow as pa

from align.kept import Kept, key
from align.models.engine import Policy, Prompt, Sampling
from align.models.shards import gather, share

_COLUMNS = {"logp": pa.float64(), "n_tokens": pa.int32()}


@dataclass(frozen=True)
class Likelihood:
    """How likely a text is as the whole answer to a prompt."""

    logp: float
    """Summed log-probability in nats of its tokens and of the end of the turn."""
    n_tokens: int
    """Those tokens."""


@dataclass(frozen=True)
class Option:
    """An option of a multiple-choice item, as a policy sees it."""

    text: str
    likelihood: Likelihood

    @property
    def per_byte(self) -> float:
        """Log-probability divided by the bytes of the text, so that long options are not unlikely for their length."""
        return self.likelihood.logp / max(1, len(self.text.encode()))


def likelihoods(
    policy: Policy, sampling: Sampling, chat: Any, prompts: Sequence[Prompt], texts: Sequence[str]
) -> list[Likelihood | None]:
    """How likely each text is as the answer to the prompt at its position; None where both do not fit the context.

    By the policy's own weights, whatever the engine. Several processes share the texts; what is known is kept beside
    the draws of the policy.
    """
    if not texts:
        return []
    kept = Kept(policy.folder("likelihoods"), _COLUMNS)
    keys = [key(json.dumps(p.messages), text) for p, text in zip(prompts, texts, strict=True)]
    known = gather(kept.read())[0]
    todo = list(dict.fromkeys(i for i, k in enumerate(keys) if k not in known))
    if todo:
        engine = policy.engine(sampling.model_copy(update={"engine": "transformers"}))
        mine = share(todo)
        examples = chat.examples([prompts[i].messages for i in mine], [texts[i] for i in mine])
        fits = [(i, e) for i, e in zip(mine, examples, strict=True) if len(e.ids) <= engine.context]  # type: ignore[attr-defined]
        found = engine.log_probabilities([prompts[i] for i, _ in fits], [texts[i] for i, _ in fits])
        fresh: dict[bytes, tuple[Any, ...]] = {keys[i]: (None, 0) for i in mine}
        fresh |= {keys[i]: (logp, e.tokens) for (i, e), logp in zip(fits, found, strict=True)}
        kept.add(fresh)
        for theirs in gather(fresh):
            known |= theirs
    said = [known[k] for k in keys]
    return [None if logp is None else Likelihood(logp, n) for logp, n in said]


def of_options(
    policy: Policy, sampling: Sampling, chat: Any, prompts: Sequence[Prompt], options: Sequence[Sequence[str]]
) -> list[list[Option] | None]:
    """The options of each prompt with their likelihoods; None where one of them does not fit the context."""
    flat = [(p, text) for p, texts in zip(prompts, options, strict=True) for text in texts]
    found = likelihoods(policy, sampling, chat, [p for p, _ in flat], [t for _, t in flat])
    ends = [0]
    for texts in options:
        ends.append(ends[-1] + len(texts))
    out: list[list[Option] | None] = []
    for texts, (start, end) in zip(options, pairwise(ends), strict=True):
        known = [x for x in found[start:end] if x is not None]
        out.append([Option(t, x) for t, x in zip(texts, known, strict=True)] if len(known) == len(texts) else None)
    return out
