"""The order of training rows: by like length, shuffled, and the same whoever asks, from seed and epoch alone.

So a training that is resumed in a later epoch, and processes that share one, go through the rows of the undisturbed
one. transformers' LengthGroupedSampler draws its order from torch's global state, which differs there.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

SPAN = 50  # batches that are sorted together, at most


def order(lengths: Sequence[int], batch: int, seed: int, epoch: int) -> list[int]:
    """Positions in `lengths` in the order of an epoch.

    Rows are shuffled, then sorted by length within spans of up to 50 batches of `batch` rows (of one optimiser step),
    as transformers does; the longest row of all comes first, so that memory runs out at once or never.
    """
    n = len(lengths)
    shuffled = np.random.default_rng([seed, epoch]).permutation(n)
    span = batch * max(1, min(n // (4 * batch), SPAN))
    spans = [sorted(shuffled[at : at + span].tolist(), key=lambda i: -lengths[i]) for at in range(0, n, span)]
    if spans:
        longest = max(range(len(spans)), key=lambda s: lengths[spans[s][0]])
        spans[0][0], spans[longest][0] = spans[longest][0], spans[0][0]
    return [i for s in spans for i in s]


class Order:
    """A sampler for torch's DataLoader."""

    def __init__(self, lengths: Sequence[int], batch: int, seed: int, epoch: Callable[[], int]):
        self.lengths, self.batch, self.seed, self.epoch = lengths, batch, seed, epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        return iter(order(self.lengths, self.batch, self.seed, self.epoch()))


def install(trainer: Any) -> None:
    """Let a trainer take its rows in this order. Rows without a column `length` count as equally long."""
    args, data = trainer.args, trainer.train_dataset
    lengths = list(data["length"]) if "length" in data.column_names else [1] * len(data)
    step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size  # halving the first keeps it

    def epoch() -> int:
        return int(float(trainer.state.epoch or 0.0) + 1e-6)  # it is 1.0 after the first, 1.35 where one goes on

    trainer._get_train_sampler = lambda *_: Order(lengths, step, args.seed, epoch)
