"""The arithmetic of drawing tokens: counter-based random numbers, the inverse CDF, and how rows fork."""

from typing import TYPE_CHECKING

import numpy as np

from align.text import digest

if TYPE_CHECKING:
    import torch

REFILL = 8  # prompts join when one in so many places is free: each time costs a forward pass of its own
SPARE = 0.1  # share of the places that stays free for more forks than are expected, where all samples may share rows


def choose(logits: "torch.Tensor", rows: np.ndarray, u: np.ndarray, temperature: float, top_p: float) -> np.ndarray:
    """One token per sample [B]: from the row of logits [R, V] that it shares, at its random number u in [0, 1).

    The argmax at temperature 0, else the inverse CDF. With top_p < 1 the distribution is cut to the smallest set of
    most likely tokens whose mass reaches top_p (Holtzman et al., 2020).
    """
    import torch

    if temperature == 0:
        return logits.argmax(-1).cpu().numpy()[rows]
    order = np.argsort(rows, kind="stable")
    shared = np.bincount(rows, minlength=len(logits))  # samples of each row
    column = np.empty_like(rows)
    column[order] = np.arange(len(rows)) - np.repeat(np.cumsum(shared) - shared, shared)
    points = np.zeros((len(logits), shared.max()), dtype=np.float32)
    points[rows, column] = u
    point = torch.from_numpy(points).to(logits.device, non_blocking=True)
    probs = torch.softmax(logits.float() / temperature, dim=-1)
    if top_p >= 1:
        cdf = probs.cumsum(-1)
        index = torch.searchsorted(cdf, point * cdf[:, -1:], right=True).clamp(max=probs.shape[-1] - 1)
        return index.cpu().numpy()[rows, column]
    width = min(64, probs.shape[-1])
    while True:
        top, ids = probs.topk(width, dim=-1)
        cdf = top.cumsum(-1)
        if width == probs.shape[-1] or bool((cdf[:, -1] >= top_p).all()):
            break
        width = min(width * 8, probs.shape[-1])
    inside = (cdf - top < top_p).sum(-1, keepdim=True)
    mass = cdf.gather(1, inside - 1)
    index = torch.searchsorted(cdf, point * mass, right=True)
    return ids.gather(1, torch.minimum(index, inside - 1)).cpu().numpy()[rows, column]


def certainty(logits: "torch.Tensor", rows: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Log-probability in nats of the token drawn by each sample [B], from the row of logits [R, V] that it shares."""
    import torch

    at, token = (torch.from_numpy(x).to(logits.device, non_blocking=True) for x in (rows, drawn))
    found = logits[at, token].float() - torch.logsumexp(logits, -1).float()[at]
    return found.cpu().numpy()


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


class Share:
    """How many rows a sample takes, by those that are finished: samples of a prompt share one until they differ.

    It decides when prompts join, and nothing of what is drawn.
    """

    def __init__(self, places: int, samples: int):
        self.places = places
        self._taken = np.zeros(samples)  # of each sample, summed over its steps
        self._rows, self._samples = float(places), places  # as if a batch that shares nothing had been finished

    def saw(self, live: np.ndarray, row: np.ndarray) -> None:
        """A step of the samples `live` [B] in their rows [B]."""
        self._taken[live] += 1 / np.bincount(row)[row]

    def finished(self, samples: np.ndarray, steps: np.ndarray) -> None:
        """Samples that are finished after so many steps each."""
        self._rows += float((self._taken[samples] / steps).sum())
        self._samples += len(samples)

    def rows(self, samples: int) -> float:
        """Rows that so many samples, which share one now, are expected to take."""
        return max(1.0, samples * self._rows / self._samples)

    def free(self, live: int, rows: int) -> float:
        """Places for rows beside those that `live` samples, in so many rows now, take; 0 while too few are free."""
        each = self._rows / self._samples
        free = self.places * (1 - SPARE * (1 - each)) - max(rows, live * each)
        return free if free * REFILL >= self.places else 0.0


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
