"""Which stages a recipe has beside those of every recipe, and which control arms."""

from typing import Literal

from pydantic import Field

from align.config import Config
from align.grading.graders import AnyGrader, NoGrader
from align.models.base import BaseConfig
from flows.rounds import of_round


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


class Gate(Config):
    """How a round is shown to help: the policies that it begins and ends with answer those prompts of sample that pairs
    holds out from training, drawn as sample draws. Evaluation items decide nothing."""

    grader: AnyGrader = NoGrader()
    """What grades those answers; none: that of pairs."""
    level: float = Field(default=0.95, gt=0.5, lt=1)
    """Level of the interval of the paired difference, which must lie above 0."""


class Chain(Config):
    """Which stages there are beside those of every recipe."""

    rows: Literal["all", "new"] = "all"
    """What is trained on: all that ingest reads, or what has come since the champion's run and some of what it knew,
    starting from the champion (stage fresh; all while there is no champion)."""
    rounds: int = Field(default=1, ge=1, le=16)
    """How often sample to dpo is done, each time from the newest policy; the stages of round 2 are called sample_r2 and
    so on. After each a stage gate says whether it helped; where that is not shown, later rounds are skipped."""
    reward_each_round: bool = True
    """Train reward models anew in each round, from its policy and on its pairs; else the first round's are kept."""
    gate: Gate = Gate()
    """What a round must show before the next one is trained."""

    dpo_pairs: Literal["pairs", "fresh", "both"] = "pairs"
    """What dpo trains on: the pairs that the reward model is trained on, those of fresh samples of the policy that dpo
    starts from (stages sample_dpo and pairs_dpo), or both."""
    rewards: int = Field(default=1, ge=1, le=16)
    """Reward models that select asks, of different seeds."""

    diagnose: bool = False
    """Have the reward model score the evaluation's answers, and estimate how far each policy is from the base (stage
    diagnose), so that the report can say where rewards rise while the grade falls, and what went far for nothing. It
    grades nothing."""
    seeds: int = Field(default=1, ge=1, le=16)
    """How often the last policy is trained, with seeds that follow on the stage's own; the others' stages are called
    dpo_s2 and so on, and all are evaluated. What seeds differ by is in the interval of every comparison of that policy;
    the weights that the run ends with are the first's."""

    grpo: Literal["none", "sft_rs", "dpo"] = "none"
    """The policy that online RL goes on from, the newest of several rounds; none leaves that stage out."""

    @property
    def policies(self) -> tuple[str, ...]:
        """What rounds may end with: the policy that the first begins with, and what each of them makes."""
        last = "dpo" if self.grpo == "none" else self.grpo
        return ("sft", *(of_round(last, k) for k in range(1, self.rounds + 1)))

    @property
    def gates(self) -> tuple[str, ...]:
        """The gates, each after its round."""
        return tuple(of_round("gate", k) for k in range(1, self.rounds + 1))
