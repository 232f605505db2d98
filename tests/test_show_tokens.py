"""`align show --tokens`: a training row as the model sees it, with what is trained on told apart."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from test_store import Knob, made

from align import tables
from align.models.base import BaseConfig
from flows.cli import main
from storage.runs import Run, StageRun
from storage.store import Store

TALK = [
    {"role": "user", "content": "How many?"},
    {"role": "assistant", "content": "One."},
    {"role": "user", "content": "Sure?"},
]


def produce(config: Knob, out: Path) -> dict:
    rows = [tiny.row(1), tiny.row(2, messages=TALK, response="Two\x1b[2J.")]
    return {"rows": tables.write(out / "kept.parquet", rows, tables.KEPT)}


@pytest.fixture
def store(base: BaseConfig, tmp_path: Path) -> Store:
    """A store with a run that filtered and selected the same two rows."""
    store = Store(tmp_path / "store")
    run = Run(store, "r", {"name": "r", "base": base.model_dump(mode="json"), "sft": {"max_length": 20}, "sft_rs": {}})
    for stage in ("filter", "select"):
        attempt, _ = made(store, stage, produce, Knob())
        run.stage(StageRun(stage, attempt.key, attempt.artifact, "ran", 1.0, "", attempt.metrics))
    run.finish("done")
    return store


def test_what_is_trained_on_is_marked_where_there_are_no_colours(store: Store, capsys: pytest.CaptureFixture) -> None:
    main(["show", "--tokens", "r1", "--store", str(store.root)])
    printed = capsys.readouterr().out
    assert "<|user|>\nWhat is 1 plus 1?<|end|>\n<|assistant|>\n⟦It is 2.<|end|>⟧" in printed and "\x1b" not in printed
    assert printed.startswith("sft: ") and "longer than max_length 20, so it was dropped" in printed


def test_a_stage_that_trains_on_the_last_turn_shows_that(store: Store, capsys: pytest.CaptureFixture) -> None:
    main(["show", "--tokens", "r2", "--store", str(store.root)])
    first, second = capsys.readouterr().out.split("sft_rs: ")
    assert "⟦One.<|end|>⟧" in first and "⟦Two\\x1b[2J.<|end|>⟧" in first
    assert "One.<|end|><|user|>" in second and second.count("⟦") == 1 and "⟦Two\\x1b[2J.<|end|>⟧" in second


def test_colours_on_a_terminal(store: Store) -> None:
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "flows.cli", "show", "r2", "--tokens", "--store", str(store.root)]
    environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm-256color"}
    with subprocess.Popen(words, stdout=theirs, stderr=subprocess.DEVNULL, env=environment) as child:
        os.close(theirs)
        shown = b""
        while child.poll() is None or shown[-1:] != b"\n":
            try:
                shown += os.read(ours, 65536)
            except OSError:  # the terminal is closed when the child ends
                break
    os.close(ours)
    assert child.returncode == 0
    printed = shown.decode()
    assert "\x1b[1;32mOne.<|end|>\x1b[0m" in printed and "⟦" not in printed
    assert "\x1b[2J" not in printed, "a row commands no terminal"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tokens", "r9"], "trains on a row of this id; `align trace r9`"),
        (["--tokens", "r1", "--run", "nothing"], "no such run"),
        (["r1", "--run", "nothing"], "--run goes with --tokens"),
    ],
)
def test_one_sentence(store: Store, words: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["show", *words, "--store", str(store.root)])
    assert ended.value.code == 2 and message in capsys.readouterr().err
