"""What the report knows of the pipeline: its stages in order, what they are called, and what is asked about each.

The table of stages (flows/stages.py) fills it in; nothing here or in the chapters names a stage.
"""

from align.config import Config
from align.report.words import say


class Question(Config):
    """What a stage did, answered by comparing two models."""

    topic: str
    """What the answer is headed; {round} stands for the round of its stage."""
    model: str
    """The model that the stage made better, or not."""
    against: str
    """The model that it is compared with."""


class Part(Config):
    """One stage of the pipeline."""

    stage: str
    """Its name in the DAG; of a stage that trains a policy also the model's."""
    title: str
    """What people call it, or the model it makes, in a sentence."""
    round: int = 1
    """Which round of the chain it is of."""
    seed: int = 1
    """Which seed of the last policy it is of."""
    policy: bool = False
    """Whether it trains a policy, which is then evaluated."""
    control: bool = False
    """Whether it is only there to be compared with."""
    added_by: str = ""
    """The key of the recipe that adds it, where it is not always there."""
    questions: tuple[Question, ...] = ()
    """What is asked about it."""

    @property
    def called(self) -> str:
        """Its title in the language that is spoken, with its round."""
        title = say(self.title)
        if self.seed > 1:
            return say("{title}, seed {seed}", title=title, seed=self.seed)
        return title if self.round == 1 else say("{title}, round {round}", title=title, round=self.round)


class Outline(Config):
    """The stages, in the order in which they are shown: a control before what it controls for."""

    parts: tuple[Part, ...]
    """All of them."""
    final: str = ""
    """The model that the chain ends with, where that is not the last of its own."""

    def part(self, name: str) -> Part | None:
        """The part of that name."""
        return next((part for part in self.parts if part.stage == name), None)

    def title(self, model: str) -> str:
        """What a model is called in a sentence."""
        if model == "base":
            return say("the base model")
        part = self.part(model)
        return part.called if part else model

    def is_control(self, model: str) -> bool:
        """Whether a model is only there to be compared with."""
        part = self.part(model)
        return part is not None and part.control

    def place(self, model: str) -> tuple[int, str]:
        """A sort key: the base first, then the order of the parts, then what no part is about."""
        names = ["base", *(part.stage for part in self.parts)]
        return (names.index(model) if model in names else len(names), model)

    @property
    def policies(self) -> list[str]:
        """The pipeline's own models, without base and controls."""
        return [part.stage for part in self.parts if part.policy and not part.control]

    @property
    def questions(self) -> list[Question]:
        """Everything that is asked, in order."""
        return [question for part in self.parts for question in part.questions]
