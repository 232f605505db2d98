"""What people and programs may throw at the command line: a sentence per mistake on stderr, status 2, no traceback."""

import pytest
from hostile_words import LONG, refused

READING = [["verify"], ["gc"], ["gc", "--dry-run"], ["runs"], ["sql", "SELECT 1"], ["trace", "abc"], ["show", "abc"], ["report"], ["report", "abc"],
           ["export", "abc", "--to", "x"], ["chat"]]  # fmt: skip


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_a_store_that_is_not_there(words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ALIGN_STORE", raising=False)
    assert "There is no store" in refused([*words, "--store", str(tmp_path / "nope")], capsys)
    assert "There is no store .align" in refused(words, capsys)
    assert list(tmp_path.iterdir()) == []


STORES = ["FILE", "FILE/below", "a?b", "a*", "a[b]", "a\0b", "", " ", LONG, "/proc/nope/here", "\udcff\x1b[2J*"]


@pytest.mark.parametrize("store", STORES, ids=lambda s: ascii(s)[:30])
@pytest.mark.parametrize("words", [["run"], ["runs"], ["sql", "SELECT 1"], ["verify"], ["gc"]], ids=" ".join)
def test_a_store_that_cannot_be_one(words, store, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    refused([*words, "--store", store.replace("FILE", str(tmp_path / "file"))], capsys)


@pytest.mark.parametrize("store", [s for s in STORES if not s.startswith("/proc")], ids=lambda s: ascii(s)[:30])
def test_a_plan_refuses_it_too(store, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    refused(["plan", "--store", store.replace("FILE", str(tmp_path / "file"))], capsys)


@pytest.mark.parametrize(
    "id_",
    ["/etc", "", " ", "*", "**", "../..", "a/b", "a\nb", "\0", LONG, "\x1b[2J", "a?", "[a]", ".", "ㄱ" * 300, "\udcff"],
)
@pytest.mark.parametrize("words", [["show"], ["trace"], ["report"], ["chat"], ["export", "--to", "x"]], ids=" ".join)
def test_ids(words, id_, tmp_path, capsys):
    refused([words[0], id_, *words[1:], "--store", str(tmp_path)], capsys)


@pytest.mark.parametrize(
    "expression",
    ["", " ", "+", "++", "dop", "+dop+", "ingest dop", "*", "\0", "\x1b[2J", LONG, "ingest,filter", "in\ngest2"],
)
@pytest.mark.parametrize("verb", ["plan", "run"])
def test_selections(verb, expression, tmp_path, capsys):
    refused([verb, "--select", expression, "--store", str(tmp_path)], capsys)


@pytest.mark.parametrize("words", [["fly"], ["plan", "--sett", "x"], ["plan", "--set"], ["run", "a", "b"], ["trace"], ["show"], ["export", "x"], ["\x1b[2J"],
                                   ["sql"], ["sql", ""], ["sql", " \n"], ["plan", "--json=maybe"], ["\0"], [LONG]], ids=lambda w: ascii(w)[:40])  # fmt: skip
def test_usage(words, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("ALIGN_STORE", str(tmp_path))
    refused(words, capsys)
