"""Grading the answers of every policy of the chain to the same held-out items, with paired intervals."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from align import tables
from align.config import EXECUTION, Config, Metrics, Seed
from align.errors import StageError
from align.grading.against import Pairwise, about, contested, win_rates
from align.grading.conversation import items_of
from align.grading.grade import Grade, ungraded
from align.grading.graders import AnyGrader, NoGrader
from align.grading.kept_grades import grade_kept
from align.grading.likely import about_expected, about_options, grade_expected, grade_option
from align.grading.suites import OTHERS, Asked, Items, items
from align.models.benchmarks import Benchmarks
from align.models.engine import Sampling
from align.models.tools import has_tools
from align.power import detectable, worst_error
from align.progress import tell
from align.seeds import mean_of_seeds, seeded_difference, spread
from align.stats import item_means

Row = dict[str, Any]
Mode = Literal["greedy", "sampled"]


class SuiteConfig(Asked):
    """How the rows of one source are evaluated."""

    grader: AnyGrader = NoGrader()
    """What grades the responses of kind generate; never the reward model, which would judge the policy that it helped
    to train."""
    pairwise: Pairwise | None = None
    """In place of a grader: a judge that compares each response with a baseline's; a tie scores 0.5."""
    guard: Annotated[float | None, EXECUTION] = Field(default=None, ge=0, le=1)
    """How far a model may fall on this suite and still be promoted, as a share: 0.02 is two points; null: any."""

    @property
    def by_itself(self) -> bool:
        """Whether a response is written, and its grade depends on nothing that another model says."""
        return self.kind == "generate" and self.pairwise is None

    def contradictions(self) -> Iterator[str]:
        for name in self.changed("grader", "turns", "pairwise") if self.kind != "generate" else ():
            yield f"{name}: has no effect where kind is {self.kind}; leave it out."
        for name in self.changed("grader") if self.pairwise and self.kind == "generate" else ():
            yield f"{name}: has no effect where a judge compares responses; leave it out, or leave pairwise out."
        for name in self.changed("options") if self.kind != "multiple_choice" else ():
            yield f"{name}: has no effect where kind is {self.kind}; leave it out, or set kind to multiple_choice."


class EvaluateConfig(Sampling):
    """Settings of evaluate, and of the answers that it grades."""

    suites: dict[str, SuiteConfig] = {OTHERS: SuiteConfig()}
    """Suites by the name of their source; `*` stands for every other source with evaluation rows (but instructions)."""
    benchmarks: Benchmarks = Benchmarks()
    """Public benchmarks, by lm-evaluation-harness, beside the suites."""
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
        return self.suites.get(name) or self.suites.get(OTHERS) or SuiteConfig()


class Seeds(Config):
    """Policies that differ in nothing but the seed of their training."""

    of: dict[str, tuple[str, ...]]
    """A policy with those that stand for it too: what is compared is their mean."""


def evaluate(
    config: EvaluateConfig,
    out: Path,
    *,
    rows: Path,
    seeds: Seeds | None = None,
    cache: Path | None = None,
    **answers: Path,
) -> Metrics:
    """Grade the answers of each policy (answers.parquet, by the policy's name) to the items of `rows`.

    Writes evaluations.parquet (EVALUATIONS), comparisons.parquet (COMPARISONS: every ordered pair of models) and, of
    suites with a pairwise judge, win_rates.parquet (WIN_RATES). A policy with several `seeds` is compared by their
    mean, with an interval that says what they differ by (align/seeds.py), and with its own seeds by its first. Grades
    are kept per item and text in the directory `cache`. Raises StageError for whatever a grader raises, and where a
    judge fails its audit.
    """
    config.check()
    suites, metrics = items(config.limits, rows, config.seed, may_be_none=bool(config.benchmarks.tasks))
    given = {model: tables.read(path) for model, path in answers.items()}
    graded = list(_benchmarked(given, suites))
    public = list(dict.fromkeys(a["suite"] for a in graded))
    rates: list[Row] = []
    for suite, asked in suites.items():
        most = 100 * detectable(worst_error(len(asked)))
        told = f"{len(asked)} items can show differences between two models of {most:.1f} points, or smaller ones"
        tell(f"{suite}: {told}")
        found, more = _graded(config, suite, suites, given, rows, cache)
        graded += found
        metrics |= {f"{name}.{suite}": value for name, value in more.items()}
        if judged := config.suite(suite).pairwise:
            rates += win_rates(suite, judged.baseline, found, config.seed)
    tables.write(out / "evaluations.parquet", graded, tables.EVALUATIONS)
    if any(config.suite(suite).pairwise for suite in suites):
        tables.write(out / "win_rates.parquet", rates, tables.WIN_RATES)
    comparisons = [c for suite in (*suites, *public) for c in _compare(config, suite, list(given), graded, seeds)]
    tables.write(out / "comparisons.parquet", comparisons, tables.COMPARISONS)
    return {
        "primary": config.primary, "models": len(given), "responses": len(graded), **metrics,
        **_metrics(config, graded, comparisons), **about(rates),
    }  # fmt: skip


def _benchmarked(given: Mapping[str, list[Row]], suites: Items) -> Iterator[Row]:
    """Every model's answers to public benchmarks, which are graded already."""
    for model, said in given.items():
        for a in said:
            if a.get("score") is not None:
                if a["suite"] in suites:
                    raise StageError(f"A benchmark and a source are both called {a['suite']}; rename the source.")
                yield a | {"model": model, "status": {1.0: "correct", 0.0: "wrong"}.get(a["score"], "scored")}


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
            if c["seed_sd"] is not None:
                metrics[f"seed_sd.{at}"] = c["seed_sd"]
            if c["mean"] is not None and config.suite(suite).pairwise is None:
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
    config: EvaluateConfig, suite: str, suites: Items, given: dict[str, list[Row]], rows: Path, cache: Path | None
) -> tuple[list[Row], Metrics]:
    """Every model's answers to one suite with their grades, and what a judge was like. All are graded together."""
    asked, told = suites[suite], config.suite(suite)
    answers = [{**a, "model": model} for model, said in given.items() for a in said if a["suite"] == suite]
    if strange := {a["row_id"] for a in answers} - asked.keys():
        raise StageError(f"{len(strange)} answers are to items that are not asked, such as {min(strange)}.")
    said = [a for a in answers if a["response"] is not None]
    metrics: Metrics = {}
    if told.pairwise:
        outcomes, metrics = contested(told.pairwise, said, asked, rows, cache)
        for a, outcome in zip(said, outcomes, strict=True):
            a["longer"] = outcome.longer
        grades = iter([outcome.grade for outcome in outcomes])
    else:
        grades = iter(_grades(told, said, asked, cache))
    for a in answers:
        row = asked[a["row_id"]]
        grade = _unanswered(row) if a["response"] is None else next(grades)
        raw = grade_option(row, a["likeliest"], told.options == "letters").score if a.get("likeliest") else None
        a |= {"score": grade.score, "status": grade.status, "detail": grade.detail, "score_raw": raw}
    return answers, metrics


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


def _compare(
    config: EvaluateConfig, suite: str, models: list[str], answers: list[Row], seeds: Seeds | None = None
) -> Iterator[Row]:
    """COMPARISONS rows: each model alone, then each ordered pair on the items that are graded for both."""
    scores: dict[tuple[str, str], dict[str, list[float | None]]] = defaultdict(lambda: defaultdict(list))
    for a in answers:
        if a["suite"] == suite:
            scores[a["mode"], a["model"]][a["row_id"]].append(a["score"])
    for mode in ("greedy", "sampled") if config.n else ("greedy",):
        means = {model: item_means(scores[mode, model]) for model in models}
        every = {
            model: [means[m] for m in (model, *(seeds.of.get(model, ()) if seeds else ())) if means.get(m)]
            for model in models if means[model]
        }  # fmt: skip
        for model in models:
            row: Row = {"suite": suite, "mode": mode, "model": model, "against": None, "n": len(means[model]),
                        "mean": None, "seeds": len(every.get(model, [])) or 1, "seed_sd": None}  # fmt: skip
            if model in every:
                alone = mean_of_seeds(every[model])
                row |= {"n": alone.n, "mean": alone.value, "low": alone.low, "high": alone.high,
                        "seed_sd": spread(every[model])}  # fmt: skip
            yield row
            for other in every if model in every else ():
                alike = seeds and {model, other} <= {*seeds.of, *sum(seeds.of.values(), ())}
                both = [[means[m]] if alike else every[m] for m in (model, other)]
                if other != model and set.intersection(*(set(m) for side in both for m in side)):
                    d = seeded_difference(*both)
                    yield row | {"against": other, "n": d.n, "diff": d.value, "diff_low": d.low, "diff_high": d.high,
                                 "differ": d.differ, "p_exact": d.p, "verdict": d.verdict,
                                 "detectable": detectable(d.error), "seeds": d.seeds, "seed_sd": d.seed_sd}  # fmt: skip
