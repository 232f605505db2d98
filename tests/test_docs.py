"""What is generated is up to date, every setting has a sentence, and the pages name what is there."""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from flows.graph import mermaid
from flows.recipe import ROOT, Recipe, load

GENERATE = runpy.run_path(str(ROOT / "docs" / "generate.py"))
PAGES = [ROOT / name for name in ("README.md", "README.ko.md", "CONTRIBUTING.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)


@pytest.mark.parametrize("page", GENERATE["PAGES"])
def test_what_is_generated_is_up_to_date(page):
    made = GENERATE["PAGES"][page]()
    assert (ROOT / "docs" / page).read_text(encoding="utf-8") == made, "run `make docs`"


def test_every_key_of_a_recipe_has_a_sentence():
    todo, seen = [Recipe], set()
    while todo:
        model = todo.pop()
        if model in seen:
            continue
        seen.add(model)
        without = [n for n, f in model.model_fields.items() if not f.description and n not in ("kind", "rule")]
        assert not without, f"{model.__name__}: {without}"
        todo += [m for f in model.model_fields.values() for m in GENERATE["models"](f.annotation)]
    assert len(seen) > 30


def test_the_schema_is_json_and_knows_the_recipe():
    schema = json.loads((ROOT / "docs" / "recipe.schema.json").read_text(encoding="utf-8"))
    assert set(schema["properties"]) == set(Recipe.model_fields)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_paths_in_pages_exist(page: Path):
    text = page.read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text)]
    missing = [link for link in links if link and "://" not in link and not (page.parent / link).exists()]
    assert not missing
    named = re.findall(r"`((?:align|flows|tasks|storage|tests|benchmarks|docs|recipes)/[\w./-]+)`", text)
    assert not [name for name in named if "*" not in name and not (ROOT / name).exists()]


@pytest.mark.parametrize("page", ["README.md", "README.ko.md"])
def test_the_dag_in_the_readme_is_the_dag(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    (drawn,) = re.findall(r"```mermaid\n(.*?)```", text, re.DOTALL)
    assert drawn.strip() == mermaid(load()).strip()


def test_stages_can_be_called_from_plain_python():
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "stages.py")], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert "rows kept" in done.stdout and "loss" in done.stdout
