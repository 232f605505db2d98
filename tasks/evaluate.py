"""Grading every model of the chain on the same held-out items, greedily and by sampling, with paired intervals."""

import gc
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from align import tables
from align.config import Config
from align.errors import StageError
from align.grading.grade import item_of, ungraded
from align.grading.graders import Grader, NoGrader, grade_all
from align.models.base import BaseConfig
from align.models.generate import Prompt, Sampler
from align.stats import item_means, mean_interval, paired_difference
from align.text import digest, normalise

Row = dict[str, Any]
Mode = Literal["greedy", "sampled"]


class SuiteConfig(Config):
    """How the rows of one source are evaluated."""

    grader: Grader = NoGrader()
    """What grades the responses; never the reward model, which would judge the policy that it helped to train."""
    limit: int | None = Field(default=None, ge=1)
    """Evaluate only so many items, chosen by hash."""


class EvaluateConfig(Config):
    """Settings of evaluate."""

    suites: dict[str, SuiteConfig] = {"*": SuiteConfig()}
    """Suites by the name of their source; `*` stands for every other source with evaluation rows (but instructions)."""
    primary: Mode = "greedy"
    """The metric by which the recipe's models are judged."""
    samples: int = Field(default=4, ge=0)
    """Samples per item besides the greedy response."""
    temperature: float = Field(default=0.7, gt=0)
    """Softmax temperature of the samples."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus of the samples."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Longest response in tokens."""
    batch_size: int = Field(default=256, ge=1)
    """Sequences that are drawn together."""
    seed: int = 0
    """Seed of the samples, of the choice of items and of the bootstrap."""

    @model_validator(mode="after")
    def _check(self) -> "EvaluateConfig":
        if self.primary == "sampled" and not self.samples:
            raise ValueError("evaluate.primary is sampled, but evaluate.samples is 0")
        return self


def evaluate(
    config: EvaluateConfig, out: Path, *, base: BaseConfig, rows: Path, **adapters: Path | None
) -> dict[str, float | int | str]:
    """Grade `base` and each adapter (a training stage's directory; None is left out) on the evaluation split of `rows`.

    Writes evaluations.parquet (EVALUATIONS) and comparisons.parquet (COMPARISONS: every ordered pair of models).
    Raises StageError if there is no item, if an adapter is a reward model, and for whatever a grader raises.
    """
    suites, metrics = _suites(config, rows)
    models: dict[str, Path | None] = {"base": None} | {k: v for k, v in adapters.items() if v is not None}
    for model, adapter in models.items():
        _check_policy(model, adapter)
    drawn: dict[str, list[Row]] = {suite: [] for suite in suites}
    for model, adapter in models.items():
        for suite, row in _answers(config, base, model, adapter, suites):
            drawn[suite].append(row)
    answers = [row for suite, given in drawn.items() for row in _graded(suite, config, suites[suite], given)]
    tables.write(out / "evaluations.parquet", answers, tables.EVALUATIONS)
    comparisons = [c for suite in suites for c in _compare(config, suite, list(models), answers)]
    tables.write(out / "comparisons.parquet", comparisons, tables.COMPARISONS)
    counts = Counter((a["suite"], a["mode"], a["model"], a["status"]) for a in answers)
    cut = Counter((a["suite"], a["mode"], a["model"]) for a in answers if a["finish_reason"] == "length")
    for c in comparisons:
        if c["against"] is None:
            at = (c["suite"], c["metric"], c["model"])
            if c["mean"] is not None:
                metrics[f"accuracy.{'.'.join(at)}"] = c["mean"]
            metrics[f"ungraded.{'.'.join(at)}"] = counts[*at, "ungraded"]
            metrics[f"truncated.{'.'.join(at)}"] = cut[at]
    return {"primary": config.primary, "models": len(models), "responses": len(answers), **metrics}


def _suites(config: EvaluateConfig, rows: Path) -> tuple[dict[str, dict[str, Row]], dict[str, float | int | str]]:
    """Items by suite and row id, and how many there are. Equal questions with equal references are one item."""
    found: dict[str, dict[str, Row]] = defaultdict(dict)
    read: Counter[str] = Counter()
    for row in tables.read(rows, split="evaluation"):
        name = row["source"]
        if name in config.suites or ("*" in config.suites and row["use"] != "instructions"):
            said = [normalise(m["content"]) for m in row["messages"]]
            read[name] += 1
            found[name].setdefault(digest(*said, row["reference"] or ""), row)
    if missing := [name for name in config.suites if name != "*" and name not in found]:
        others = ", ".join(sorted(found)) or "none"
        raise StageError(f"The suite {missing[0]} has no evaluation rows; sources that have some: {others}.")
    if not found:
        raise StageError("There are 0 evaluation items; give ingest a source with use: evaluation.")
    suites: dict[str, dict[str, Row]] = {}
    metrics: dict[str, float | int | str] = {}
    for name in sorted(found):
        limit = _suite(config, name).limit
        order = sorted(found[name].values(), key=lambda r: digest(str(config.seed), r["row_id"]))[:limit]
        suites[name] = {row["row_id"]: row for row in sorted(order, key=lambda r: r["row_id"])}
        metrics |= {f"items.{name}": len(suites[name]), f"duplicates.{name}": read[name] - len(found[name])}
    return suites, metrics


def _suite(config: EvaluateConfig, name: str) -> SuiteConfig:
    return config.suites.get(name) or config.suites["*"]


def _check_policy(model: str, adapter: Path | None) -> None:
    """StageError if the adapter scores texts instead of writing them."""
    file = adapter / "adapter" / "adapter_config.json" if adapter else None
    if file is not None and file.is_file() and json.loads(file.read_text()).get("task_type") == "SEQ_CLS":
        raise StageError(f"The adapter {model} is a reward model; evaluate takes policies only.")


def _answers(
    config: EvaluateConfig, base: BaseConfig, model: str, adapter: Path | None, suites: dict[str, dict[str, Row]]
) -> Iterator[tuple[str, Row]]:
    """(suite, EVALUATIONS row without grade) for every item and draw, also where a prompt leaves no room to answer."""
    prompts = {i: Prompt(i, row["messages"]) for items in suites.values() for i, row in items.items()}
    sampler = Sampler(base, adapter)
    modes: list[tuple[Mode, int, float, float]] = [("greedy", 1, 0.0, 1.0)]
    if config.samples:
        modes.append(("sampled", config.samples, config.temperature, config.top_p))
    for mode, n, temperature, top_p in modes:
        drawn = sampler.draw(
            list(prompts.values()),
            n=n,
            temperature=temperature,
            top_p=top_p,
            max_new_tokens=config.max_new_tokens,
            batch_size=config.batch_size,
            seed=config.seed,
            label=f"evaluating {model} ({mode})",
            too_long=[],
        )
        answered = {(s.prompt_id, s.sample_index): s for s in drawn}
        for suite, item_id, index in ((u, i, k) for u, items in suites.items() for i in items for k in range(n)):
            s = answered.get((item_id, index))
            yield suite, {
                "suite": suite, "item_id": item_id, "model": model, "mode": mode, "sample_index": index,
                "response": s and s.text, "finish_reason": s and s.finish_reason,
            }  # fmt: skip
    del sampler
    gc.collect()


def _graded(suite: str, config: EvaluateConfig, items: dict[str, Row], answers: list[Row]) -> Iterator[Row]:
    """The answers to one suite with score, status and detail. All models are graded together, so equal texts once."""
    given = [a for a in answers if a["response"] is not None]
    grades = iter(grade_all(_suite(config, suite).grader, [item_of(items[a["item_id"]], a["response"]) for a in given]))
    for answer in answers:
        no_room = ungraded("the prompt fills the model's context")
        grade = no_room if answer["response"] is None else next(grades)
        yield answer | {"score": grade.score, "status": grade.status, "detail": grade.detail}


def _compare(config: EvaluateConfig, suite: str, models: list[str], answers: list[Row]) -> Iterator[Row]:
    """COMPARISONS rows: each model alone, then each ordered pair on the items that are graded for both."""
    scores: dict[tuple[str, str], dict[str, list[float | None]]] = defaultdict(lambda: defaultdict(list))
    for a in answers:
        if a["suite"] == suite:
            scores[a["mode"], a["model"]][a["item_id"]].append(a["score"])
    for mode in ("greedy", "sampled") if config.samples else ("greedy",):
        means = {model: item_means(scores[mode, model]) for model in models}
        alone = {m: mean_interval(list(v.values()), seed=config.seed) for m, v in means.items() if v}
        for model in models:
            row: Row = {
                "suite": suite,
                "metric": mode,
                "model": model,
                "against": None,
                "n": len(means[model]),
                "mean": None,
            }
            if model in alone:
                row |= {"mean": alone[model].value, "low": alone[model].low, "high": alone[model].high}
            yield row
            for other in models if model in alone else ():
                if other != model and means[model].keys() & means[other].keys():
                    d = paired_difference(means[model], means[other], seed=config.seed)
                    yield row | {"against": other, "n": d.n, "diff": d.value, "diff_low": d.low, "diff_high": d.high}
