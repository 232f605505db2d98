"""The wheel: what `pip install` brings is enough, from any folder."""

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from flows.recipe import ROOT, names


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built without a network from a copy of what is committed or would be."""
    folder = tmp_path_factory.mktemp("wheel")
    tracked = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    for name in tracked.stdout.split("\n"):
        if (source := ROOT / name).is_file():
            target = folder / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    build = (
        "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"  # what pip calls
    )
    done = subprocess.run(
        [sys.executable, "-c", build, str(folder)], cwd=folder / "source", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, and the libraries that are installed here."""
    folder = tmp_path_factory.mktemp("empty") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(site)
    here = [p for p in sys.path if p.endswith(("site-packages", "dist-packages"))]
    (site / "libraries.pth").write_text("\n".join(here))
    return folder / "bin" / "python"


def test_it_holds_the_product_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        found = packed.namelist()
    tops = {name.split("/")[0] for name in found if not name.split("/")[0].endswith(".dist-info")}
    assert tops == {"align", "flows", "tasks", "storage", "quickstart", "recipes"}
    assert {f"recipes/{name}.yaml" for name in names()} <= set(found)
    pages = {"align/report/templates/report.html.jinja", "align/labelling/templates/label.html.jinja"}
    assert pages <= set(found) and "quickstart/base/model.safetensors" in found


@pytest.mark.parametrize("words", [["plan"], ["graph"], ["--help"], ["plan", "korean-1.5b", "--json"]])
def test_it_works_from_another_folder(python: Path, tmp_path: Path, words: list[str]) -> None:
    code = "import flows, sys; assert 'site-packages' in flows.__file__, flows.__file__; from flows.cli import main; main()"
    done = subprocess.run([python, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True)
    if words[:2] == ["plan", "korean-1.5b"]:
        assert done.returncode in (0, 2) and "Traceback" not in done.stderr  # its base is on the Hub
        return
    assert done.returncode == 0, done.stderr
    assert "ingest" in done.stdout or "align" in done.stdout


def test_serving_finds_its_deployments(python: Path, tmp_path: Path) -> None:
    code = (
        "from flows.deploy import POOLS, deployments, template\n"
        "for kind in ('process', 'docker', 'kubernetes'): template(kind, True, 'align:cuda')\n"
        "print(len(deployments(dict.fromkeys(POOLS, 'process'))['deployments']))"
    )
    done = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and int(done.stdout) > 10, done.stderr
