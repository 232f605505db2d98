"""What counts as the same code."""

import ast

from flows.recipe import load
from storage import identity


def tree(source: str) -> str:
    return identity._facts(ast.parse(source))[0]


def test_comments_and_docstrings_do_not_count():
    assert tree('def f():\n    "doc"\n    return 1  # why\n') == tree("def f():\n\n    return 1\n")
    assert tree("def f():\n    return 1\n") != tree("def f():\n    return 2\n")


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
