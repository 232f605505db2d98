"""What people and programs may throw at the command line: a sentence per mistake on stderr, status 2, no traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from align.text import printable
from flows import cli, show
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


SETTINGS = {
    # numbers
    "sft.learning_rate=.inf": "finite", "sft.learning_rate=-.inf": "finite", "sft.learning_rate=.nan": "finite", "dpo.beta=inf": "finite", "dpo.beta=nan": "finite",
    "sample.temperature=.inf": "finite", "evaluate.temperature=.nan": "finite", "select.min_score=.nan": "finite",
    "ingest.max_bad_share=.nan": "finite", "ingest.split.sft=.nan": "finite", "ingest.sources.questions.weight=.inf": "finite",
    f"{GRADER}.tolerance=.inf": "finite", f"{GRADER}.limits.seconds=.inf": "finite", "filter.seed=.inf": "filter.seed",
    "sft.num_train_epochs=1e308": "1000000", "sft.num_train_epochs=1e309": "finite", "sft.num_train_epochs=0": "greater than 0", "sft.learning_rate=1e300": "3e+38",
    "sft.seed=-1": "greater than or equal to 0", "ingest.seed=-1": "ingest.seed", "filter.seed=4294967296": "4294967295",
    f"sft.seed={'9' * 400}": "4294967295", f"sft.seed={'9' * 5000}": "not YAML", f"sft.learning_rate={'9' * 400}": "sft.learning_rate",
    "sft.per_device_train_batch_size=99999999999999999999": "1000000", "sample.n=999999999": "100000", "sft.lora.r=1e12": "65536",
    "filter.rules.near_duplicate.words=1e30": "filter.rules", "select.min_score=1e308": "3e+38", "sft.seed=1e308": "sft.seed",
    "sft.seed=true": None, "sft.per_device_train_batch_size=1.5": "sft.per_device_train_batch_size", "sft.per_device_train_batch_size=[1]": "sft.per_device_train_batch_size", "sft.lora=[]": "sft.lora",
    "pairs.min_margin=1": "less than 1", "ingest.split={sft: 1.0e308, evaluation: -1.0e308}": "ingest.split",
    # names
    "name=": "name", "name=''": "1 to 100", "name='../..'": "1 to 100", 'name="a\\nb"': "1 to 100", "name=a/b": "1 to 100",
    f"name={LONG}": "1 to 100", 'name="\\e[31mred"': "not text", 'name="\\0"': "not text", "name=' '": "1 to 100",
    # bytes, sizes and depths
    "base.path=a\0b": "not YAML", 'base.path="a\\0b"': "not text", 'description="\\ud800"': "not ", "base\0.path=x": "not text",
    f"base.path=/{LONG}": "base.path", f"ingest.sources.questions.path=/{LONG}": "ingest.sources.questions.path",
    f"pairs.grader.warehouse=/{LONG}": "pairs.grader.warehouse", f"base.chat_template=/{LONG}": "base.", f"description={NESTED}": "nested",
    f"base={'{a: ' * 3000}1{'}' * 3000}": "nested", f"{'a.' * 3000}b=1": "unknown key", f"{LONG}=1": "unknown key", "description=[a": "not YAML",
    "base.path=!!python/object/apply:os.system [id]": "not YAML", "description=&a [*a, *a]": "nested",
    "description=[&a [1,1,1,1,1,1,1,1,1,1], &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a], &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b], "
    "&d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c], &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]]": "aliases", "description={a: 1, a: 2}": "not YAML",
    "description=2024-99-99": "not YAML", "description=`": "not YAML", "description=\ta: b\t- c": "",
    # keys
    "=1": "dotted.key=value", "": "dotted.key=value", ".=1": "dotted.key=value", "a..b=1": "dotted.key=value", "dpo": "dotted.key=value",
    "dpo.__class__=1": "unknown key", "name.x=1": "no keys below", "filter.rules.99.threshold=1": "not in the list", "filter.rules=1": "filter.rules",
    "filter.rules=[{}]": "filter.rules", "filter.rules=[{rule: nope}]": "filter.rules", "base=null": "base", "ingest=": "ingest", "dpo.betta=1": "beta",
    # what later stages would refuse
    f"{GRADER}.warehouse=/nope": "/nope: no such warehouse", f"{GRADER}.warehouse=/dev/null": "no such warehouse", f"{GRADER}.warehouse=/tmp/..": "holds no",
    "pairs.grader.warehouse=/nope": "pairs.grader.warehouse", "filter.rules.parses.warehouse=/nope": "filter.rules.parses.warehouse",
    "base.path=/nope": "base.path", "base.path=/dev/zero": "base.path", "base.chat_template=/nope": "base.chat_template: /nope", "base.path=": "exactly one",
    "base.chat_template=/dev/zero": "base.chat_template", "ingest.sources={}": "is empty", "ingest.sources.questions.path=/nope/*.jsonl": "no file matches",
    "ingest.sources.questions.path=/": "is a directory", "ingest.sources.questions.encoding=klingon": "no encoding of text",
    "ingest.sources.questions.encoding=hex": "no encoding of text", "ingest.sources.questions.encoding='a\\0'": "",
    "evaluate.suites.question={}": "did you mean questions", "evaluate.suites={nobody: {}}": "names no source", "evaluate.suites={}": "0 evaluation items",
    "evaluate.primary=sampled": None, "pairs.grader={kind: none}": "pairs.grader", "pairs.origin=imported": "use: preferences",
    "pairs.grader={kind: python, function: 'os:nope'}": "cannot be imported", "pairs.grader={kind: python, function: 'nope.nope:f'}": "cannot be imported",
    "pairs.grader={kind: python, function: 'os:sep'}": "is no function", "pairs.grader={kind: python, function: f, file: /nope.py}": "/nope.py",
    "pairs.grader={kind: judge, base_url: 'file:///etc/passwd', model: m}": "is no address",
    "pairs.grader={kind: judge, base_url: 'http://[', model: m}": "is no address", "pairs.grader={kind: judge, base_url: '', model: m}": "is no address",
    "pairs.grader={kind: judge, base_url: 'http://x', model: m, pattern: '('}": "", "pairs.grader={kind: judge, base_url: 'http://x', model: m, pattern: 'x'}": "group",
    "filter.rules=[{rule: rating, base_url: 'http://x', model: m, pattern: '*'}]": "", "filter.rules=[{rule: truncated, ending: '('}]": "regular expression",
    "filter.rules=[{rule: rating, base_url: 'http://x', model: m, min: 6}]": "above highest", "filter.rules=[{rule: ifd, min: 2}]": "above max",
    "filter.rules=[{rule: budget, rows: 9, embedding: /nope}]": "embedding", "sample.use=[promts]": "promts", "ingest.split={sft: 1.0}": "preference",
    "sample.split=nope": "sample.split", "sft.optim=adamw_tork_fused": "adamw_torch_fused", "sft.lora.target_modules='('": "lora.target", "dpo.lora={r: 3}": "dpo.lora",
    "sft.lr=1": "did you mean learning_rate", "sft.epochs=1": "did you mean num_train_epochs", "sft.extra={neftune_noise_alfa: 5}": "did you mean neftune_noise_alpha",
    "dpo.extra={beta: 1}": "the key of that name", "reward.extra={report_to: wandb}": "the stage itself", "sft.extra={adam_beta1: big}": "valid number",
    "dpo.extra={output_dir: /x, nope: 1}": "dpo.extra.nope", "sft.extra={eval_strategy: now}": "sft.extra", "sft.extra=3": "sft.extra",
    "base={hub: 'a/../b', revision: main}": "no id of the Hub", "base={hub: a/b}": "needs base.revision",
}  # fmt: skip


@pytest.mark.parametrize(
    "setting", [s for s, message in SETTINGS.items() if message is not None], ids=lambda s: ascii(s)[:60]
)
@pytest.mark.parametrize("verb", ["plan", "run"])
def test_settings(verb, setting, tmp_path, capsys):
    store = tmp_path / "store"
    assert (SETTINGS[setting] or "") in refused([verb, "--set", setting, "--store", str(store)], capsys)
    assert not (store / "artifacts").exists() and not (store / "runs").exists() and not (store / "attempts").exists()


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


def test_every_mistake_is_told_at_once(tmp_path, capsys):
    """Those of the file with its lines, those of --set with what was given, each with the nearest key."""
    path = tmp_path / "r.yaml"
    path.write_text(
        QUICKSTART.replace("dpo: {beta:", "dpo: {betta:").replace("held_out:", "held_uot:"), encoding="utf-8"
    )
    lines = QUICKSTART.splitlines()
    dpo, pairs = (next(i for i, line in enumerate(lines, 1) if what in line) for what in ("dpo: {beta:", "held_out:"))
    err = refused(
        ["plan", str(path), "--set", "sft.learning_rate=.nan", "--set", "sample.nn=3", "--store", str(tmp_path / "s")],
        capsys,
    )
    assert f"r.yaml:{dpo}: unknown key dpo.betta; did you mean beta?" in err
    assert f"r.yaml:{pairs}: unknown key pairs.held_uot; did you mean held_out?" in err
    assert "--set sft.learning_rate=.nan: sft.learning_rate: input should be a finite number (got nan)" in err
    assert "--set sample.nn=3: unknown key sample.nn; did you mean n?" in err
    assert len(err.splitlines()) == 4


def test_every_place_is_looked_at_at_once(tmp_path, capsys):
    wrong = ["base.path=/no/base", "base.chat_template=/no/template", "ingest.sources.questions.path=/no/file", f"{GRADER}.warehouse=/no/warehouse",
             "pairs.grader.warehouse=/no/other", "evaluate.suites.nobody={}"]  # fmt: skip
    err = refused(
        ["run", *(w for s in wrong for w in ("--set", s)), "--store", str(tmp_path / "s"), "--select", "ingest"], capsys
    )
    assert [
        line
        for s in ("/no/base", "/no/template", "/no/file", "/no/warehouse", "/no/other", "nobody")
        for line in err.splitlines()
        if s in line
    ] and len(err.splitlines()) == 6


def test_mistakes_without_number_are_not_all_told(tmp_path, capsys):
    path = tmp_path / "r.yaml"
    path.write_text(QUICKSTART + "".join(f"key{i}: 1\n" for i in range(500)), encoding="utf-8")
    err = refused(["plan", str(path)], capsys)
    assert len(err.splitlines()) == 21 and "480 more" in err


EVIL = "red \x1b[31m\x1b]0;title\x07 back\r \x9b2J \u202eright \x7f tab\tline\nend \ud800"


@pytest.mark.parametrize("form", ["table", "json"])
def test_rows_cannot_command_the_terminal(form, capsys):
    show.rows(["name", "n\x1b[0m"], [[EVIL, 1.0], ["plain 한글", 2]], form)
    out = capsys.readouterr().out
    assert printable(out) == out and "한글" in out
    if form == "json":
        assert json.loads(out)[0]["name"] == EVIL


def test_nothing_that_is_printed_can(capsys):
    from types import SimpleNamespace

    show.chapters({EVIL: [{EVIL: EVIL, "list": [EVIL]}]})
    show.metrics(EVIL, {EVIL: EVIL, "a.b": 3})
    show.plan([SimpleNamespace(stage="sft", status="run", reason=EVIL, drift=(EVIL,))])
    show.say(EVIL)
    with pytest.raises(SystemExit):
        cli.fail(EVIL, 1, EVIL)
    out, err = capsys.readouterr()
    assert printable(out) == out and printable(err) == err and r"\x1b[31m" in out and r"\x1b[31m" in err
    assert all(line.startswith("align: ") for line in err.splitlines())


def test_a_model_that_answers_with_escapes(tmp_path, monkeypatch, capsys):
    """`align chat` prints what a model says; here the sentence comes from a generator that says the worst."""
    from types import SimpleNamespace

    from align.models import generate

    monkeypatch.setattr(show, "artifact_of", lambda *_: tmp_path)
    monkeypatch.setattr(show, "base_of", lambda *_: None)
    says = SimpleNamespace(draw=lambda *_, **__: [SimpleNamespace(text=EVIL)])
    monkeypatch.setattr(generate, "Sampler", lambda *_: says)
    lines = iter(["hello", ""])
    monkeypatch.setattr("builtins.input", lambda prompt="": next(lines))
    cli.main(["chat", "--store", str(tmp_path)])
    out = capsys.readouterr().out
    assert printable(out) == out and r"\x1b[31m" in out


def align(*words: str | bytes, **env: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *words],
        capture_output=True,
        timeout=120,
        cwd=RECIPES.parent,
        env={**os.environ, **env},
    )


@pytest.mark.parametrize("words", [["plan", b"\xff\xfe"], ["plan", "--set", f"description={NESTED}"], ["plan", "--set", f"sft.seed={'9' * 5000}"], ["plan", "\x1b[31m"],
                                   ["runs", "--store", LONG], ["show", "/etc"], ["plan", "--set", f"{GRADER}.warehouse=/nope"], ["run", "--select", ""],
                                   ["plan", "--set", b"name=\xff"]], ids=lambda w: ascii(w)[:40])  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_real_processes(words, encoding, tmp_path):
    done = align(*words, PYTHONIOENCODING=encoding, ALIGN_STORE=str(tmp_path))
    lines = done.stderr.decode(encoding).rstrip("\n").split("\n")
    assert done.returncode == 2 and done.stdout == b"" and b"\x1b" not in done.stderr
    assert len(lines) == 1 and lines[0].startswith("align: "), done.stderr


def test_a_plan_in_ascii(tmp_path):
    """Tables and Korean names come out, escaped, where the terminal has no letters for them."""
    path = Path(tmp_path) / "r.yaml"
    path.write_text(QUICKSTART.replace("name: quickstart", "name: 한글"), encoding="utf-8")
    done = align("plan", str(path), "--store", str(tmp_path / "s"), PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
