"""What counts as the same code."""

import ast

from storage import identity


def tree(source: str) -> str:
    return ast.dump(identity._without_docstrings(ast.parse(source)))


def test_comments_and_docstrings_do_not_count():
    assert tree('def f():\n    "doc"\n    return 1  # why\n') == tree("def f():\n\n    return 1\n")
    assert tree("def f():\n    return 1\n") != tree("def f():\n    return 2\n")


def test_imports_of_imports_count():
    found = identity.code("tasks.stage")
    assert {"tasks/stage.py", "storage/build.py", "storage/files.py", "tasks/lib/config.py"} <= set(found)


def test_templates_count():
    assert "tasks/lib/report/templates/report.html.jinja" in identity.code("tasks.report")
