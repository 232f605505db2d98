"""A stage added as CONTRIBUTING.md says: one file, one field, one line, one row; the rest follows."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.recipe import ROOT

STAGE = '''"""Counts rows, and says so in a log."""

from pathlib import Path

from pydantic import Field

from align import tables
from align.config import Config, Metrics
from align.models.base import BaseConfig


class CountConfig(Config):
    """Settings of count."""

    times: int = Field(default=1, ge=1)
    """How often every row counts."""
    batch_size: int = Field(default=4, ge=1)
    """Rows that are counted together."""


def count(config: CountConfig, out: Path, *, base: BaseConfig, rows: Path) -> Metrics:
    """Count the rows of `rows` (ROWS); writes training_log.parquet."""
    n = config.times * len(tables.read(rows))
    tables.write(out / "training_log.parquet", [{"step": 1, "name": "counted", "value": n}], tables.TRAINING_LOG)
    return {"counted": n}
'''
EDITS = {
    "flows/recipe.py": [
        ("from tasks.dpo import DpoConfig\n", "from tasks.count import CountConfig\nfrom tasks.dpo import DpoConfig\n"),
        (
            "    sft: SftConfig = SftConfig()\n",
            "    count: CountConfig = CountConfig()\n    sft: SftConfig = SftConfig()\n",
        ),
    ],
    "flows/dag.py": [("    filtered = stage(", '    stage("count", base=base, rows=rows)\n    filtered = stage(')],
    "flows/stages.py": [
        ("from tasks.dpo import dpo\n", "from tasks.count import count\nfrom tasks.dpo import dpo\n"),
        (
            '    Stage("filter", filter,',
            '    Stage("count", count, "counting", "score", questions=(("Counting", "sft", "base"),)),\n'
            '    Stage("filter", filter,',
        ),
    ],
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the product with the stage in it."""
    folder = tmp_path_factory.mktemp("tree")
    parts = ["flows", "tasks", "align", "storage", "recipes", "quickstart", "prefect.yaml", "tests/tiny.yaml"]
    tracked = subprocess.run(["git", "ls-files", *parts], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in tracked.stdout.splitlines():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    (folder / "tasks" / "count.py").write_text(STAGE)
    for name, edits in EDITS.items():
        text = (folder / name).read_text(encoding="utf-8")
        for old, new in edits:
            assert text.count(old) == 1, (name, old)
            text = text.replace(old, new)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def store(tree: Path) -> Path:
    """The stage has run in it."""
    run(tree, "run", "tests/tiny.yaml", "--select", "+count", "--store", "store")
    return tree / "store"


def run(tree: Path, *words: str) -> str:
    env = os.environ | {"PYTHONPATH": str(tree)}
    done = subprocess.run([sys.executable, *(["-m", "flows.cli"] if words[0] != "-c" else []), *words], cwd=tree, env=env,
                          capture_output=True, text=True, timeout=600)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_in_the_plan_the_graph_and_the_memory_table(tree):
    planned = {p["stage"]: p for p in json.loads(run(tree, "plan", "tests/tiny.yaml", "--json", "--store", "none"))}
    assert planned["count"]["status"] == "waits"
    assert "ingest --> count" in run(tree, "graph")
    assert "total" in json.loads(run(tree, "memory", "tests/tiny.yaml", "--json"))["count"]


def test_it_is_among_the_deployments_with_its_form(tree):
    found = json.loads(
        run(
            tree,
            "-c",
            "import json; from flows.deploy import CPU, GPU, deployments; "
            "print(json.dumps(deployments(dict.fromkeys([CPU, GPU], 'process'))))",
        )  # fmt: skip
    )
    (entry,) = [d for d in found["deployments"] if d["name"] == "count"]
    assert entry["entrypoint"] == "flows.rerun.count" and "gpu" in entry["tags"]
    form = run(tree, "-c", "from flows import rerun; print(rerun.count.parameters.model_dump_json())")
    assert "How often every row counts." in form


def test_what_it_counted_is_in_the_views(tree, store):
    query = "SELECT m.name, value FROM metrics m WHERE stage = 'count' AND m.name = 'counted'"
    (row,) = csv.DictReader(io.StringIO(run(tree, "sql", query, "--csv", "--store", "store")))
    assert float(row["value"]) > 100
    logged = run(tree, "sql", "SELECT value FROM training_log WHERE name = 'counted'", "--csv", "--store", "store")
    assert float(logged.splitlines()[1]) == float(row["value"])
    assert "count" in run(tree, "sql", "SELECT stage FROM stage_runs", "--csv", "--store", "store")


def test_the_report_asks_about_it_in_its_place(tree):
    told = json.loads(
        run(
            tree,
            "-c",
            "from flows.recipe import load; from flows.stages import outline; print(outline(load()).model_dump_json())",
        )
    )
    stages = [part["stage"] for part in told["parts"]]
    assert stages.index("ingest") < stages.index("count") < stages.index("filter")
    assert {"topic": "Counting", "model": "sft", "against": "base"} in [
        q for p in told["parts"] for q in p["questions"]
    ]
