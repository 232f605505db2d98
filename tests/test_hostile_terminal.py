"""What is printed cannot command the terminal, and comes out in whatever encoding it has."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hostile_words import GRADER, LONG, NESTED, QUICKSTART

from align.text import printable
from flows import cli, show
from flows.recipe import RECIPES

EVIL = "red \x1b[31m\x1b]0;title\x07 back\r \x9b2J \u202eright \x7f tab\tline\nend \ud800"


@pytest.mark.parametrize("form", ["table", "json"])
def test_rows_cannot_command_the_terminal(form, capsys):
    show.rows(["name", "n\x1b[0m"], [[EVIL, 1.0], ["plain 한글", 2]], form)
    out = capsys.readouterr().out
    assert printable(out) == out and "한글" in out
    if form == "json":
        assert json.loads(out)[0]["name"] == EVIL


def test_nothing_that_is_printed_can(capsys):
    from types import SimpleNamespace

    show.chapters({EVIL: [{EVIL: EVIL, "list": [EVIL]}]})
    show.metrics(EVIL, {EVIL: EVIL, "a.b": 3})
    show.plan([SimpleNamespace(stage="sft", status="run", reason=EVIL, drift=(EVIL,), note="")])
    show.say(EVIL)
    with pytest.raises(SystemExit):
        cli.fail(EVIL, 1, EVIL)
    out, err = capsys.readouterr()
    assert printable(out) == out and printable(err) == err and r"\x1b[31m" in out and r"\x1b[31m" in err
    assert all(line.startswith("align: ") for line in err.splitlines())


def align(*words: str | bytes, **env: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *words],
        capture_output=True,
        timeout=120,
        cwd=RECIPES.parent,
        env={**os.environ, **env},
    )


@pytest.mark.parametrize("words", [["plan", b"\xff\xfe"], ["plan", "--set", f"description={NESTED}"], ["plan", "--set", f"sft.seed={'9' * 5000}"], ["plan", "\x1b[31m"],
                                   ["runs", "--store", LONG], ["show", "/etc"], ["plan", "--set", f"{GRADER}.warehouse=/nope"], ["run", "--select", ""],
                                   ["plan", "--set", b"name=\xff"]], ids=lambda w: ascii(w)[:40])  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_real_processes(words, encoding, tmp_path):
    done = align(*words, PYTHONIOENCODING=encoding, ALIGN_STORE=str(tmp_path))
    lines = done.stderr.decode(encoding).rstrip("\n").split("\n")
    assert done.returncode == 2 and done.stdout == b"" and b"\x1b" not in done.stderr
    assert len(lines) == 1 and lines[0].startswith("align: "), done.stderr


def test_a_plan_in_ascii(tmp_path):
    """Tables and Korean names come out, escaped, where the terminal has no letters for them."""
    path = Path(tmp_path) / "r.yaml"
    path.write_text(QUICKSTART.replace("name: quickstart", "name: 한글"), encoding="utf-8")
    done = align("plan", str(path), "--store", str(tmp_path / "s"), PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
