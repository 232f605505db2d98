"""Quality by the base model: how much the prompt helps to predict the response, and how predictable that is."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from tasks.lib.config import Config
from tasks.lib.rules.losses import Scorer
from tasks.lib.rules.pool import Drop, Pool


class _ByModel(Config):
    """What the two rules share."""

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

    def _before(self, prompts: list[str]) -> list[str]:
        return [self.template.replace("{prompt}", p) for p in prompts]

    def _rate(self, pool: Pool, name: str, score: np.ndarray) -> None:
        pool.scores[name] = score
        if self.prefer != "none":
            pool.rate(within_length(score if self.prefer == "high" else -score, pool.units("response").counts))


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
        live = pool.live
        if not len(live):
            return
        scorer = Scorer(pool.base, self.max_tokens, self.batch_tokens)
        responses = [r or "" for r in pool.column("response").to_pylist()]
        pairs = scorer.pairs(self._before(pool.column("prompt").to_pylist()), responses)
        score = np.full(pool.table.num_rows, np.nan)
        given, alone = scorer.losses(pairs, "losses after prompts"), scorer.losses(scorer.alone(pairs), "losses alone")
        score[live] = given / np.maximum(alone, 1e-6)
        self._rate(pool, "ifd", score)
        for at in live[~((score[live] >= self.min) & (score[live] <= self.max))]:
            yield int(at), {"ifd": round(float(score[at]), 4), "min": self.min, "max": self.max}


class Perplexity(_ByModel):
    """Keep rows by the perplexity of the response after its prompt: very high is noise, very low is boilerplate."""

    rule: Literal["perplexity"] = "perplexity"
    min: float = Field(default=1.0, ge=1)
    """Rows below it are dropped."""
    max: float = Field(default=1000.0, gt=1)
    """Rows above it are dropped."""

    def drops(self, pool: Pool) -> Iterator[Drop]:
        live = pool.live
        if not len(live):
            return
        scorer = Scorer(pool.base, self.max_tokens, self.batch_tokens)
        responses = [r or "" for r in pool.column("response").to_pylist()]
        score = np.full(pool.table.num_rows, np.nan)
        pairs = scorer.pairs(self._before(pool.column("prompt").to_pylist()), responses)
        score[live] = np.exp(scorer.losses(pairs, "losses after prompts"))
        self._rate(pool, "perplexity", score)
        for at in live[~((score[live] >= self.min) & (score[live] <= self.max))]:
            yield int(at), {"perplexity": round(float(score[at]), 3), "min": self.min, "max": self.max}


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
