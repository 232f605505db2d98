"""Recipe files and names that are none: a sentence that says what is wrong with them."""

import pytest
from hostile_words import LONG, NESTED, refused

RECIPE_FILES = {
    "empty": (b"", "holds nothing"), "null": (b"null\n", "holds nothing"), "list": (b"- a\n", "mapping"), "text": (b"hello\n", "mapping"),
    "not utf-8": ("name: 가\n".encode("cp949"), ":1: not UTF-8"), "utf-16": ("name: x\n".encode("utf-16"), "not UTF-8"),
    "binary": (bytes(range(256)) * 40, "not "), "NUL": (b"name: a\0b\n", "not YAML"), "escape": (b"name: \x1b[31mred\n", "not YAML"),
    "tabs": (b"name: x\nbase:\n\tpath: y\n", ":3: not YAML"), "nested": (f"name: {NESTED}\n".encode(), "nested"), "half": (b"name: [\n" * 50, "not YAML"),
    "deep mapping": ("".join(f"{' ' * i}a:\n" for i in range(400)).encode(), "nested"),
    "digits": (b"name: x\nsft: {seed: " + b"9" * 5000 + b"}\n", "not YAML"), "date": (b"name: 2024-99-99\n", "not YAML"),
    "duplicate": (b"name: x\nname: y\n", "not YAML"), "self": (b"&a {name: *a}\n", "nested"), "huge": (b"# " + b"x" * 2_000_000, "bytes are no recipe"),
    "laughs": (b"a: &a [x,x,x,x,x,x,x,x,x,x]\n" + b"".join(b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 10)) for c in range(ord("b"), ord("k"))), "aliases"),
    "lost alias": (b"name: *nobody\n", "not YAML"), "two": (b"name: x\n---\nname: y\n", "not YAML"), "tag": (b"name: !!python/name:os.system x\n", ""),
    "complex key": (b"? [a, b]\n: 1\nname: x\n", "missing"), "merge": (b"x: &x {path: a}\nbase: {<<: *x, hub: b}\nname: n\n", "unknown key x"), "set": (b"name: !!set {a, b}\n", "name"),
    "anchored flag": (b"name: x\nselect: {skip_truncated: &a 7}\n", "skip_truncated"), "surrogate": (b'name: "\\ud800"\n', "not "), "number": (b"7\n", "mapping"),
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPE_FILES)
def test_recipe_files(name, tmp_path, capsys):
    content, message = RECIPE_FILES[name]
    (tmp_path / "r.yaml").write_bytes(content)
    assert message in refused(["plan", str(tmp_path / "r.yaml"), "--store", str(tmp_path / "store")], capsys)


@pytest.mark.parametrize("name", ["", "../..", "a\nb", "..", ".", "/", "a\0b", LONG, LONG + ".yaml", "a\0.yaml", "\x1b[31m", "\udcff", "../tests/tiny",
                                  "*", "recipes", "/etc/passwd", "~", ".yaml", "nope.yml", "-"])  # fmt: skip
@pytest.mark.parametrize("verb", ["plan", "run", "graph", "memory"])
def test_recipe_names(verb, name, tmp_path, capsys):
    refused([verb, "--", name] if name.startswith("-") else [verb, name], capsys)


def test_a_recipe_that_is_a_directory_or_may_not_be_read(tmp_path, capsys):
    (tmp_path / "r.yaml").mkdir()
    assert "is a directory" in refused(["plan", str(tmp_path / "r.yaml")], capsys)
    (tmp_path / "s.yaml").symlink_to("/proc/self/mem")
    assert "cannot be read" in refused(["plan", str(tmp_path / "s.yaml")], capsys)
