"""Recipes: every one loads and plans without network, and every mistake is named with file, line and what was meant."""

import re
import shutil
from pathlib import Path

import pytest

from align.errors import InputError
from flows.graph import mermaid, parents, selected
from flows.plan import plan
from flows.recipe import RECIPES, load, names
from flows.stages import TABLE
from storage.store import Store


@pytest.mark.parametrize("name", names())
def test_every_recipe_loads_and_plans(name, tmp_path, monkeypatch):
    def connect(*_):
        raise AssertionError("a plan needs no network")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("socket.socket.connect", connect)
    recipe = load(name)
    planned = plan(Store(tmp_path), recipe)
    assert [p.stage for p in planned] == list(parents(recipe))
    assert planned[0].status == "run" and planned[0].reason == "never ran"
    assert {p.status for p in planned[1:]} == {"waits"}
    assert list(tmp_path.iterdir()) in ([], [tmp_path / "cache"])


def test_a_base_that_cannot_be_fetched_is_known_beforehand(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"base\.hub: Qwen/.* is not in the cache, and HF_HUB_OFFLINE forbids"):
        plan(Store(tmp_path), load("qlora-7b"))


def changed(tmp_path: Path, old: str, new: str) -> Path:
    text = (RECIPES / "quickstart.yaml").read_text(encoding="utf-8")
    assert text.count(old) >= 1
    path = tmp_path / "r.yaml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


def test_unknown_key_names_file_line_and_nearest(tmp_path):
    path = changed(tmp_path, "dpo: {beta:", "dpo: {betta:")
    line = path.read_text(encoding="utf-8").splitlines().index(next(
        x for x in path.read_text(encoding="utf-8").splitlines() if x.startswith("dpo: {betta:"))) + 1  # fmt: skip
    with pytest.raises(InputError, match=rf"r\.yaml:{line}: unknown key dpo\.betta; did you mean beta\?"):
        load(path)


def test_unknown_key_inside_a_filter_rule(tmp_path):
    path = changed(tmp_path, "{rule: near_duplicate,", "{rule: near_duplicate, treshold: 0.5,")
    with pytest.raises(InputError, match="unknown key filter.rules.*treshold; did you mean threshold"):
        load(path)


def test_unknown_rule_says_so(tmp_path):
    path = changed(tmp_path, "{rule: near_duplicate,", "{rule: near_dupes,")
    with pytest.raises(InputError, match="filter.rules"):
        load(path)


def test_wrong_type():
    with pytest.raises(InputError, match=r"--set dpo\.beta=strong: dpo\.beta: .*number.*strong"):
        load("quickstart", ["dpo.beta=strong"])


def test_unknown_set_key():
    with pytest.raises(InputError, match=r"--set dpo\.betta=1: unknown key dpo\.betta; did you mean beta\?"):
        load("quickstart", ["dpo.betta=1"])


def test_set_without_value():
    with pytest.raises(InputError, match="dotted.key=value"):
        load("quickstart", ["dpo.beta"])


def test_unknown_recipe():
    with pytest.raises(InputError, match="did you mean quickstart"):
        load("quikstart")


def test_not_yaml(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("a: [1\nb: 2\n")
    with pytest.raises(InputError, match=r"r\.yaml:\d+: not YAML"):
        load(path)


def test_not_a_mapping(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("- a\n")
    with pytest.raises(InputError, match="mapping"):
        load(path)


def test_missing_input_file(tmp_path):
    recipe = load("quickstart", [f"ingest.sources.instructions.path={tmp_path}/none.jsonl"])
    with pytest.raises(InputError, match="there is no file .*none.jsonl"):
        plan(Store(tmp_path / "store"), recipe)


def test_a_hub_model_that_cannot_be_fetched_is_found_before_the_first_stage(tmp_path, monkeypatch):
    """Where the Hub is forbidden, what its cache lacks cannot come."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    recipe = load("quickstart", ["base={hub: nobody/nothing, revision: main}"])
    with pytest.raises(InputError, match=r"^base\.hub: nobody/nothing at 'main' is not in the cache"):
        plan(Store(tmp_path), recipe)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda base: (base / "config.json").write_text("[1"), "config.json is not a JSON object"),
        (lambda base: (base / "config.json").unlink(), "has no config.json"),
        (lambda base: (base / "model.safetensors").unlink(), "holds no weights"),
        (lambda base: (base / "tokenizer.json").unlink(), "holds no tokenizer"),
        (
            lambda base: (base / "template.jinja").write_text("{% if %}"),
            "chat_template: the template is no Jinja, line 1",
        ),
        (lambda base: (base / "template.jinja").write_bytes(b"\xff"), "is not UTF-8"),
        (
            lambda base: (base / "model.safetensors.index.json").write_text('{"weight_map": {"a": "b.safetensors"}}'),
            "lacks b.safetensors",
        ),
    ],
)
def test_a_base_is_looked_at_before_the_first_stage(damage, message, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(RECIPES.parent / "quickstart" / "base", base)
    shutil.copy(RECIPES.parent / "quickstart" / "chat_template.jinja", base / "template.jinja")
    recipe = load("quickstart", [f"base={{path: {base}, chat_template: {base}/template.jinja}}"])
    assert plan(Store(tmp_path / "store"), recipe)
    damage(base)
    with pytest.raises(InputError, match=re.escape(message)):
        plan(Store(tmp_path / "store"), recipe)


def test_only_what_was_selected_is_trained_on():
    recipe = load("quickstart")
    assert (recipe.sft.train_on, recipe.sft_rs.train_on) == ("all", "last")
    assert {TABLE[name].config_of(recipe).model_dump()["train_on"] for name in ("sft_rs", "sft_random")} == {"last"}
    assert TABLE["sft_rs"].config().model_dump()["train_on"] == "last", "also in the form that runs it again"
    assert load("quickstart", ["sft.train_on=last"]).sft.train_on == "last"
    with pytest.raises(InputError, match="sft_rs.train_on"):
        load("quickstart", ["sft_rs.train_on=all"])


def test_a_base_without_a_template(tmp_path):
    recipe = load("quickstart", ["base.chat_template=null"])
    with pytest.raises(InputError, match=r"^base\.chat_template: .* has none of its own"):
        plan(Store(tmp_path), recipe)


def test_warehouses_are_looked_at_before_the_first_stage(tmp_path):
    warehouse = tmp_path / "warehouse"
    shutil.copytree(RECIPES.parent / "quickstart" / "warehouse", warehouse)
    recipe = load("quickstart", [f"evaluate.suites.questions.grader.warehouse={warehouse}"])
    assert plan(Store(tmp_path / "store"), recipe)
    (warehouse / "orders.parquet").write_bytes((warehouse / "orders.parquet").read_bytes()[:-100])
    with pytest.raises(
        InputError, match=r"^evaluate\.suites\.questions\.grader\.warehouse: .*orders\.parquet is no whole"
    ):
        plan(Store(tmp_path / "store"), recipe)


def test_globs_over_folders_are_sources(tmp_path):
    """What ingest would read is what the plan hashes, also where the pattern is in a folder's name."""
    for name in ("a1", "a2"):
        (tmp_path / name).mkdir()
        shutil.copy(RECIPES.parent / "quickstart" / "data" / "instructions.jsonl", tmp_path / name / "x.jsonl")
    recipe = load("quickstart", [f"ingest.sources.instructions.path={tmp_path}/a?/x.jsonl"])
    first = plan(Store(tmp_path / "store"), recipe)[0].request
    (tmp_path / "a2" / "x.jsonl").unlink()
    second = plan(Store(tmp_path / "store"), recipe)[0].request
    assert first and second and first.key != second.key


def test_paths_are_relative_to_the_recipe_and_overrides_to_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = load("quickstart", ["ingest.sources.instructions.path=here.jsonl"])
    assert recipe.ingest.sources["instructions"].path == tmp_path / "here.jsonl"
    assert recipe.base.path == RECIPES.parent / "quickstart" / "base"


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("dpo", {"dpo"}),
        ("evaluate+", {"evaluate", "promote", "report"}),
        ("+filter", {"ingest", "filter"}),
        ("ingest filter", {"ingest", "filter"}),
        ("+sft+", None),
    ],
)
def test_selection(expression, expected):
    found = selected(load("quickstart"), expression)
    assert found == expected if expected else {"ingest", "sft", "dpo", "report"} <= found


def test_selecting_nothing_is_an_error():
    with pytest.raises(InputError, match="did you mean dpo"):
        selected(load("quickstart"), "dop")


def test_selecting_what_cannot_run_yet(tmp_path):
    with pytest.raises(InputError, match=r"--select '\+dpo'"):
        plan(Store(tmp_path), load("quickstart"), "dpo")


def test_mermaid_draws_every_stage():
    recipe = load("quickstart")
    drawing = mermaid(recipe)
    assert all(name in drawing for name in parents(recipe))
