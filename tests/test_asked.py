"""What the processes of a stage are asked for: any value that a stage has, and nothing that is no stage."""

import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
from grouped import Call, doing

from align.errors import StageError
from align.models.base import BaseConfig
from flows import asked
from flows.compute import Compute
from flows.recipe import load
from flows.stages import STAGES
from storage.leases import LeaseLost
from tasks.diagnose import diagnose
from tasks.sft import sft


def test_settings_and_inputs_come_as_they_were(tmp_path: Path) -> None:
    recipe = load("quickstart")
    inputs: dict[str, Any] = {"base": recipe.base, "rows": tmp_path / "r.parquet", "adapter": None}
    asked.ask(tmp_path / "call", sft, recipe.sft, tmp_path, inputs, 2, Compute())
    call = asked.read(tmp_path / "call")
    assert (call.processes, call.out) == (2, tmp_path)
    assert call.call() == (sft, recipe.sft, inputs)
    assert type(call.call()[2]["base"]) is BaseConfig


def test_every_stage_that_may_be_spread_can_be_asked_for(tmp_path: Path) -> None:
    recipe = load("quickstart")
    for stage in STAGES:
        config = stage.config_of(recipe)
        if stage.gpu and config is not None:
            asked.ask(tmp_path / "call", stage.function, config, tmp_path, {}, 2, Compute())
            assert asked.read(tmp_path / "call").call()[:2] == (stage.function, config), stage.name


def test_what_json_cannot_tell_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="grouped:doing cannot be spread over processes: "):
        asked.ask(tmp_path / "call", doing, Call(), tmp_path, {"what": object()}, 2, Compute())
    assert not (tmp_path / "call").exists()


def test_an_input_that_a_stage_does_not_name_is_of_its_others(tmp_path: Path) -> None:
    recipe = load("quickstart", ["chain.diagnose=true"])
    asked.ask(tmp_path / "call", diagnose, recipe.diagnose, tmp_path, {"sft": tmp_path}, 2, Compute())
    assert asked.read(tmp_path / "call").call()[2] == {"sft": tmp_path}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"function": "os:system"}, "is no stage"),
        ({"function": "builtins:exec"}, "is no stage"),
        ({"function": "grouped:Call"}, "is no stage"),
        ({"settings": "tasks.sft:SftConfig"}, "is no stage"),
        ({"settings": "builtins:dict"}, "is no stage"),
        ({"function": "none.such:thing"}, "is not here"),
        ({"function": "grouped"}, "is not here"),
        ({"function": ":"}, "is not here"),
        ({"inputs": {"more": 1}}, "has no input more"),
        ({"config": {"what": 1}}, "cannot be called like that"),
        ({"processes": "many"}, "is no call of a stage"),
        ({"what": 1}, "is no call of a stage"),
    ],
)
def test_what_is_no_stage_is_not_called(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    path = tmp_path / "call"
    asked.ask(path, doing, Call(), tmp_path, {}, 1, Compute())
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(StageError, match=says):
        asked.read(path).call()


def test_nothing_that_is_not_of_the_installation_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere.py").write_text("raise SystemExit('it was imported')")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "call"
    asked.ask(path, doing, Call(), tmp_path, {}, 1, Compute())
    path.write_text(json.dumps(json.loads(path.read_text()) | {"function": "elsewhere:doing"}))
    with pytest.raises(StageError, match="elsewhere:doing is no stage"):
        asked.read(path).call()


class Evil:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("pickled"),)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff", pickle.dumps(Evil())])
def test_what_is_no_json_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "call").write_bytes(content)
    with pytest.raises(StageError, match="is no call of a stage"):
        asked.read(tmp_path / "call")
    assert not Path("pickled").exists()


def test_answers_and_errors_come_as_they_were(tmp_path: Path) -> None:
    metrics: dict[str, float | int | str] = {"loss": 0.1, "steps": 3, "verdict": "better", "none": math.inf}
    asked.answer(tmp_path / "done", metrics)
    assert asked.answered(tmp_path / "done") == metrics
    for error, kind, said in (
        (LeaseLost("it is gone"), LeaseLost, "it is gone"),
        (ValueError("wrong"), StageError, "Process 1 failed with ValueError: wrong"),
    ):
        try:
            raise error
        except Exception as raised:
            asked.fail(tmp_path / "failed", raised)
        found = asked.failed(tmp_path / "failed", "Process 1")
        assert type(found) is kind and str(found) == said
    assert "raise error" in found.__notes__[0]
