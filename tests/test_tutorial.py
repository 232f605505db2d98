"""The tutorial's commands, as they stand there: the same in both languages, and they lead to a promoted model."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from served import PATIENCE, own_environment

from align.asking.sift import normalise
from flows.ask import examples_of
from flows.recipe import ROOT

PAGES = [ROOT / "docs" / "tutorial.md", ROOT / "docs" / "tutorial.ko.md"]


def blocks(page: Path) -> list[str]:
    """The commands of a page, a fenced block each."""
    return re.findall(r"^```sh\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_both_languages_have_the_same_commands_and_sections() -> None:
    english, korean = map(blocks, PAGES)
    assert english == korean and len(english) >= 6
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    assert len({len(re.findall("^#+ ", text, re.MULTILINE)) for text in texts}) == 1
    indented = [re.findall(r"^    (align .*?)(?:  +#.*)?$", text, re.MULTILINE) for text in texts]
    assert indented[0] == indented[1] and indented[0]


def test_both_readmes_link_it() -> None:
    assert "(docs/tutorial.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert "(docs/tutorial.ko.md)" in (ROOT / "README.ko.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The folder that the commands made, and what each block printed by its first line. They run where the checkout is
    beside them, and write nothing into it."""
    root = tmp_path_factory.mktemp("tutorial")
    for name in ("quickstart", "docs"):
        (root / name).symlink_to(ROOT / name)
    (root / "bin").mkdir()
    align = root / "bin" / "align"
    align.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m flows.cli "$@"\n')
    align.chmod(0o755)
    env = own_environment(PYTHONPATH=str(ROOT))
    env |= {"PATH": f"{align.parent}:{env['PATH']}", "OMP_NUM_THREADS": "1"}
    env.pop("ALIGN_STORE", None)
    printed, at = {}, root
    for block in blocks(PAGES[0]):
        ran = subprocess.run(
            ["bash", "-e", "-c", f"{block}\npwd > '{root}/at'"], cwd=at, env=env, capture_output=True, text=True,
            timeout=PATIENCE,
        )  # fmt: skip
        assert ran.returncode == 0, f"{block}\n{ran.stdout}\n{ran.stderr}"
        printed[block.partition("\n")[0]], at = ran.stdout, Path((root / "at").read_text().strip())
    return at, printed


def said(done: tuple[Path, dict[str, str]], verb: str) -> str:
    (text,) = [text for line, text in done[1].items() if line.startswith(f"align {verb}")]
    return text


def test_questions_are_drawn_and_what_is_tested_on_is_not_among_them(done) -> None:
    folder = done[0]
    counted = re.match(r"(\d+) drawn, (\d+) kept: drawn.jsonl", said(done, "ask"))
    drawn, written, test = (examples_of(folder / f"{name}.jsonl") for name in ("drawn", "written", "test"))
    assert counted and len(drawn) == int(counted[2]) > 5 and (len(written), len(test)) == (30, 20)
    names = [{normalise(e.question) for e in some} for some in (drawn, written, test)]
    assert not names[1] & names[2] and not names[0] & names[1]


def test_the_run_ends_with_a_promoted_model_and_a_report(done) -> None:
    ran = said(done, "run")
    assert re.search(r"^promoted: dpo of run .* dpo is [\d.]+ points above base", ran, re.MULTILINE), ran
    assert Path(said(done, "report").strip()).is_file()
    assert "dpo is" in said(done, "sql") and "above base" in said(done, "sql")


def test_what_is_exported_is_certified(done) -> None:
    assert json.loads((done[0] / "model" / "served.json").read_text())["certified"] is True
