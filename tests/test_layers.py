"""Who may import what. The layers hold because this reads every import."""

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.recipe import ROOT

HEAVY = {"torch", "transformers", "trl", "peft", "datasets", "bitsandbytes", "accelerate", "altair", "vl_convert", "scipy",
         "lingua", "openai", "optuna", "prefect"}  # fmt: skip
PREFECT = {"flows/task.py", "flows/guarded.py", "flows/align.py", "flows/rerun.py", "flows/serve.py",
           "flows/deploy.py", "flows/schedules.py", "flows/automations.py", "flows/devices.py", "flows/send.py",
           "flows/maintain.py", "flows/notify.py", "flows/watch.py"}  # fmt: skip
AT_IMPORT = PREFECT - {
    "flows/guarded.py",
    "flows/serve.py",
    "flows/deploy.py",
    "flows/schedules.py",
    "flows/automations.py",
}  # whoever imports these wants Prefect
LINES = 300


def modules(*folders: str) -> list[str]:
    return sorted(p.relative_to(ROOT).as_posix() for folder in folders for p in (ROOT / folder).rglob("*.py"))


PRODUCT = modules("align", "flows", "tasks", "storage")


def imports(file: str, *, only_at_import: bool = False) -> Iterator[str]:
    """The modules that a file imports, with their dots; `only_at_import` leaves out what functions and type checkers import."""
    todo: list[ast.AST] = [ast.parse((ROOT / file).read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif not (only_at_import and _is_later(node)):
            todo += ast.iter_child_nodes(node)


def _is_later(node: ast.AST) -> bool:
    """Whether what is in here does not happen when the module is imported."""
    if isinstance(node, ast.If):
        return ast.unparse(node.test) == "TYPE_CHECKING"
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def packages(file: str, **kwargs: bool) -> set[str]:
    return {name.split(".")[0] for name in imports(file, **kwargs)}


@pytest.mark.parametrize("file", modules("align", "tasks"))
def test_stages_know_neither_prefect_nor_the_store(file):
    assert not packages(file) & {"prefect", "storage", "flows"}


@pytest.mark.parametrize("file", modules("storage"))
def test_storage_knows_neither_prefect_nor_torch_nor_the_pipeline(file):
    assert not packages(file) & (HEAVY | {"flows"})
    assert "tasks" not in packages(file)


@pytest.mark.parametrize("file", [f for f in PRODUCT if f not in PREFECT])
def test_prefect_stays_at_its_seam(file):
    assert "prefect" not in packages(file)


@pytest.mark.parametrize("file", PRODUCT)
def test_heavy_libraries_are_imported_where_they_are_used(file):
    allowed = {"prefect"} if file in AT_IMPORT else set()
    assert not packages(file, only_at_import=True) & (HEAVY - allowed)


@pytest.mark.parametrize("file", modules("tests"))
def test_no_test_imports_prefect_before_its_server_is_up(file):
    """Prefect reads once which server it is to ask, and all tests of a worker are imported before the first begins."""
    assert "prefect" not in packages(file, only_at_import=True)


@pytest.mark.parametrize("file", modules("align"))
def test_what_stages_share_imports_no_stage(file):
    assert "tasks" not in packages(file)


@pytest.mark.parametrize("file", [*PRODUCT, *modules("quickstart", "benchmarks", "tests", "docs")])
def test_a_file_holds_one_idea(file):
    assert len((ROOT / file).read_text(encoding="utf-8").splitlines()) <= LINES


def test_nothing_names_a_path_of_this_machine():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    texts = [ROOT / name for name in tracked if Path(name).suffix in (".py", ".yaml", ".md", ".toml", ".txt")]
    naming = [str(path) for path in texts if path.is_file() and str(ROOT) in path.read_text(encoding="utf-8")]
    assert not naming
