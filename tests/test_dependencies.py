"""What pyproject.toml declares is what the code imports: nothing comes only because a library happens to bring it."""

import re
import sys
import tomllib
from importlib import metadata

import pytest
from test_layers import modules, packages

from flows.recipe import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OURS = {"align", "flows", "tasks", "storage", "quickstart", "tests", "benchmarks"} | {
    name.removeprefix("tests/").removesuffix(".py") for name in modules("tests")
}
BOUNDS = {"fastapi", "sqlalchemy"}  # declared to keep versions out that break Prefect's server
CALLED_BY_OTHERS = {"accelerate"}  # transformers' Trainer needs it and does not bring it


def plain(name: str) -> str:
    """A distribution's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(requirements: list[str]) -> set[str]:
    return {plain(re.split(r"[^\w.-]", text)[0]) for text in requirements}


def imported(*folders: str) -> dict[str, list[set[str]]]:
    """The distributions of which one is needed, by the file that imports them. Those not installed are their own name."""
    known = metadata.packages_distributions()
    outside = {file: packages(file) - OURS - set(sys.stdlib_module_names) for file in modules(*folders)}
    return {file: [{plain(d) for d in known.get(name, [name])} for name in found] for file, found in outside.items()}


RUNTIME = declared(PROJECT["dependencies"])
EXTRAS = {name: declared(requirements) for name, requirements in PROJECT["optional-dependencies"].items()}


@pytest.mark.parametrize(
    "folders, allowed",
    [
        (
            ("align", "flows", "tasks", "storage", "quickstart"),
            RUNTIME | EXTRAS["sweep"] | EXTRAS["lm-eval"] | EXTRAS["remote"],
        ),
        (("tests",), RUNTIME | EXTRAS["dev"]),
        (("benchmarks",), RUNTIME | EXTRAS["bench"]),
    ],
    ids=["the product", "tests", "benchmarks"],
)
def test_what_is_imported_is_declared(folders: tuple[str, ...], allowed: set[str]) -> None:
    found = imported(*folders)
    missing = {file: [names for names in needs if not names & allowed] for file, needs in found.items()}
    assert not {file: names for file, names in missing.items() if names}


def test_what_is_declared_is_imported() -> None:
    found = imported("align", "flows", "tasks", "storage", "quickstart")
    used = {name for needs in found.values() for names in needs for name in names}
    assert RUNTIME - used == BOUNDS | CALLED_BY_OTHERS
    assert EXTRAS["remote"] <= used


def test_what_is_declared_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {plain(line.partition("==")[0]) for line in lines if "==" in line}
    assert not (RUNTIME | EXTRAS["dev"]) - pinned
