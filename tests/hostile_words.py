"""Words that no command line expects, and the form that a refusal of them must have."""

import pytest

from align.text import printable
from flows import cli
from flows.recipe import RECIPES

LONG = "x" * 5000
NESTED = "[" * 3000 + "]" * 3000
GRADER = "evaluate.suites.questions.grader"
QUICKSTART = (
    (RECIPES / "quickstart.yaml")
    .read_text(encoding="utf-8")
    .replace("../quickstart", str(RECIPES.parent / "quickstart"))
)


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What `align WORDS` says on stderr, once it is known to be a refusal in good form."""
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    out, err = capsys.readouterr()
    assert ended.value.code == 2, err
    assert out == "" and "Traceback" not in err
    lines = err.rstrip("\n").split("\n")
    assert all(line.startswith("align: ") and 10 < len(line) < 1100 for line in lines), err
    assert printable(err) == err
    return err
