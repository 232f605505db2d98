"""What counts as the same code, and that reading it bears other threads."""

import ast
import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows import plan as planning
from flows.recipe import ROOT, load
from storage import identity
from storage.store import Store


def facts(source: str) -> str:
    return identity._facts(identity.parse(source))[0]


def test_comments_and_docstrings_do_not_count():
    assert facts('def f():\n    "doc"\n    return 1  # why\n') == facts("def f():\n\n    return 1\n")
    assert facts("def f():\n    return 1\n") != facts("def f():\n    return 2\n")


@pytest.mark.parametrize("file", sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "tasks").rglob("*.py")))
def test_prose_and_layout_of_real_modules_do_not_count(file):
    source = (ROOT / file).read_text(encoding="utf-8")
    assert facts(source) == facts(ast.unparse(ast.parse(source)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = 1.0"),
        ("x = 1", "x = True"),
        ("x = 'a'", "x = b'a'"),
        ("x = [1, 2]", "x = [1], 2"),
        ("f(a, b=1)", "f(a, 1)"),
        ("x = {**a, 'b': 1}", "x = {a: 1, 'b': 1}"),
        ("if a:\n b()\n c()", "if a:\n b()\nc()"),
        ("try:\n a()\nexcept B:\n c()", "try:\n a()\n c()\nexcept B:\n pass"),
        ("def f(a, /, b): ...", "def f(a, b): ..."),
        ("x = 'a\\nb'", "x = 'a', 'b'"),
    ],
)
def test_other_code_counts(one, other):
    assert facts(one) != facts(other)


def test_imports_of_imports_count():
    found = identity.code("flows.task")
    assert {"flows/task.py", "storage/build.py", "storage/files.py", "align/config.py"} <= set(found)


def test_templates_count():
    assert "align/report/templates/report.html.jinja" in identity.code("tasks.report")


def test_only_what_a_config_names_counts() -> None:
    recipe = load()
    filtered = identity.code("tasks.filter", recipe.filter)
    named = {r.rule for r in recipe.filter.rules}
    assert "mismatched" in named and "align/rules/mismatch.py" in filtered
    assert "rating" not in named and "align/rules/rating.py" not in filtered
    assert "personal_data" not in named and "align/rules/personal.py" not in filtered
    assert "align/rules/quality.py" in filtered and "align/rules/catalogue.py" in filtered
    graded = identity.code("tasks.evaluate", recipe.evaluate)
    assert "align/grading/sql.py" in graded and "align/grading/sandbox.py" in graded
    assert not {"align/grading/judge.py", "align/grading/ifeval.py"} & set(graded)
    sampled = identity.code("tasks.sample", recipe.sample)
    assert "align/models/generate.py" in sampled and "align/models/draws.py" in sampled
    assert not {"align/models/training.py", "tasks/sft.py", "align/report/page.py"} & set(sampled)


@contextmanager
def parsed_amid() -> Iterator[list[int]]:
    """Another thread parses, from deeper in its stack, whenever the garbage collector interrupts this one: as
    finalisers let it. Yields a list that grows with every interruption."""
    here, asked, done = threading.current_thread(), threading.Event(), threading.Event()
    interrupted: list[int] = []

    def deep(levels: int) -> None:
        if levels:
            return deep(levels - 1)
        while asked.wait():
            asked.clear()
            ast.parse("a = 1")
            done.set()

    def pause(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and threading.current_thread() is here:
            interrupted.append(info["generation"])
            done.clear()
            asked.set()
            assert done.wait(60)

    threading.Thread(target=deep, args=(100,), daemon=True).start()
    threshold = gc.get_threshold()
    gc.callbacks.append(pause)
    gc.set_threshold(50)
    try:
        yield interrupted
    finally:
        gc.callbacks.remove(pause)
        gc.set_threshold(*threshold)


def test_code_is_parsed_while_other_threads_parse():
    source = Path(identity.__file__).read_text(encoding="utf-8")
    alone = facts(source)
    with parsed_amid() as interrupted:
        before = len(interrupted)
        tree = identity.parse(source)
        assert len(interrupted) == before and gc.isenabled()
        if sys.version_info < (3, 13):  # what would happen without: later versions count for each thread
            with pytest.raises(SystemError, match="recursion depth mismatch"):
                ast.parse(source)
    assert identity._facts(tree)[0] == alone


def test_the_code_of_every_stage_is_read_before_anything_runs(tmp_path, monkeypatch):
    """And each file once: what a stage asks for later is known by then, so that nothing is parsed beside Prefect."""
    read: list[str] = []
    parse = identity.parse
    identity._code.cache_clear()
    identity._read.cache_clear()

    def watched(source: str) -> ast.Module:
        read.append(source)
        return parse(source)

    monkeypatch.setattr(identity, "parse", watched)
    planning.read_code(load("quickstart"))
    planning.plan(Store(tmp_path), load("quickstart"))
    assert len(read) == len(set(read)) > 40
    planned = len(read)
    for name in ("ingest", "filter", "sft", "sample", "pairs", "reward", "select", "dpo", "evaluate", "report"):
        identity.code(f"tasks.{name}")
    assert len(read) == planned
