"""Quality by the base model: how much the prompt helps to predict the response, and how predictable that is."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from align.config import Config
from align.rules.losses import Pair, Scorer
from align.rules.pool import Drop, Pool


class _ByModel(Config):
    """What the two rules share: bounds on a score, and how the model is asked for it."""

    min: float
    max: float
    template: str = "{prompt}\n"
    """What stands before the response; {prompt} is the prompt."""
    prefer: Literal["high", "low", "none"] = "none"
    """Which rows are better where duplicates are resolved and a budget is filled, among rows of like length."""
    max_tokens: int = Field(default=512, ge=8)
    """Tokens of prompt and response that are looked at."""
    batch_tokens: int = Field(default=1024, ge=64)
    """Padded tokens of a batch: about what fits a CPU's cache; a GPU wants 16 times as many."""

    @field_validator("template")
    @classmethod
    def _holds_prompt(cls, template: str) -> str:
        if "{prompt}" not in template:
            raise ValueError("needs {prompt}")
        return template

    def _pairs(self, pool: Pool) -> tuple[Scorer, list[Pair]]:
        """What scores the live rows, and their tokens."""
        scorer = Scorer(pool.base, self.max_tokens, self.batch_tokens, pool.cache)
        prompts, responses = (
            ["" if t is None else t for t in pool.column(c).to_pylist()] for c in ("prompt", "response")
        )
        return scorer, scorer.pairs([self.template.replace("{prompt}", p) for p in prompts], responses)

    def _drops(self, pool: Pool, name: str, live: np.ndarray) -> Iterator[Drop]:
        """Keep the scores of the live rows with the pool, and drop those that are out of bounds."""
        score = np.full(pool.table.num_rows, np.nan)
        score[pool.live] = live
        pool.scores[name] = score
        if self.prefer != "none":
            pool.rate(within_length(score if self.prefer == "high" else -score, pool.units("response").counts))
        for at in pool.live[~((live >= self.min) & (live <= self.max))]:
            yield int(at), {name: round(float(score[at]), 4), "min": self.min, "max": self.max}


class IFD(_ByModel):
    """Keep rows by instruction-following difficulty (Cherry LLM, Li et al. 2023): the loss of the response after its
    prompt over its loss alone, per token. From about 1 the prompt does not help: it is answered by something else."""

    rule: Literal["ifd"] = "ifd"
    prefer: Literal["high", "low", "none"] = "high"
    """Which rows are better where duplicates are resolved and a budget is filled, among rows of like length."""
    min: float = Field(default=0.0, ge=0)
    """Rows below it are dropped: the prompt all but gives the answer away."""
    max: float = Field(default=1.0, gt=0)
    """Rows above it are dropped: the prompt does not help to predict the answer."""

    def drops(self, pool: Pool) -> Iterator[Drop]:
        if len(pool.live):
            scorer, pairs = self._pairs(pool)
            given = scorer.losses(pairs, "losses after prompts")
            alone = scorer.losses(scorer.alone(pairs), "losses alone")
            yield from self._drops(pool, "ifd", given / np.maximum(alone, 1e-6))


class Perplexity(_ByModel):
    """Keep rows by the perplexity of the response after its prompt: very high is noise, very low is boilerplate."""

    rule: Literal["perplexity"] = "perplexity"
    min: float = Field(default=1.0, ge=1)
    """Rows below it are dropped."""
    max: float = Field(default=1000.0, gt=1)
    """Rows above it are dropped."""

    def drops(self, pool: Pool) -> Iterator[Drop]:
        if len(pool.live):
            scorer, pairs = self._pairs(pool)
            yield from self._drops(pool, "perplexity", np.exp(scorer.losses(pairs, "losses after prompts")))


def within_length(score: np.ndarray, length: np.ndarray, bins: int = 10) -> np.ndarray:
    """The rank of each score among rows of like length, 0 to 1: length alone does not win. nan stays nan. [rows]

    The bins are quantiles of the length; rows of equal length are never parted.
    """
    out = np.full(len(score), np.nan)
    known = np.flatnonzero(~np.isnan(score))
    if not len(known):
        return out
    edges = np.unique(np.quantile(length[known], np.linspace(0, 1, bins + 1)[1:-1]))
    which = np.searchsorted(edges, length[known], side="right")
    for b in np.unique(which):
        rows = known[which == b]
        unique, inverse, counts = np.unique(score[rows], return_inverse=True, return_counts=True)
        middle = np.cumsum(counts) - (counts + 1) / 2  # equal scores share one rank
        out[rows] = (middle[inverse] + 0.5) / len(rows)
    return out
