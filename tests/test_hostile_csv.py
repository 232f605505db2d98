"""CSV with malformed rows: each is set aside alone, every line that was lost is counted, and quoted text is read."""

import csv
import io
import json
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hostile import through

from align.data.readers import read_file
from align.errors import InputError

ALPACA = Path(__file__).parents[2] / "shared" / "data" / "alpaca" / "alpaca_5000.json"


def stray(rows: list[dict[str, str]], quoting: int, at: float) -> tuple[str, int]:
    """A CSV file of `rows` with a quote somewhere in the text after its header, and the line in which it is."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), quoting=quoting, lineterminator="\n")  # type: ignore[arg-type]
    writer.writeheader()
    writer.writerows(rows)
    text = out.getvalue()
    place = (start := text.index("\n") + 1) + int(at * (len(text) - start - 1))
    return text[:place] + '"' + text[place:], text.count("\n", 0, place) + 1


def many_lines(n: int) -> list[dict[str, str]]:
    """Rows some of which hold lines, commas and quotes, as answers do."""
    texts = ["short", 'with "quotes"', "1. one, two\n2. three, four\n\n3. five", "a, b, c\nd", 'so "he, she"\nsaid', ""]
    return [{"question": f"What is {i}, {texts[i * 5 % 6]}?", "answer": texts[i % 6] + str(i)} for i in range(n)]


def real_rows() -> list[dict[str, str]]:
    """210 real rows, with more lines than rows."""
    if not ALPACA.exists():
        pytest.skip("the shared data is not there")
    picked = random.Random(1).sample(json.loads(ALPACA.read_text(encoding="utf-8")), 210)
    return [{"question": r["instruction"], "answer": r["output"]} for r in picked]


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("real", [False, True])
def test_a_stray_quote_costs_one_row(tmp_path: Path, quoting: int, real: bool) -> None:
    """In each of 200 places of 210 rows: one row is set aside, line by line, or reads a little otherwise, and all others
    are as they were. Where the quote splits a row of many lines, what follows may look like rows; it seldom does."""
    rows = real_rows() if real else many_lines(210)
    path = tmp_path / "a.csv"
    strays = 0
    for step in range(200):
        text, at = stray(rows, quoting, step / 200)
        path.write_bytes(text.encode())
        found = list(read_file(path))
        good, bad = [line.row for line in found if line.row], [line for line in found if line.row is None]
        (hit,) = (row for row in rows if row not in good)
        assert len(bad) <= 1 + sum(value.count("\n") for value in hit.values())
        assert all(abs(line.number - at) < 60 for line in bad)  # in the row that the quote is in
        strays += len(good) - 209 - (not bad)
    assert strays <= (10 if real else 40)


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_a_stray_quote_in_line_236_of_210_real_rows_is_one_bad_row(tmp_path: Path, quoting: int) -> None:
    """It lies in a row of five lines, all of them set aside, and the file passes the default limit of 1 % as one row."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, ["question", "answer"], quoting=quoting, lineterminator="\n")  # type: ignore[arg-type]
    writer.writeheader()
    writer.writerows(real_rows())
    lines = out.getvalue().split("\n")
    lines[235] = lines[235][:30] + '"' + lines[235][30:]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    rows, bad = through(path)
    assert rows == 209 and [line for line, _ in bad] == [234, 235, 236, 237, 238]
    assert "is not valid CSV" in bad[0][1] and bad[2][1] == "lies in a malformed row, which " + bad[0][1]
    assert pq.read_table(tmp_path / "out" / "quarantine.parquet")["text"][2].as_py() == lines[235]
    with pytest.raises(InputError, match="1 of 214 rows of source s are unreadable"):
        through(path, share=0)


def test_lines_that_can_have_been_rows_count_as_rows(tmp_path: Path) -> None:
    """Of these four lines in one row with too many fields three: the first, and two by their separators."""
    path = tmp_path / "a.csv"
    path.write_text("question,answer,note\n" + "a,b,c\n" * 50 + 'x,"y\nz,\n,w\n",v,u\n' + "a,b,c\n" * 50)
    with pytest.raises(InputError, match="3 of 104 rows of source s are unreadable"):
        through(path)


def test_the_limit_of_bad_rows_holds_for_csv(tmp_path: Path) -> None:
    """What is set aside counts as the rows that it can have been."""
    path = tmp_path / "a.csv"
    text, at = stray(many_lines(600), csv.QUOTE_ALL, 0.5)
    path.write_text(text)
    rows, bad = through(path)
    reasons = [why for _, why in bad]
    assert rows == 599 and len(bad) == 4 and bad[0][0] <= at <= bad[-1][0]
    assert "is not valid CSV" in reasons[0] and set(reasons[1:]) == {"lies in a malformed row, which " + reasons[0]}
    lines = [f'{i}?,"it is {i}"' for i in range(300)]
    lines[30] = lines[90] = lines[270] = 'x?,"it" is'
    path.write_text("question,answer\n" + "\n".join(lines))
    assert through(path)[0] == 297
    lines[150] = 'x?,"it is'
    path.write_text("question,answer\n" + "\n".join(lines))
    with pytest.raises(InputError, match=r"4 of 300 rows of source s are unreadable.*as in a.csv:(32|152)"):
        through(path)


TORN = ['"a "stray" quote",b', 'x,"never closed', '"it" is,b', 'x,"one, "two"']
INCH = '"'
STYLES: dict[str, Callable[[int], str]] = {
    "a quote within": lambda i: f'a 5" pipe {i},It is {i}',
    "a quote at the end": lambda i: f'a pipe of {i}",It is 5"',
    "a quote in every fifth row": lambda i: f"a 5{'' if i % 5 else INCH} pipe {i},It is {i}",
    "a quote at the end of every fifth row": lambda i: f"pipe {i},It is 5{'' if i % 5 else INCH}",
    "a space before a quote": lambda i: f'What is {i}?, "It is {i}"',
    "blank lines": lambda i: f"What is {i}?,It is {i}\n",
}


@pytest.mark.parametrize("bad", [*TORN, "x,y,z", '"x",y,"z"', "x"])
@pytest.mark.parametrize("style", STYLES)
def test_a_malformed_row_is_set_aside_alone_in_every_style(tmp_path: Path, bad: str, style: str) -> None:
    """Quotes within a field that does not begin with one are text, before a malformed row and after it."""
    path = tmp_path / "a.csv"
    row = STYLES[style]
    many = [row(i) for i in range(1, 650)]
    path.write_text("\n".join(["question,answer", *many[:500], bad, *many[500:]]))
    rows, ((line, _), *more) = through(path)
    assert line == (1002 if style == "blank lines" else 502) and rows + len(more) == 649
    assert not more or (bad == 'x,"never closed' and style == "a quote at the end of every fifth row")  # closed there


@pytest.mark.parametrize("n", [1, 5, 40, 300])
@pytest.mark.parametrize("end", ['say 5"', 'z,say 5"'])
def test_a_quote_that_takes_in_rows_is_seen(tmp_path: Path, n: int, end: str) -> None:
    """It closes with the right number of fields, so that csv.reader sees one row; all that it took in is counted."""
    lines = [f"What is {i}?,It is {i}" for i in range(1000)]
    lines[100], lines[101 + n] = 'x,"never closed', end
    if n > 4:  # where texts of many lines are common, five lines that look like rows are still none of them
        lines[50] = 'x,"One.\nTwo.\nThree."'
    path = tmp_path / "a.csv"
    path.write_text("question,answer\n" + "\n".join(lines))
    found = list(read_file(path))
    bad = [line for line in found if line.row is None]
    first = 104 if n > 4 else 102
    assert len(found) == 1000 and [line.number for line in bad] == list(range(first, first + n + 2))
    assert f"takes in lines that look like rows, {n} of them" in (bad[0].problem or "")
    if n > 10:
        with pytest.raises(InputError, match=rf"{n + 2} of 1000 rows .*quote never closed, as in a.csv:105"):
            through(path)


MANY_LINES = {
    "prose": "First, we go.\nThen, we stay.\nNow, we sing.\nLater, we eat.\nStill, we wait.\nAt last, we sleep.\nSo, good night.",
    "verse": "Roses are red,\nViolets are blue,\nSugar is sweet,\nAnd so are you,\nSays the song,\nAll night long,\nAnd on.",
    "a table": "Name,Age\nAnn,5\nBob,6\nEve,7\nJoe,8\nSum,26",
    "a table and words": "Here it is:\n\nName,Age\nAnn,5\nBob,6\nEve,7\nJoe,8\nMax,9\n\nIt is sorted by age.",
    "a wider table": "n,a,b\n" + "\n".join(f"{i},{i},{i}" for i in range(50)),
    "code": "def f(a, b):\n    return g(a, b)\n\ndef g(a, b):\n    return h(a, b)\n\ndef h(a, b):\n    return a, b\n",
    "numbers": "1,000\n2,000\n3,000\n4,000\n5,000",
    "quotes": 'He said, "no"\nShe said, "yes"\nThey said, "so"\nWe said, "oh"\nI said, "ah"\nAll said, "bye"\n',
}  # fmt: skip


@pytest.mark.parametrize("name", MANY_LINES)
def test_texts_of_many_lines_with_commas_are_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.csv"
    want = [{"question": f"What is {i}?", "answer": MANY_LINES[name] if i else "One.\nTwo.\nThree."} for i in range(20)]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["question", "answer"])
        writer.writeheader()
        writer.writerows(want)
    assert [line.row for line in read_file(path)] == want


def test_the_answers_of_real_data_are_not_taken_for_rows(tmp_path: Path) -> None:
    if not ALPACA.exists():
        pytest.skip("the shared data is not there")
    rows = json.loads(ALPACA.read_text(encoding="utf-8"))
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert [line.row for line in read_file(tmp_path / "a.csv")] == rows
