"""Execution-only settings: they reach the stage, and change neither its key nor what it makes."""

from pathlib import Path
from typing import Annotated

from align.config import EXECUTION, Config, Metrics
from storage.build import build, request
from storage.store import Store


class Inner(Config):
    """Settings within settings."""

    depth: int = 1
    """What counts."""
    every: Annotated[int, EXECUTION] = 10
    """What does not."""


class Settings(Config):
    """Settings of `echo`."""

    word: str = "a"
    """What counts."""
    inner: Inner = Inner()
    """More of both kinds."""
    report_to: Annotated[tuple[str, ...], EXECUTION] = ()
    """What does not."""


SEEN: list[Settings] = []


def echo(config: Settings, out: Path) -> Metrics:
    SEEN.append(config)
    (out / "word.txt").write_text(config.word)
    return {"length": len(config.word)}


def test_they_reach_the_stage_and_change_no_key(tmp_path: Path) -> None:
    store = Store(tmp_path)
    plain = request(store, "echo", echo, Settings(), {})
    told = request(store, "echo", echo, Settings(report_to=("tensorboard",), inner=Inner(every=3)), {})
    assert plain.key == told.key and plain.canonical == {"word": "a", "inner": {"depth": 1}}
    assert plain.key != request(store, "echo", echo, Settings(word="b"), {}).key
    assert plain.key != request(store, "echo", echo, Settings(inner=Inner(depth=2)), {}).key

    SEEN.clear()
    first, ran = build(store, told)
    second, again = build(store, plain)
    assert (ran, again, first.artifact) == (True, False, second.artifact)
    assert SEEN[0].report_to == ("tensorboard",) and SEEN[0].inner.every == 3
    assert "report_to" not in first.config and "every" not in first.config["inner"]


def test_a_run_records_them_and_a_form_keeps_them() -> None:
    settings = Settings(report_to=("trackio",))
    assert Settings.model_validate_json(settings.model_dump_json()) == settings
