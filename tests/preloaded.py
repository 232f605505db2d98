"""Libraries that change what the kernel says to a process, made on the spot and preloaded into it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.recipe import ROOT

TESTS = Path(__file__).parent
COMPILER = shutil.which("cc") or shutil.which("gcc")


def library(source: str, folder: Path) -> Path:
    """A library made of a file of these tests."""
    if COMPILER is None or sys.platform != "linux":
        pytest.skip("needs a C compiler and Linux")
    made = folder / f"{source}.so"
    words = [COMPILER, "-shared", "-fPIC", "-o", str(made), str(TESTS / source), "-ldl"]
    subprocess.run(words, check=True, capture_output=True, text=True)
    return made


def script(name: str, *words: object, preload: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a script of these tests, with a library preloaded, to its end."""
    more: dict[str, Any] = {"LD_PRELOAD": str(preload)} if preload else {}
    path = os.pathsep.join([str(ROOT), str(TESTS)])
    return subprocess.run(
        [sys.executable, TESTS / name, *map(str, words)], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more},
    )  # fmt: skip
