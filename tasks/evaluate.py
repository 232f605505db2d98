"""Grading the answers of every policy of the chain to the same held-out items, with paired intervals."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from align import tables
from align.config import EXECUTION, Metrics, Seed
from align.errors import StageError
from align.grading.conversation import items_of
from align.grading.grade import Grade, ungraded
from align.grading.graders import AnyGrader, NoGrader
from align.grading.kept_grades import grade_kept
from align.grading.likely import about_expected, about_options, grade_expected, grade_option
from align.grading.suites import OTHERS, Asked, Items, items
from align.models.engine import Sampling
from align.models.tools import has_tools
from align.paired import paired_difference
from align.power import detectable, worst_error
from align.progress import tell
from align.stats import item_means, mean_interval

Row = dict[str, Any]
Mode = Literal["greedy", "sampled"]


class SuiteConfig(Asked):
    """How the rows of one source are evaluated."""

    grader: AnyGrader = NoGrader()
    """What grades the responses of kind generate; never the reward model, which would judge the policy that it helped
    to train."""
    guard: Annotated[float | None, EXECUTION] = Field(default=None, ge=0, le=1)
    """How far a model may fall on this suite and still be promoted, as a share: 0.02 is two points; null: any."""

    @property
    def by_itself(self) -> bool:
        """Whether a response is written, and its grade depends on nothing that another model says."""
        return self.kind == "generate"

    def contradictions(self) -> Iterator[str]:
        for name in self.changed("grader", "turns") if self.kind != "generate" else ():
            yield f"{name}: has no effect where kind is {self.kind}; leave it out."
        for name in self.changed("options") if self.kind != "multiple_choice" else ():
            yield f"{name}: has no effect where kind is {self.kind}; leave it out, or set kind to multiple_choice."


class EvaluateConfig(Sampling):
    """Settings of evaluate, and of the answers that it grades."""

    suites: dict[str, SuiteConfig] = {OTHERS: SuiteConfig()}
    """Suites by the name of their source; `*` stands for every other source with evaluation rows (but instructions)."""
    primary: Mode = "greedy"
    """The mode by which the recipe's models are compared."""
    n: int = Field(default=4, ge=0, le=100_000)
    """Samples per item besides the greedy response."""
    temperature: float = Field(default=0.7, gt=0)
    """Softmax temperature of the samples."""
    seed: Seed = 0
    """Seed of the samples and of the choice of items."""

    @model_validator(mode="after")
    def _check(self) -> "EvaluateConfig":
        if self.primary == "sampled" and not self.n:
            raise ValueError("evaluate.primary is sampled, but evaluate.n is 0")
        return self

    def contradictions(self) -> Iterator[str]:
        for name in self.changed("temperature", "top_p") if not self.n else ():
            yield f"{name}: has no effect where n is 0 and nothing is sampled; leave it out, or raise n."

    @property
    def limits(self) -> dict[str, int | None]:
        """Items asked of each suite."""
        return {name: suite.limit for name, suite in self.suites.items()}

    @property
    def asked(self) -> dict[str, Asked]:
        """What is asked of each suite, without what grades it."""
        return {
            name: Asked(**{field: getattr(suite, field) for field in Asked.model_fields})
            for name, suite in self.suites.items()
        }

    def suite(self, name: str) -> SuiteConfig:
        """The settings of a suite."""
        return self.suites.get(name) or self.suites[OTHERS]


def evaluate(config: EvaluateConfig, out: Path, *, rows: Path, cache: Path | None = None, **answers: Path) -> Metrics:
    """Grade the answers of each policy (answers.parquet, by the policy's name) to the items of `rows`.

    Writes evaluations.parquet (EVALUATIONS) and comparisons.parquet (COMPARISONS: every ordered pair of models). Grades
    are kept per item and text in the directory `cache`. Raises StageError for whatever a grader raises.
    """
    config.check()
    suites, metrics = items(config.limits, rows, config.seed)
    given = {model: tables.read(path) for model, path in answers.items()}
    for suite, asked in suites.items():
        most = 100 * detectable(worst_error(len(asked)))
        tell(
            f"{suite}: {len(asked)} items can show differences between two models of {most:.1f} points, or smaller ones"
        )
    graded = [row for suite in suites for row in _graded(config, suite, suites, given, cache)]
    tables.write(out / "evaluations.parquet", graded, tables.EVALUATIONS)
    comparisons = [c for suite in suites for c in _compare(config, suite, list(given), graded)]
    tables.write(out / "comparisons.parquet", comparisons, tables.COMPARISONS)
    return {
        "primary": config.primary, "models": len(given), "responses": len(graded), **metrics,
        **_metrics(config, graded, comparisons),
    }  # fmt: skip


def _metrics(config: EvaluateConfig, graded: list[Row], comparisons: list[Row]) -> Metrics:
    """Means and counts by suite, mode and model."""
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for a in graded:
        groups[a["suite"], a["mode"], a["model"]].append(a)
    metrics: Metrics = {}
    for c in comparisons:
        if c["against"] is None:
            suite, at = c["suite"], f"{c['suite']}.{c['mode']}.{c['model']}"
            kind, of = config.suite(suite).kind, groups[c["suite"], c["mode"], c["model"]]
            if c["mean"] is not None:
                metrics[f"{'byte_probability' if kind == 'perplexity' else 'accuracy'}.{at}"] = c["mean"]
            counts = Counter(a["status"] for a in of)
            metrics |= {f"{status}.{at}": counts[status] for status in ("unreadable", "ungraded")}
            metrics[f"truncated.{at}"] = sum(a["finish_reason"] == "truncated" for a in of)
            if kind == "multiple_choice":
                metrics |= about_options(of, at)
            elif kind == "perplexity":
                metrics |= about_expected(of, at)
    return metrics | _detectable(config, comparisons)


def _detectable(config: EvaluateConfig, comparisons: list[Row]) -> Metrics:
    """Of each suite the largest `detectable` of two policies in the primary mode; of the base only where it has one
    policy beside it, since no two others differ as much."""
    pairs = [c for c in comparisons if c["against"] and c["mode"] == config.primary]
    trained = [c for c in pairs if "base" not in (c["model"], c["against"])]
    found: Metrics = {}
    for c in trained or pairs:
        name = f"detectable.{c['suite']}"
        found[name] = max(float(found.get(name, 0.0)), c["detectable"])
    return found


def _graded(
    config: EvaluateConfig, suite: str, suites: Items, given: dict[str, list[Row]], cache: Path | None
) -> Iterator[Row]:
    """Every model's answers to one suite with their grades. All are graded together, so equal texts once."""
    asked, told = suites[suite], config.suite(suite)
    answers = [{**a, "model": model} for model, rows in given.items() for a in rows if a["suite"] == suite]
    if strange := {a["row_id"] for a in answers} - asked.keys():
        raise StageError(f"{len(strange)} answers are to items that are not asked, such as {min(strange)}.")
    letters = told.options == "letters"
    grades = iter(_grades(told, [a for a in answers if a["response"] is not None], asked, cache))
    for a in answers:
        row = asked[a["row_id"]]
        grade = _unanswered(row) if a["response"] is None else next(grades)
        raw = grade_option(row, a["likeliest"], letters).score if a.get("likeliest") else None
        yield a | {"score": grade.score, "status": grade.status, "detail": grade.detail, "score_raw": raw}


def _grades(told: SuiteConfig, answers: list[Row], asked: Mapping[str, Row], cache: Path | None) -> list[Grade]:
    """The grades of responses to the items `asked`, in their order."""
    if told.kind == "multiple_choice":
        return [grade_option(asked[a["row_id"]], a["response"], told.options == "letters") for a in answers]
    if told.kind == "perplexity":
        return [grade_expected(a["response"], a["logp"], a["n_tokens"]) for a in answers]
    return grade_kept(told.grader, items_of(answers, asked), cache)


def _unanswered(item: Row) -> Grade:
    why = "the prompt fills the model's context"
    return ungraded(f"its tools cannot be given to the model, or {why}" if has_tools(item["messages"]) else why)


def _compare(config: EvaluateConfig, suite: str, models: list[str], answers: list[Row]) -> Iterator[Row]:
    """COMPARISONS rows: each model alone, then each ordered pair on the items that are graded for both."""
    scores: dict[tuple[str, str], dict[str, list[float | None]]] = defaultdict(lambda: defaultdict(list))
    for a in answers:
        if a["suite"] == suite:
            scores[a["mode"], a["model"]][a["row_id"]].append(a["score"])
    for mode in ("greedy", "sampled") if config.n else ("greedy",):
        means = {model: item_means(scores[mode, model]) for model in models}
        alone = {m: mean_interval(list(v.values())) for m, v in means.items() if v}
        for model in models:
            row: Row = {"suite": suite, "mode": mode, "model": model, "against": None, "n": len(means[model]),
                        "mean": None}  # fmt: skip
            if model in alone:
                row |= {"mean": alone[model].value, "low": alone[model].low, "high": alone[model].high}
            yield row
            for other in models if model in alone else ():
                if other != model and means[model].keys() & means[other].keys():
                    d = paired_difference(means[model], means[other])
                    yield row | {"against": other, "n": d.n, "diff": d.value, "diff_low": d.low, "diff_high": d.high,
                                 "differ": d.differ, "p_exact": d.p, "verdict": d.verdict,
                                 "detectable": detectable(d.error)}  # fmt: skip
