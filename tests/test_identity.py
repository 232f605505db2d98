"""What counts as the same code."""

import ast

from storage import identity


def tree(source: str) -> str:
    return ast.dump(identity._without_docstrings(ast.parse(source)))


def test_comments_and_docstrings_do_not_count():
    assert tree('def f():\n    "doc"\n    return 1  # why\n') == tree("def f():\n\n    return 1\n")
    assert tree("def f():\n    return 1\n") != tree("def f():\n    return 2\n")


def test_imports_of_imports_count():
    found = identity.code("flows.task")
    assert {"flows/task.py", "storage/build.py", "storage/files.py", "align/config.py"} <= set(found)


def test_templates_count():
    assert "align/report/templates/report.html.jinja" in identity.code("tasks.report")
