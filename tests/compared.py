"""Two runs in a real store with known differences between them: what `align compare` is tested on."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from artifacts import HOSTILE, artifacts

from align import tables
from align.config import Config
from align.grading.graders import ExactGrader, NumberGrader
from flows.recipe import load
from storage import build, tags
from storage.build import Output
from storage.runs import Run, StageRun
from storage.store import Store
from tasks.evaluate import EvaluateConfig, SuiteConfig

Made = tuple[Store, str, str]
"""A store, and the ids of the earlier run and of the later."""
N = 60  # items of the suite
HERE = ("ingest", "filter", "sft", "sample", "pairs", "evaluate")


class Given(Config):
    """Settings of a stage that hands on what it was given."""

    label: str = "as it was"


def make(folder: Path) -> Made:
    """A store with both runs; the earlier one is tagged baseline."""
    store, was = Store(folder / "store"), before(folder / "before")
    first = run_of(store, *was)
    second = run_of(store, *after(folder / "after", was[0]))
    tags.put(store, "baseline", first)
    return store, first, second


def run_of(
    store: Store,
    at: dict[str, Path],
    source: dict[str, Any],
    configs: dict[str, Config],
    stages: tuple[str, ...] = HERE,
) -> str:
    """A finished run whose stages made the artifacts `at`; its id."""
    run = Run(store, source.get("name", "r"), source)
    made: dict[str, str] = {}
    for stage in stages:
        rows = {} if stage == "ingest" or "ingest" not in made else {"rows": Output(made["ingest"], "rows.parquet")}
        request = build.request(store, stage, _hand_on(at[stage]), configs.get(stage, Given()), rows)
        attempt, ran = build.build(store, request)
        made[stage] = attempt.artifact
        run.stage(StageRun(stage, attempt.key, attempt.artifact, "ran" if ran else "cached", 1.0, "", {}))
    run.finish("done")
    return run.id


def _hand_on(folder: Path) -> Callable[..., dict[str, Any]]:
    def stage(config: Config, out: Path, **inputs: Path) -> dict[str, Any]:
        shutil.copytree(folder, out, dirs_exist_ok=True)
        return {}

    return stage


def grader(kind: str) -> EvaluateConfig:
    """Settings of evaluate with that grader."""
    return EvaluateConfig(
        suites={"questions": SuiteConfig(grader=NumberGrader() if kind == "number" else ExactGrader())},
        primary="greedy",
    )


def before(folder: Path) -> tuple[dict[str, Path], dict[str, Any], dict[str, Config]]:
    """Artifacts, recipe and settings of the earlier run."""
    recipe = load(overrides=["evaluate.primary=greedy"]).model_dump(mode="json") | {
        "description": "from https://ann:swordfish1@example.org/x"
    }
    return artifacts(folder, n=N), recipe, {"evaluate": grader("number")}


def after(folder: Path, at: dict[str, Path]) -> tuple[dict[str, Path], dict[str, Any], dict[str, Config]]:
    """The same of the later one: what differs is said where it is planted."""
    recipe = load(overrides=["evaluate.primary=greedy", "dpo.beta=0.37", "filter.rules=[{rule: empty}]"]).model_dump(
        mode="json"
    )
    new = {**at, **{name: folder / name for name in ("ingest", "filter", "pairs", "evaluate")}}
    for name in ("ingest", "filter", "pairs", "evaluate"):
        shutil.copytree(at[name], new[name])
    edit(new["ingest"] / "rows.parquet", "rows", _rows)
    edit(new["filter"] / "instructions.parquet", "instructions", _verdicts)
    edit(new["pairs"] / "pairs.parquet", "pairs", _pairs)
    edit(new["evaluate"] / "evaluations.parquet", "evaluations", _evaluations)
    configs = {stage: Given(label="as it is") for stage in ("ingest", "filter", "sft", "pairs")}
    return new, recipe, {**configs, "evaluate": grader("number")}


def edit(path: Path, table: str, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Write a table anew with its rows changed."""
    tables.write(path, change(tables.read(path)), tables.TABLES[table])


def _rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """2 instructions are gone, 3 are new, 1 has another response, 1 is in another split; 4 questions are gone."""
    read = [r for r in rows if r["use"] == "instructions"]
    gone = {r["row_id"] for r in read[:2]} | set(asked(rows)[:4])
    kept = [r for r in rows if r["row_id"] not in gone]
    (changed,) = [r for r in kept if r["row_id"] == read[5]["row_id"]]
    changed |= {"row_id": "changed0", "response": f"another {HOSTILE}"}
    (moved,) = [r for r in kept if r["row_id"] == read[6]["row_id"]]
    moved["split"] = "rejection"
    return kept + [read[9] | {"row_id": f"new{i}", "prompt": f"new {i} {HOSTILE}"} for i in range(3)]


def asked(rows: list[dict[str, Any]]) -> list[str]:
    """The items, in the order of their ids."""
    return sorted(r["row_id"] for r in rows if r["split"] == "evaluation")


def _verdicts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """2 kept rows are dropped as refusals, 1 dropped one is kept, 1 is dropped for another reason."""
    kept, dropped = ([r for r in rows if r["kept"] is was] for was in (True, False))
    for r in kept[:2]:
        r |= {"kept": False, "reason": "refusal", "evidence": json.dumps({"said": HOSTILE})}
    dropped[0] |= {"kept": True, "reason": None, "evidence": None}
    dropped[1] |= {"reason": "refusal"}
    return rows


def _pairs(pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """1 pair is flipped, 2 are replaced, 3 are gone, and 1 prompt has a pair more."""
    pairs[1] |= {"chosen": pairs[1]["rejected"], "rejected": pairs[1]["chosen"]}
    for pair in pairs[2:4]:
        pair["chosen"] = HOSTILE
    return pairs[:-3] + [pairs[4] | {"chosen": "SELECT 7", "pair_id": "more"}]


def _evaluations(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """4 items are not asked; dpo's greedy answers: 12 wrong ones are right, 2 right ones wrong, 1 is ungraded."""
    items = sorted({a["row_id"] for a in answers})
    left = [a for a in answers if a["row_id"] not in items[:4]]
    dpo = sorted((a for a in left if (a["model"], a["mode"]) == ("dpo", "greedy")), key=lambda a: a["row_id"])
    wrong, right = ([a for a in dpo if a["status"] == status] for status in ("wrong", "correct"))
    for a in wrong[:12]:
        a |= {"response": f"right now {HOSTILE}", "score": 1.0, "status": "correct", "detail": ""}
    for a in right[:2]:
        a |= {"response": "wrong now", "score": 0.0, "status": "wrong"}
    right[2] |= {"score": None, "status": "ungraded"}
    return left
