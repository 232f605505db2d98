"""The order of training rows: by like length, shuffled, and the same whoever asks, from seed and epoch alone.

So a training that is resumed in a later epoch, and processes that share one, go through the rows of the undisturbed
one. transformers' LengthGroupedSampler draws its order from torch's global state, which differs there.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
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


def batches(rows: Sequence[int], size: int, passes: int, processes: int) -> list[list[int]]:
    """The passes over `rows`, in the order in which they are dealt to the processes in turn, for an epoch.

    A step takes `size` * `passes` * `processes` rows. What is left at the end is shared evenly, so that a step has the
    same rows in any number of processes and passes. Only where there are fewer rows than processes some rows repeat.
    """
    step, found = size * passes * processes, []
    for at in range(0, len(rows), step):
        left = list(rows[at : at + step])
        parts = processes * math.ceil(len(left) / (size * processes))
        left += [left[i % len(left)] for i in range(parts - len(left))]
        cuts = [round(i * len(left) / parts) for i in range(parts + 1)]
        found += [left[a:b] for a, b in pairwise(cuts)]
    return found


class Batches:
    """A batch sampler for torch's DataLoader."""

    def __init__(self, trainer: Any, lengths: Sequence[int]):
        args = trainer.args
        self.trainer, self.lengths, self.seed = trainer, lengths, args.seed
        self.split = (args.train_batch_size, args.gradient_accumulation_steps, args.world_size)

    def _epoch(self) -> int:
        return int(float(self.trainer.state.epoch or 0.0) + 1e-6)  # 1.0 after the first, 1.35 where one goes on

    def __len__(self) -> int:
        return len(batches(range(len(self.lengths)), *self.split))

    def __iter__(self) -> Iterator[list[int]]:
        rows = order(self.lengths, math.prod(self.split), self.seed, self._epoch())
        return iter(batches(rows, *self.split))


def install(trainer: Any) -> None:
    """Let a trainer take its rows in this order. Rows without a column `length` count as equally long."""
    data, args = trainer.train_dataset, trainer.args
    lengths = list(data["length"]) if "length" in data.column_names else [1] * len(data)

    def loader() -> Any:
        from torch.utils.data import DataLoader

        made: Any = DataLoader(
            data,
            batch_sampler=Batches(trainer, lengths),
            collate_fn=trainer.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
        )
        return trainer.accelerator.prepare(made)

    trainer.get_train_dataloader = loader
    if args.world_size > 1:
        _gather_uneven(trainer.accelerator)


def _gather_uneven(accelerator: Any) -> None:
    """Let processes gather a value per row where one has a row more than another, which the backend would abort at."""
    import torch

    gather = accelerator.gather

    def gathered(found: Any) -> Any:
        if not torch.is_tensor(found) or found.ndim == 0:
            return gather(found)
        sizes = gather(torch.tensor([len(found)], device=found.device)).tolist()
        most = max(sizes)
        padded = torch.cat([found, found.new_zeros(most - len(found), *found.shape[1:])])
        return torch.cat([part[:n] for part, n in zip(gather(padded).split(most), sizes, strict=True)])

    accelerator.gather = gathered
