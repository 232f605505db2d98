"""The table of stages: everything about a stage that is not its code, its settings or its place in the DAG.

From it come the forms and deployments, the tasks' tags, `align memory`, the report's order, names and questions, and
the model that chat and export use. To add a stage: its file in tasks/, its field in the recipe, a line in the DAG, and
a row here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_type_hints

from align.config import Config, Metrics
from align.models.engine import Sampling
from align.models.memory import Load
from align.report.outline import Outline, Part, Question
from flows.rounds import of_round
from flows.seeds import further, of_seed
from tasks.answer import AnswerConfig, answer
from tasks.diagnose import diagnose
from tasks.dpo import dpo
from tasks.evaluate import evaluate
from tasks.filter import filter
from tasks.fresh import fresh
from tasks.gate import GateConfig, gate
from tasks.grpo import grpo
from tasks.ingest import ingest
from tasks.newest import NewestConfig, newest
from tasks.pairs import pairs
from tasks.promote import Contest, promote
from tasks.reference import ReferenceConfig, reference
from tasks.report import report
from tasks.reward import reward
from tasks.sample import SampleConfig, sample
from tasks.select import select
from tasks.sft import sft

if TYPE_CHECKING:
    from flows.chain import Champion
    from flows.recipe import Recipe


@dataclass(frozen=True)
class Stage:
    """A row of the table."""

    name: str
    """Its name in the DAG, in the store and on the command line; of a policy also the model's."""
    function: Callable[..., Metrics]
    """What it does: `(config, out, **inputs) -> metrics`."""
    title: str
    """What people call it, or the model that it makes."""
    load: Load | None = None
    """What it puts on a GPU, by which its memory is estimated; None if it only reads."""
    settings: str = ""
    """The recipe's field with its settings; "" if that is its name. A control has those of what it controls for."""
    slice: "Callable[[Recipe], Config] | None" = None
    """Its settings, where they are part of another stage's."""
    policy: bool = False
    """Whether it trains a policy that is evaluated."""
    control: bool = False
    """Whether it is there only to be compared with."""
    added_by: str = ""
    """The key of the recipe that adds it: one of `controls`, or of `chain`."""
    repeats: bool = False
    """Whether each round of the chain has it."""
    retries: int = 0
    """How often it is tried again after a failure."""
    timeout: float | None = None
    """Seconds after which its process is ended; None: never."""
    questions: tuple[tuple[str, str, str], ...] = ()
    """What the report asks about it: topic, model, and the model that it is compared with, or the recipe's key that
    names that."""

    @property
    def field(self) -> str:
        """The recipe's field with its settings."""
        return self.settings or self.name

    @property
    def config(self) -> type[Config]:
        """The class of its settings: its field's in the recipe, which may be narrower than its function's."""
        from flows.recipe import Recipe

        hints = get_type_hints(self.function) if self.slice else get_type_hints(Recipe)
        found: type[Config] = hints["config" if self.slice else self.field]
        return found

    def config_of(self, recipe: "Recipe") -> Config:
        """Its settings in a recipe."""
        found: Config = self.slice(recipe) if self.slice else getattr(recipe, self.field)
        return found

    @property
    def alone(self) -> bool:
        """Whether people run it by itself, with its settings as a form: it has some of its own."""
        return self.slice is None and not (self.control and self.settings)

    @property
    def gpu(self) -> bool:
        """Whether it wants a GPU, where there is one."""
        return self.load is not None

    @property
    def memory(self) -> int:
        """MB of the machine's memory that a job of it asks for: what loads a model reads its weights there first."""
        return 16_000 if self.gpu else 4_000

    @property
    def tags(self) -> list[str]:
        """What its task is tagged with in the UI."""
        kinds = {None: "reads", "sample": "samples", "score": "scores"}
        return ["align", kinds.get(self.load, "trains"), *(["gpu"] if self.gpu else [])]


def _answers(recipe: "Recipe") -> AnswerConfig:
    """What of evaluate's settings decides what is drawn: another grader draws nothing again."""
    e = recipe.evaluate
    shared = {name: getattr(e, name) for name in Sampling.model_fields}
    return AnswerConfig(suites=e.asked, benchmarks=e.benchmarks, **shared)


def _reference(recipe: "Recipe") -> ReferenceConfig:
    """What of dpo's settings decides log-probabilities: another beta, rate or loss scores nothing again."""
    d = recipe.dpo
    shared = {name: getattr(d, name) for name in ("max_length", "max_truncated_share", "limit")}
    shared["seed"] = d.seed if d.limit else 0  # it decides which pairs a limit takes, and nothing else
    return ReferenceConfig(**shared, batch_size=2 * d.per_device_train_batch_size)  # a pair is two sequences


def _gate(recipe: "Recipe") -> GateConfig:
    """What the gate asks for, and how sample draws: those draws are then kept for both."""
    s, asked = recipe.sample, recipe.chain.gate
    held_out = [recipe.pairs, *([recipe.pairs_dpo] if recipe.chain.dpo_pairs != "pairs" else [])]
    return GateConfig(
        **{name: getattr(s, name) for name in SampleConfig.model_fields},
        held_out=tuple((p.held_out, p.seed) for p in held_out),
        grader=recipe.pairs.grader if asked.grader.kind == "none" else asked.grader,
        level=asked.level,
    )  # fmt: skip


def _newest(recipe: "Recipe") -> NewestConfig:
    """Which policies and gates there are."""
    return NewestConfig(policies=recipe.chain.policies, gates=recipe.chain.gates)


# In the order of the report: a control stands before what it controls for.
STAGES = (
    Stage("ingest", ingest, "reading the data"),
    Stage("fresh", fresh, "what has come since the champion", added_by="chain.rows"),
    Stage("filter", filter, "the filter", questions=(("Filtering", "sft", "sft_unfiltered"),)),
    Stage(
        "sft_unfiltered", sft, "SFT on unfiltered rows", "sft", settings="sft", policy=True, control=True,
        added_by="controls.unfiltered",
    ),
    Stage("sft", sft, "SFT", "sft", policy=True, questions=(("Supervised fine-tuning", "sft", "base"),)),
    Stage("sample", sample, "sampling for pairs", "sample", repeats=True),
    Stage("pairs", pairs, "preference pairs", repeats=True),
    Stage("reward", reward, "the reward model", "reward", repeats=True),
    Stage("resample", sample, "sampling for selection", "sample", repeats=True),
    Stage(
        "select", select, "selection", "score", repeats=True,
        questions=(("Choosing the best of n", "sft_rs", "sft_random"),),
    ),
    Stage(
        "sft_random", sft, "the control arm (a random response of the n)", "sft", settings="sft_rs", policy=True,
        control=True, added_by="controls.random_of_n",
    ),
    Stage(
        "sft_rs", sft, "rejection sampling (best of n)", "sft", policy=True, repeats=True,
        questions=(("Rejection sampling", "sft_rs", "sft"),),
    ),
    Stage("sample_dpo", sample, "sampling for DPO", "sample", added_by="chain.dpo_pairs", repeats=True),
    Stage("pairs_dpo", pairs, "preference pairs of fresh samples", "score", added_by="chain.dpo_pairs", repeats=True),
    Stage("reference", reference, "the reference of DPO", "score", slice=_reference, repeats=True),
    Stage(
        "dpo", dpo, "DPO", "dpo", policy=True, repeats=True,
        questions=(("DPO", "dpo", "sft_rs"), ("The whole chain after SFT", "dpo", "sft")),
    ),
    Stage(
        "gate", gate, "whether the round helped", "sample", settings="sample", slice=_gate, added_by="chain.rounds",
        repeats=True,
    ),
    Stage("newest", newest, "the policy that the rounds end with", slice=_newest, added_by="chain.rounds"),
    Stage(
        "sft_longer", sft, "the control arm of online RL (more SFT)", "sft", policy=True, control=True,
        added_by="controls.longer",
    ),
    Stage(
        "grpo", grpo, "online RL (GRPO)", "grpo", policy=True, added_by="chain.grpo",
        questions=(("Online RL", "grpo", "chain.grpo"), ("Online RL against more SFT", "grpo", "sft_longer")),
    ),
    Stage("answer", answer, "answers to the evaluation items", "sample", settings="evaluate", slice=_answers),
    Stage("evaluate", evaluate, "evaluation"),
    Stage("diagnose", diagnose, "what the reward model says of the answers", "score", added_by="chain.diagnose"),
    Stage("promote", promote, "promotion", added_by="promote.against"),
    Stage("report", report, "the report"),
)  # fmt: skip

TABLE = {stage.name: stage for stage in STAGES}


def row(node: str) -> Stage:
    """The row of a node of the DAG: of the same name, or of the stage that it is one of (answer_sft is of answer, and
    sft_rs_r2 of sft_rs)."""
    while node not in TABLE:
        node, cut, _ = node.rpartition("_")
        if not cut:
            raise KeyError(node)
    return TABLE[node]


def present(recipe: "Recipe") -> list[Stage]:
    """The rows of the table without those that the recipe's chain leaves out, and the controls of those."""
    found: list[Stage] = []
    there = True
    for s in reversed(STAGES):
        if not s.control:
            there = not s.added_by or _value(recipe, s.added_by) not in ("none", "pairs", "all", "1", "False")
        found += [s] if there else []
    return found[::-1]


def outline(recipe: "Recipe") -> Outline:
    """The table as the report of a recipe is told it."""
    rows = present(recipe)
    parts = [_part(recipe, s) for s in rows]
    repeated = [s for s in rows if s.repeats]
    after = rows.index(repeated[-1]) + 1
    again = [part for k in range(2, recipe.chain.rounds + 1) for part in _round(recipe, repeated, k)]
    against = Question(topic="The run against the champion", model=final(recipe), against="champion")
    before = Part(stage="champion", title="the champion", control=True, questions=(against,))
    whole = (*([before] if contender(recipe) else []), *parts[:after], *again, *parts[after:])
    return Outline(parts=tuple(each for part in whole for each in (part, *_seeded(recipe, part))))


def _seeded(recipe: "Recipe", part: Part) -> list[Part]:
    """The parts of a stage's further seeds, which are there to be compared with the first."""
    told = {"control": True, "added_by": "chain.seeds", "questions": ()}
    seeds = further(recipe, part.stage)
    return [part.model_copy(update={"stage": of_seed(part.stage, k), "seed": k, **told}) for k in seeds]


def _part(recipe: "Recipe", s: Stage) -> Part:
    asked = tuple(
        Question(topic=_told(recipe, topic), model=model, against=_started(recipe, other) if "." in other else other)
        for topic, model, other in s.questions
    )
    told = {"stage": s.name, "title": _told(recipe, s.title), "questions": asked}
    return Part(**told, policy=s.policy, control=s.control, added_by=s.added_by)


def _told(recipe: "Recipe", words: str) -> str:
    """What the table says, where a recipe has another method in its place."""
    return words.replace("DPO", "KTO") if recipe.dpo.unpaired else words


def _round(recipe: "Recipe", repeated: list[Stage], k: int) -> list[Part]:
    """The parts of round k. What is asked about it is what its last policy has over that of the round before."""
    last = [s.name for s in repeated if s.policy][-1]
    asked = (Question(topic="Round {round}", model=of_round(last, k), against=of_round(last, k - 1)),)
    return [
        Part(
            stage=of_round(s.name, k), title=_told(recipe, s.title), round=k, policy=s.policy, added_by="chain.rounds",
            questions=asked if s.name == last else (),
        )
        for s in repeated
    ]  # fmt: skip


def final(recipe: "Recipe") -> str:
    """The model that a recipe ends with; newest, where that depends on which rounds help."""
    if recipe.chain.rounds > 1 and recipe.chain.grpo == "none":
        return "newest"
    return [s.name for s in present(recipe) if s.policy and not s.control][-1]


def _started(recipe: "Recipe", key: str) -> str:
    """The policy that a key names; of several rounds the newest."""
    return "newest" if recipe.chain.rounds > 1 else _value(recipe, key)


def contender(recipe: "Recipe") -> "Champion | None":
    """The champion, where the final model is compared with it."""
    return recipe.champion if recipe.promote.against == "champion" else None


def contest(recipe: "Recipe") -> Contest:
    """Whom the final model of a recipe is compared with, and what may not fall."""
    asked, first = recipe.promote, recipe.promote.against == "champion" and not recipe.champion
    return Contest(
        model=final(recipe), against="sft" if first else asked.against, mode=asked.mode or recipe.evaluate.primary,
        guards={name: suite.guard for name, suite in recipe.evaluate.suites.items()},
        note="there is no champion yet, so that it is compared with sft" if first else "",
    )  # fmt: skip


def _value(recipe: "Recipe", key: str) -> str:
    group, _, name = key.partition(".")
    return str(getattr(getattr(recipe, group), name))
