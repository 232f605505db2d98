"""Choosing N rows that are good and unlike each other."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from align.config import Config
from align.errors import InputError
from align.progress import track
from align.rules.languages import NAMES
from align.rules.pool import Drop, Pool
from align.rules.shingles import U64, Units, grams, mix

WIDTH = 256  # of the vectors of hashed n-grams
BLOCK = 512  # rows that are compared with the chosen ones at a time


class Budget(Config):
    """Keep so many rows: the best, the best that keep a distance from those already chosen (DEITA, Liu et al. 2023), or
    those that cover the rest best (k-center, Sener & Savarese 2018)."""

    rule: Literal["budget"] = "budget"
    rows: int = Field(ge=1)
    """How many rows stay at most."""
    method: Literal["best", "greedy", "k_center"] = "best"
    """How they are chosen. What is better is told by the last rule that rates rows; chance decides between equals."""
    min_distance: float = Field(default=0.1, ge=0, le=2)
    """Cosine distance that a row must keep from every row that was chosen before it (greedy)."""
    on: Literal["prompt", "both"] = "prompt"
    """What distances are between: prompts, or prompts with their responses."""
    embedding: Path | None = None
    """Directory of a transformers model whose mean last hidden state is the vector; hashed n-grams without it."""
    stratify: str | None = None
    """Share the rows out evenly among the values of `source`, `language`, or a column of meta."""

    def drops(self, pool: Pool) -> Iterator[Drop]:
        live = pool.live
        strata = self._strata(pool, live)
        names, sizes = np.unique(strata, return_counts=True)
        for name, share in zip(names, fair(sizes, self.rows), strict=True):
            order = pool.order(live[strata == name])
            stays, close = self._choose(pool, order, int(share))
            more = {"stratum": str(name)} if self.stratify else {}
            for at in order[~stays]:
                score = round(float(pool.quality[at]), 6)
                if at in close:
                    of, distance = close[at]
                    yield int(at), {"close_to": pool.row_id(of), "distance": distance, "min": self.min_distance, **more}
                else:
                    yield int(at), {"score": score if np.isfinite(score) else None, "rows": int(share), **more}

    def _choose(self, pool: Pool, order: np.ndarray, n: int) -> tuple[np.ndarray, dict[int, tuple[int, float]]]:
        """Which of the rows, best first, stay; and for those that do not because of one, that one and the distance."""
        stays = np.zeros(len(order), bool)
        if self.method == "best" or len(order) <= n and self.method == "k_center":
            stays[:n] = True
            return stays, {}
        embed = Embedder(pool, self.on, self.embedding)
        if self.method == "k_center":
            blocks = [embed(order[start : start + BLOCK]) for start in range(0, len(order), BLOCK)]
            stays[k_center(np.concatenate(blocks), n)] = True
            return stays, {}
        close: dict[int, tuple[int, float]] = {}
        chosen = np.zeros((min(n, len(order)), embed.width), np.float32)
        taken: list[int] = []
        for start in track(range(0, len(order), BLOCK), "choosing rows"):
            if len(taken) >= n:
                break
            vectors = embed(order[start : start + BLOCK])
            before = len(taken)
            likeness = vectors @ chosen[:before].T
            for i, vector in enumerate(vectors):
                if len(taken) >= n:
                    break
                like = np.concatenate([likeness[i], chosen[before : len(taken)] @ vector])
                nearest = int(like.argmax()) if len(like) else -1
                if nearest >= 0 and 1 - like[nearest] < self.min_distance:
                    close[order[start + i]] = (order[taken[nearest]], round(float(max(1 - like[nearest], 0)), 4))
                    continue
                chosen[len(taken)] = vector
                taken.append(start + i)
                stays[start + i] = True
        return stays, close

    def _strata(self, pool: Pool, live: np.ndarray) -> np.ndarray:
        if self.stratify is None:
            return np.zeros(len(live), np.int64)
        if self.stratify == "language":
            return np.array(NAMES)[pool.languages("prompt")[live]]
        if self.stratify == "source":
            return np.array(pool.column("source", live).to_pylist())
        found = [json.loads(m or "{}").get(self.stratify) for m in pool.column("meta", live).to_pylist()]
        if all(v is None for v in found):
            raise InputError(f"filter: no row has the column {self.stratify!r} that the budget is stratified by")
        return np.array([str(v) for v in found])


def fair(sizes: np.ndarray, total: int) -> np.ndarray:
    """Even shares of `total` among strata, what a small stratum leaves going to the larger ones. [strata]"""
    share = np.zeros(len(sizes), np.int64)
    order = np.argsort(sizes, kind="stable")
    for i, at in enumerate(order):
        left = total - share.sum()
        share[at] = min(sizes[at], -(-left // (len(order) - i)) if i == len(order) - 1 else left // (len(order) - i))
    return share


def k_center(vectors: np.ndarray, n: int) -> np.ndarray:
    """Positions of n vectors, each the farthest from those before it; the first is the first. [n]"""
    chosen = [0]
    nearest = vectors @ vectors[0]
    while len(chosen) < n:
        far = int(nearest.argmin())
        chosen.append(far)
        np.maximum(nearest, vectors @ vectors[far], out=nearest)
    return np.array(chosen)


class Embedder:
    """Unit vectors of rows, by a model or by hashed n-grams (words one and two at a time, characters three)."""

    def __init__(self, pool: Pool, on: str, model: Path | None):
        self.pool, self.on = pool, on
        self.model = _Model(model) if model else None
        self.width = self.model.width if self.model else WIDTH

    def __call__(self, at: np.ndarray) -> np.ndarray:
        """The vectors of the rows at some positions. [rows, width] float32"""
        sides = ["prompt"] if self.on == "prompt" else ["prompt", "response"]
        if self.model:
            texts = zip(*[[t or "" for t in self.pool.column(s, at).to_pylist()] for s in sides], strict=True)
            return self.model(["\n".join(t) for t in texts])
        return unit(sum(hashed(self.pool.units(side).take(at)) for side in sides))


def hashed(u: Units) -> np.ndarray:
    """Signed, square-rooted counts of hashed words and word pairs (one to three characters). [texts, WIDTH]"""
    out = np.zeros(len(u.counts) * WIDTH, np.float32)
    for n in (1, 2, 3):
        g, offsets = grams(u, n)
        text = np.repeat(np.arange(len(u.counts)), np.diff(offsets))
        use = u.chars[text] | (n < 3)
        cell = text * WIDTH + (mix(g) % U64(WIDTH)).astype(np.int64)
        sign = np.where(mix(g ^ U64(1)) & U64(1), 1.0, -1.0)
        out += np.bincount(cell[use], sign[use], minlength=len(out)).astype(np.float32)
    return (np.sign(out) * np.sqrt(np.abs(out))).reshape(-1, WIDTH)


def unit(vectors: Any) -> np.ndarray:
    """Vectors of length one (zero stays zero). [rows, width] float32"""
    return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)).astype(np.float32)


class _Model:
    """Mean last hidden states of a transformers model."""

    def __init__(self, folder: Path):
        if not (folder / "config.json").is_file():
            raise InputError(f"{folder} is not a model directory (it has no config.json); set filter's embedding.")
        from transformers import AutoModel, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder).eval()
        self.width = int(self.model.config.hidden_size)

    def __call__(self, texts: list[str]) -> np.ndarray:
        import torch

        found = np.zeros((len(texts), self.width), np.float32)
        limit = min(getattr(self.model.config, "max_position_embeddings", 512), 512)
        ids = self.tokenizer(texts, truncation=True, max_length=limit)["input_ids"]
        for start in range(0, len(texts), 32):
            part = [i or [0] for i in ids[start : start + 32]]
            tokens, mask = torch.zeros(len(part), max(map(len, part)), dtype=torch.long), None
            mask = torch.zeros_like(tokens)
            for row, i in enumerate(part):
                tokens[row, : len(i)], mask[row, : len(i)] = torch.tensor(i), 1
            with torch.inference_mode():
                hidden = self.model(input_ids=tokens, attention_mask=mask).last_hidden_state
            mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            found[start : start + 32] = mean.float().numpy()
        return unit(found)
