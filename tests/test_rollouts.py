"""What a step of online RL draws: groups that vary, every prompt in its turn, and others at every step."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny

from align.errors import StageError
from align.models.base import BaseConfig
from align.models.engine import Sampling
from align.models.generate import Sampler
from align.models.rollouts import Rollout, Rollouts, varied


class Alternate:
    """Rewards by position, so that the groups of every second prompt are dead."""

    def __call__(self, rows: Any, drawn: Any) -> list[Rollout]:
        return [replace(r, reward=float(r.sample_index) if int(r.row_id[1:]) % 2 else 1.0) for r in drawn]


@pytest.fixture(scope="module")
def sampler(base: BaseConfig, adapter: Path) -> Sampler:
    return Sampler(base, adapter)


def rollouts(sampler: Sampler, folder: Path, reserve: float, prompts: int = 4) -> Rollouts:
    rows = [tiny.row(i) for i in range(20)]
    sampling = Sampling(n=4, max_new_tokens=4, seed=3)
    return Rollouts(sampler, rows, sampling, Alternate(), prompts=prompts, reserve=reserve, folder=folder)


def test_dead_groups_give_their_place_to_others(sampler: Sampler, tmp_path: Path) -> None:
    active, plain = rollouts(sampler, tmp_path / "a", 1.0), rollouts(sampler, tmp_path / "b", 0.0)
    live = {True: 0, False: 0}
    for step in range(4):
        for kind, made in ((True, active), (False, plain)):
            groups = made.step(step)
            assert len(groups) == 4
            live[kind] += sum(map(varied, groups))
    assert live[True] >= live[False] + 4
    assert active.window == 8 and plain.window == 4


def test_every_prompt_has_its_turn_and_no_step_has_one_twice(sampler: Sampler, tmp_path: Path) -> None:
    made = rollouts(sampler, tmp_path / "a", 0.25)
    assert made.window == 5 and made.steps_per_epoch == 4
    first = [made.asked(step) for step in range(4)]
    assert sorted(i for step in first for i in step) == list(range(20))
    again = [made.asked(step) for step in range(4, 8)]
    assert sorted(i for step in again for i in step) == list(range(20)) and again != first


def test_other_steps_draw_others_for_the_same_prompt(sampler: Sampler, tmp_path: Path) -> None:
    made = rollouts(sampler, tmp_path / "a", 0.0, prompts=20)
    texts = [{(r.row_id, r.sample_index): r.text for g in made.step(step) for r in g} for step in (0, 1)]
    assert texts[0].keys() == texts[1].keys()
    assert sum(texts[0][k] == texts[1][k] for k in texts[0]) < len(texts[0]) / 2


def test_fewer_prompts_than_a_step_takes(sampler: Sampler, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="A step takes 21 prompts, but there are only 20"):
        rollouts(sampler, tmp_path / "a", 0.0, prompts=21)
