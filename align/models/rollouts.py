"""Responses that a policy draws while it is trained, and what they are worth: the data of online RL.

A step takes `prompts` groups of n responses to one prompt each. A group whose rewards are all equal teaches nothing, so
a step has more prompts than it takes, and those that turned out so give their place to the next (active sampling, as in
OLMo 3, 2025). Which prompts a step has depends on seed and step alone, and so does what is drawn for them from given
weights: a training that goes on from a checkpoint, or in several processes, sees what an undisturbed one does.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from align import tables
from align.errors import StageError
from align.models.engine import Prompt, Sampling
from align.models.generate import Sampler
from align.models.shards import gather, of_first, rank, share
from align.progress import silent
from align.whole import draft_of

Row = dict[str, Any]


@dataclass(frozen=True)
class Rollout:
    """A response with its reward."""

    row_id: str
    sample_index: int
    ids: list[int]
    """Tokens of the prompt."""
    tokens: list[int]
    """Tokens of the response, the stop token among them."""
    text: str
    finish_reason: str
    grade: float | None = None
    """The grader's score; None where ungraded, or without a grader."""
    score: float | None = None
    """The reward model's; None without one."""
    reward: float | None = None
    """The weighted sum; None where a part of it is missing, so that nothing is learned from it."""


class Reward(Protocol):
    """What responses are worth."""

    def __call__(self, rows: Sequence[Row], drawn: Sequence[Rollout]) -> list[Rollout]:
        """`drawn`, to the rows at the same positions, with grade, score and reward."""
        ...


def varied(group: Sequence[Rollout]) -> bool:
    """Whether a group's rewards differ, so that some responses have an advantage over others."""
    return len({r.reward for r in group if r.reward is not None}) > 1


class Rollouts:
    """Draws and rewards the groups of each step, and writes them down."""

    def __init__(
        self,
        sampler: Sampler,
        rows: Sequence[Row],
        sampling: Sampling,
        reward: Reward,
        *,
        prompts: int,
        reserve: float,
        folder: Path,
    ):
        """`rows` (of ROWS) are the prompts; `prompts` of them make a step, which may try `reserve` times as many more.

        `folder` gets a file per step. Raises StageError where there are fewer rows than a step takes.
        """
        encoded = sampler.chat.prompts([r["messages"] for r in rows])
        self.fits = [i for i, ids in enumerate(encoded) if len(ids) < sampler.context]
        self.too_long = len(rows) - len(self.fits)
        if len(self.fits) < prompts:
            raise StageError(
                f"A step takes {prompts} prompts, but there are only {len(self.fits)} (of {len(rows)} {self.too_long} "
                "fill the context); lower per_device_train_batch_size or gradient_accumulation_steps."
            )
        self.sampler, self.rows, self.encoded, self.sampling, self.reward = sampler, rows, encoded, sampling, reward
        self.prompts, self.folder = prompts, folder
        self.window = min(len(self.fits), prompts + int(np.ceil(prompts * reserve)))
        self.tried = self.dead = 0
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every prompt has its turn once, but for those that are left over."""
        return len(self.fits) // self.window

    def asked(self, step: int) -> list[int]:
        """Positions of the prompts of a step, from 0, in the order in which they are tried."""
        epoch, at = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self.sampling.seed, epoch]).permutation(self.fits)
        return [int(i) for i in order[at * self.window : (at + 1) * self.window]]

    def step(self, step: int) -> list[list[Rollout]]:
        """The groups that a step trains on: those that vary, and as many others as are missing then."""
        todo = self.asked(step)
        live: list[list[Rollout]] = []
        dead: list[list[Rollout]] = []
        while todo and len(live) < self.prompts:
            missing = self.prompts - len(live)
            some = todo[: missing if not live and not dead else 2 * missing]  # of those, about half are dead too
            todo = todo[len(some) :]
            for group in self._groups(some, step):
                (live if varied(group) else dead).append(group)
        self.tried, self.dead = len(live) + len(dead), len(dead)
        every = [*live, *dead]
        if rank() == 0:
            self._write(step, [(group, i < self.prompts) for i, group in enumerate(every)])
        return every[: self.prompts]

    def _groups(self, some: Sequence[int], step: int) -> Iterator[list[Rollout]]:
        """The groups of the prompts at these positions; processes share the work, and all get everything."""
        mine = share(some)
        found = dict(zip(mine, self._draw(mine, step), strict=True))
        everyones = {at: group for theirs in gather(found) for at, group in theirs.items()}
        yield from (everyones[at] for at in some)

    def _draw(self, some: Sequence[int], step: int) -> list[list[Rollout]]:
        if not some:
            return []
        asked = [Prompt(self.rows[i]["row_id"], self.rows[i]["messages"]) for i in some]
        ids = [self.encoded[i] for i in some]
        sampling = self.sampling.model_copy(update={"seed": int(np.random.SeedSequence(
            [self.sampling.seed, step]).generate_state(1)[0])})  # fmt: skip
        drawn: dict[tuple[int, int], Rollout] = {}
        with silent():
            for ended in self.sampler.tokens(asked, ids, range(len(some)), sampling):
                said = self.sampler.chat.read([d.content for d in ended])
                for d, (text, _) in zip(ended, said, strict=True):
                    reason = "stop" if d.stopped else "truncated"
                    drawn[d.prompt, d.index] = Rollout(
                        asked[d.prompt].row_id, d.index, list(ids[d.prompt]), d.tokens, text, reason
                    )
            n = sampling.n
            listed = [drawn[i, k] for i in range(len(some)) for k in range(n)]
            worth = self.reward([self.rows[i] for i in some for _ in range(n)], listed)
        return [worth[at : at + n] for at in range(0, len(worth), n)]

    def _write(self, step: int, groups: Sequence[tuple[Sequence[Rollout], bool]]) -> None:
        rows = [
            {
                "step": step + 1, "trained": trained, "n_tokens": len(r.tokens),
                **{name: getattr(r, name) for name in tables.ROLLOUTS.names if hasattr(r, name)},
            }
            for group, trained in groups for r in group
        ]  # fmt: skip
        draft = draft_of(self.folder / _name(step))
        tables.write(draft, rows, tables.ROLLOUTS)
        draft.replace(self.folder / _name(step))

    def collect(self, steps: int, out: Path) -> list[Row]:
        """Write rollouts.parquet of all steps; its rows. Raises StageError where the file of a step is missing."""
        missing = [s + 1 for s in range(steps) if not (self.folder / _name(s)).is_file()]
        if missing:
            raise StageError(f"The rollouts of step {missing[0]} are missing from {self.folder}; run the stage again.")
        rows = [row for s in range(steps) for row in tables.read(self.folder / _name(s))]
        tables.write(out / "rollouts.parquet", rows, tables.ROLLOUTS)
        of_first(None)  # all have read them
        if self.folder.parent == out:
            shutil.rmtree(self.folder)
        return rows


def _name(step: int) -> str:
    return f"{step + 1:07}.parquet"


def undecided(rows: Sequence[Row], samples: Sequence[Row], scores: Sequence[Row], by: str) -> list[Row]:
    """`rows` without those whose earlier samples (SAMPLES, graded `by` in SCORES) all have one grade: a group of them
    would most likely too. Rows with fewer than two graded samples stay."""
    grades = {s["sample_id"]: s["score"] for s in scores if s["scored_by"] == by and s["score"] is not None}
    known: dict[str, list[float]] = {}
    for s in samples:
        if s["sample_id"] in grades:
            known.setdefault(s["row_id"], []).append(grades[s["sample_id"]])
    return [r for r in rows if len(known.get(r["row_id"], ())) < 2 or len(set(known[r["row_id"]])) > 1]
