"""Which stages a recipe has beside those of every recipe, and which control arms."""

from typing import Literal

from pydantic import Field

from align.config import Config
from align.models.base import BaseConfig


class Controls(Config):
    """Which control arms are trained and evaluated beside the pipeline's own."""

    random_of_n: bool = True
    """SFT on a random response of the n instead of the best: what rejection sampling is compared with."""
    longer: bool = False
    """More SFT on what the filter kept, from the policy that grpo starts from: what online RL is compared with."""
    unfiltered: bool = False
    """SFT on an equal number of random unfiltered rows: what the filter is compared with."""


class Champion(Config):
    """The champion that a run of the recipe found in the store as it began."""

    number: int
    """Which champion of the recipe it is."""
    run_id: str
    """The run that made it."""
    artifact: str
    """Its weights."""
    base: BaseConfig
    """What they are an adapter of."""
    rows: str = ""
    """What ingest made in its run, where chain.rows is new."""


class Chain(Config):
    """Which stages there are beside those of every recipe."""

    rows: Literal["all", "new"] = "all"
    """What is trained on: all that ingest reads, or what has come since the champion's run and some of what it knew,
    starting from the champion (stage fresh; all while there is no champion)."""

    dpo_pairs: Literal["pairs", "fresh", "both"] = "pairs"
    """What dpo trains on: the pairs that the reward model is trained on, those of fresh samples of the policy that dpo
    starts from (stages sample_dpo and pairs_dpo), or both."""
    rewards: int = Field(default=1, ge=1, le=16)
    """Reward models that select asks, of different seeds."""

    grpo: Literal["none", "sft_rs", "dpo"] = "none"
    """The policy that online RL goes on from; none leaves that stage out."""
