"""The rule `parses` on Python and JSON: what does not parse goes, what does stays, and nothing that is parsed is run."""

from pathlib import Path

import pytest
from pools import dropped
from pydantic import ValidationError

from align.rules.parses import Parses

PYTHON: dict[str, bool] = {
    "def f(x):\n    return x + 1\n": True,
    "print('안녕')": True,
    '"\\d"': True,
    "Here you are:\n```python\nx = 1\n```\nand\n```\ny = 2\n```\nwhich is all.": True,
    "x = (1": False,
    "return 1": False,
    "def f(x):\nreturn x": False,
    "print 'hello'": False,
    "This is how it is done.": False,
    "Good:\n```python\nx = 1\n```\nand bad:\n```python\nx = = 1\n```\n": False,
    "x = '\0'": False,
    "": False,
    " " * 9: False,
    "(" * 5000: False,
    "x = " + "-" * 200_000 + "1": False,
    "x" + ".a" * 200_000: False,
    "x = " + "1" * 5000: False,
}
JSON: dict[str, bool] = {
    '{"a": [1, 2.5, null]}': True,
    "[]": True,
    "5": True,
    '```json\n{"a": 1}\n```': True,
    '{"a": ' + "7" * 5000 + "}": True,
    '{"a": 1,}': False,
    "{'a': 1}": False,
    '{"a": 1': False,
    '{"a": 1} and more': False,
    '```json\n{"a": 1}\n```\n```json\n{"b": }\n```': False,
    "": False,
    "[" * 5000 + "]" * 5000: False,
}


@pytest.mark.parametrize("kind, table", [("python", PYTHON), ("json", JSON)])
def test_what_does_not_parse_is_dropped_with_the_reason(kind: str, table: dict[str, bool]) -> None:
    rule = Parses.model_validate({"kind": kind})
    rows = [("Write it.", text) for text in table]
    found = dropped(rule, *rows)
    assert {text: at not in found for at, (_, text) in enumerate(rows)} == {t: table[t] for _, t in rows}
    assert all(isinstance(e["error"], str) and e["error"] for e in found.values())


def test_code_is_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = f"import pathlib\npathlib.Path({str(mark)!r}).write_text('run')\n@print\ndef f(x=print()): pass"
    assert not dropped(Parses(kind="python"), ("Write it.", code)) and not mark.exists()


def test_only_sql_has_a_warehouse() -> None:
    for wrong in ({}, {"kind": "sql"}, {"kind": "python", "warehouse": "x"}, {"kind": "json", "warehouse": "x"}):
        with pytest.raises(ValidationError, match="needs a warehouse for kind: sql, and for that only"):
            Parses.model_validate(wrong)
