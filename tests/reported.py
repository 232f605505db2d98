"""A store with runs of every stage whose artifacts are made up: what `align report` is tested on."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from artifacts import artifacts

from align import tables
from align.config import Config
from flows.processes import GPU_PEAK, PEAK
from flows.recipe import Recipe, load
from flows.stages import contest, outline
from storage import build
from storage.build import Output
from storage.runs import Run, StageRun
from storage.store import Store
from tasks.promote import promote
from tasks.report import report

ORDER = ("ingest", "filter", "sft_unfiltered", "sft", "sample", "pairs", "reward", "resample", "select", "sft_random",
         "sft_rs", "dpo", "evaluate")  # fmt: skip
PARENTS = {"filter": "ingest", "sft": "filter", "sample": "sft", "pairs": "sample", "reward": "pairs", "resample": "sft",
           "select": "resample", "sft_rs": "select", "dpo": "pairs", "evaluate": "dpo"}  # fmt: skip
TRAINED = ("sft", "sft_unfiltered", "sft_random", "sft_rs", "reward", "dpo")
WORDS = ["--set", "promote.against=sft", "--set", "evaluate.primary=greedy"]


class Given(Config):
    """Settings of a stage that hands on what it was given."""


def recipe(*overrides: str) -> Recipe:
    """The recipe of the runs."""
    return load("quickstart", ["promote.against=sft", "evaluate.primary=greedy", *overrides])


def begin(store: Store, of: Recipe) -> Run:
    """A run that has begun; its command is on record."""
    planned = [*ORDER, "promote", "report"]
    return Run(store, of.name, of.model_dump(mode="json"), None, ["quickstart", *WORDS], planned)


def do(
    store: Store, run: Run, at: dict[str, Path], of: Recipe, stages: tuple[str, ...] = (*ORDER, "promote", "report")
) -> dict[str, str]:
    """Do some stages of a run, or find them in the store; their artifacts."""
    made: dict[str, str] = {}
    for i, stage in enumerate(stages):
        if stage == "promote":
            inputs: dict[str, Any] = {"graded": Output(made["evaluate"]), "contest": contest(of)}
            request = build.request(store, stage, promote, of.promote, inputs)
        elif stage == "report":
            inputs = {"outline": outline(of), **{name: Output(artifact) for name, artifact in made.items()}}
            request = build.request(store, stage, report, of.report, inputs)
        else:
            before = PARENTS.get(stage)
            rows = {"rows": Output(made[before])} if before in made else {}
            request = build.request(store, stage, _hand_on(at[stage], stage, i), Given(), rows)
        attempt, ran = build.build(store, request)
        made[stage] = attempt.artifact
        seconds = attempt.seconds if ran else 0.0
        told = ("ran", seconds, "never ran") if ran else ("cached", 0.0, "")
        run.stage(StageRun(stage, attempt.key, attempt.artifact, *told, attempt.metrics))
    return made


def _hand_on(folder: Path, name: str, i: int) -> Callable[..., dict[str, Any]]:
    def stage(config: Config, out: Path, **inputs: Path) -> dict[str, Any]:
        shutil.copytree(folder, out, dirs_exist_ok=True)
        drawn = {"tokens": 1000 + i} if name in ("sample", "resample", *TRAINED) else {}
        gpu = {GPU_PEAK: 40 + i} if name == "dpo" else {}
        return {
            **json.loads((folder / "metrics.json").read_text()),
            **drawn,
            PEAK: 300 + i,
            build.SECONDS: 2.5 + i,
            **gpu,
        }

    stage.__module__ = __name__
    return stage


def graded(folder: Path) -> dict[str, Path]:
    """Artifacts whose greedy answers show that dpo is better than sft, though it loses some."""
    at = artifacts(folder, n=40)
    answers = tables.read(at["evaluate"] / "evaluations.parquet")
    for i, a in enumerate(answers):
        if a["model"] == "dpo" and a["status"] == "wrong" and i % 3:
            a |= {"score": 1.0, "status": "correct"}
        elif a["model"] == "dpo" and i % 11 == 0:
            a |= {"score": 0.0, "status": "wrong"}
    from tasks import evaluate

    tables.write(at["evaluate"] / "evaluations.parquet", answers, tables.EVALUATIONS)
    models = list(dict.fromkeys(a["model"] for a in answers))
    compared = evaluate._compare(evaluate.EvaluateConfig(primary="greedy", n=4), "questions", models, answers)
    tables.write(at["evaluate"] / "comparisons.parquet", compared, tables.COMPARISONS)
    metrics = json.loads((at["evaluate"] / "metrics.json").read_text())
    (at["evaluate"] / "metrics.json").write_text(json.dumps({**metrics, "primary": "greedy"}))
    return at
