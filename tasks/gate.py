"""Whether a round helped: its policy beside the one that it began with, on prompts that nothing is trained on."""

from pathlib import Path
from typing import Any

from align import tables
from align.config import Metrics
from align.data.pairing import is_held_out
from align.data.prompts import prompts_of
from align.errors import StageError
from align.grading.grade import Grade, item_of
from align.grading.graders import AnyGrader
from align.grading.kept_grades import grade_kept
from align.models.base import BaseConfig
from align.models.engine import Policy, Prompt, Sample, Sampling
from align.models.shards import gather, share
from align.paired import paired_difference
from align.stats import item_means
from align.text import taken


class GateConfig(Sampling):
    """Settings of gate: those of chain.gate, and all of sample: what both draw is drawn once."""

    split: str
    """The split whose prompts sample draws for."""
    use: tuple[str, ...]
    """The kinds of rows that they are of."""
    limit: int | None
    """How many of them sample takes."""
    held_out: tuple[tuple[float, int], ...]
    """Share and seed of what is held out from each stage's pairs; only prompts that all hold out are asked."""
    grader: AnyGrader
    """What grades the answers."""
    level: float
    """Level of the interval."""


def gate(
    config: GateConfig,
    out: Path,
    *,
    base: BaseConfig,
    rows: Path,
    before: Path,
    after: Path,
    cache: Path | None = None,
) -> Metrics:
    """Draw and grade answers of the policies `before` and `after` to the held-out prompts of `rows` (ROWS).

    Writes samples.parquet and scores.parquet, of `after`; shares in 0..1. `shown` is 1 where the paired interval of the
    prompts' mean scores (align/paired.py) calls it better, else 0. Draws and grades are kept per row in the directory
    `cache`. Raises StageError without a prompt, or where none is graded for both.
    """
    config.check()
    distinct = prompts_of(rows, config.split, config.use)
    sampled = [distinct[at] for at in taken([row["row_id"] for row in distinct], config.limit, config.seed)]
    asked = {
        row["row_id"]: row for row in sampled if all(is_held_out(row, part, seed) for part, seed in config.held_out)
    }
    prompts = [Prompt(row_id, row["messages"]) for row_id, row in asked.items()]
    if not prompts:
        raise StageError(f"None of {len(sampled)} prompts is held out from training; raise pairs.held_out.")
    drawn: dict[str, list[Sample]] = {}
    for name, adapter in (("before", before), ("after", after)):
        with Policy(base, adapter, cache) as policy:
            drawn[name] = policy.draw(prompts, config.sampling, label=f"gate ({name} the round)", too_long=[])
    grades = _grades(config, asked, [*drawn["before"], *drawn["after"]], cache)
    graded = {"before": grades[: len(drawn["before"])], "after": grades[len(drawn["before"]) :]}
    means = {name: _means(drawn[name], graded[name]) for name in drawn}
    both = sorted(means["before"].keys() & means["after"].keys())
    if not both:
        raise StageError(f"None of {len(prompts)} prompts is graded for both policies, so nothing says what helped.")
    tables.write(out / "samples.parquet", (vars(s) for s in drawn["after"]), tables.SAMPLES)
    told = zip(drawn["after"], graded["after"], strict=True)
    scores = ({"sample_id": s.sample_id, "scored_by": config.grader.name, **vars(g)} for s, g in told)
    tables.write(out / "scores.parquet", scores, tables.SCORES)
    d = paired_difference(means["after"], means["before"], level=config.level)
    return {
        "prompts": len(prompts),
        "prompts.graded": d.n,
        "prompts.differ": d.differ,
        **{f"score.{name}": sum(of[i] for i in both) / len(both) for name, of in means.items()},
        "gain": d.value,
        "gain.low": d.low,
        "gain.high": d.high,
        **({} if d.p is None else {"gain.p": d.p}),
        "verdict": d.verdict,
        "shown": int(d.verdict == "better"),
    }


def _grades(config: GateConfig, asked: dict[str, Any], samples: list[Sample], cache: Path | None) -> list[Grade]:
    """A grade for each sample; each process of the stage grades its share."""
    items = [item_of(asked[s.row_id], s.text) for s in samples]
    parts = gather(grade_kept(config.grader, share(items), cache))
    return [parts[at % len(parts)][at // len(parts)] for at in range(len(items))]


def _means(samples: list[Sample], grades: list[Grade]) -> dict[str, float]:
    """The mean score of each prompt over its graded samples."""
    scores: dict[str, list[float | None]] = {}
    for sample, grade in zip(samples, grades, strict=True):
        scores.setdefault(sample.row_id, []).append(grade.score)
    return item_means(scores)
