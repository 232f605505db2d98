"""The arithmetic of drawing tokens: counter-based random numbers, the inverse CDF, and how rows fork."""

from typing import TYPE_CHECKING

import numpy as np

from align.text import digest

if TYPE_CHECKING:
    import torch


def choose(logits: "torch.Tensor", rows: np.ndarray, u: np.ndarray, temperature: float, top_p: float) -> np.ndarray:
    """One token per sample [B]: from the row of logits [R, V] that it shares, at its random number u in [0, 1).

    The argmax at temperature 0, else the inverse CDF. With top_p < 1 the distribution is cut to the smallest set of
    most likely tokens whose mass reaches top_p (Holtzman et al., 2020).
    """
    import torch

    row = torch.from_numpy(rows).to(logits.device)
    if temperature == 0:
        return logits.argmax(-1)[row].cpu().numpy()
    point = torch.from_numpy(u).to(logits.device)[:, None]
    probs = torch.softmax(logits.float() / temperature, dim=-1)
    if top_p >= 1:
        cdf = probs.cumsum(-1)[row]
        index = torch.searchsorted(cdf, point * cdf[:, -1:], right=True)[:, 0]
        return index.clamp(max=probs.shape[-1] - 1).cpu().numpy()
    width = min(64, probs.shape[-1])
    while True:
        top, ids = probs.topk(width, dim=-1)
        cdf = top.cumsum(-1)
        if width == probs.shape[-1] or bool((cdf[:, -1] >= top_p).all()):
            break
        width = min(width * 8, probs.shape[-1])
    inside = (cdf - top < top_p).sum(-1, keepdim=True)
    mass = cdf.gather(1, inside - 1)
    index = torch.searchsorted(cdf[row], point * mass[row], right=True)
    return ids[row].gather(1, torch.minimum(index, inside[row] - 1))[:, 0].cpu().numpy()


def fork(rows: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The next batch, after samples in `rows` [B] drew tokens `drawn` [B]: one row per distinct (row, token).

    Returns the old row that each new row continues [R], the token that it appends [R], and each sample's new row [B].
    A row that continues stays where it was if there is room, so that little of a cache has to move.
    """
    pairs, sample = np.unique(np.stack([rows, drawn]), axis=1, return_inverse=True)
    parents, tokens = pairs
    first = np.append(True, parents[1:] != parents[:-1])
    stay = first & (parents < len(parents))
    place = np.empty(len(parents), dtype=np.int64)
    place[stay] = parents[stay]
    place[~stay] = np.setdiff1d(np.arange(len(parents)), parents[stay])
    continued, appended = np.empty_like(parents), np.empty_like(tokens)
    continued[place], appended[place] = parents, tokens
    return continued, appended, place[sample.ravel()]


def uniform(keys: np.ndarray, step: int | np.ndarray) -> np.ndarray:
    """Counter-based random numbers in [0, 1): a function of key and step (SplitMix64 of Steele et al., 2014).

    `step` is one for all keys [B], or one for each [B].
    """
    with np.errstate(over="ignore"):
        z = keys + (np.asarray(step).astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)


def key(seed: int, row_id: str, index: int) -> int:
    """The 64-bit key of sample `index` of a prompt."""
    return int(digest(str(seed), row_id, str(index)), 16)
