"""The command line: exit statuses, one sentence per mistake, nothing written on bad input."""

import subprocess
import sys

import pytest
from warm import align

from flows.recipe import RECIPES


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "quikstart"], "did you mean quickstart"),
        (["plan", "--set", "dpo.betta=1"], "did you mean beta"),
        (["plan", "--select", "dop"], "did you mean dpo"),
        (["run", "--select", "dpo"], "--select '+dpo'"),
        (["fly"], "align --help"),
        (["export"], "`align export` needs RUN_ID. See `align export --help`."),
        (["export", "r"], "`align export` needs --to."),
        (["run", "--set"], "--set needs a value. See `align run --help`."),
        (["sql", "SELEC 1"], "syntax error"),
        (["sql", "SELECT * FROM read_csv('README.md')"], "disabled by configuration"),
        (["trace", "nothing"], "no row, sample or pair"),
        (["report"], "align run"),
        (["show", "nothing"], "no run, artifact or stage key"),
        (["plan", "no/such.yaml"], "no such recipe file"),
    ],
)
def test_bad_usage_is_one_sentence_and_status_2(words, message, tmp_path):
    (tmp_path / "store").mkdir()
    done = align(*words, *([] if words == ["fly"] else ["--store", str(tmp_path / "store")]))
    assert done.returncode == 2, done.stderr
    assert message in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == "" and len(done.stderr.strip().splitlines()) <= 4
    assert not (tmp_path / "store" / "artifacts").exists() and not (tmp_path / "store" / "runs").exists()


def test_help_lists_every_verb():
    done = align("--help")
    verbs = [
        "run",
        "plan",
        "graph",
        "sql",
        "trace",
        "memory",
        "report",
        "runs",
        "show",
        "verify",
        "gc",
        "export",
        "chat",
        "serve",
        "label",
        "compare",
    ]
    assert done.returncode == 0 and all(verb in done.stdout for verb in verbs)


def test_help_and_plan_import_nothing_heavy(tmp_path):
    code = (
        "import sys, flows.cli\nflows.cli.main(sys.argv[1:])\n"
        "print(sorted({'torch', 'prefect', 'transformers', 'datasets', 'trl', 'altair', 'scipy', 'pandas'} & set(sys.modules)))"
    )
    for words in (["--help"], ["plan", "--store", str(tmp_path)], ["graph"]):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60)
        assert done.stdout.strip().splitlines()[-1] == "[]", done.stdout + done.stderr


def test_graph_and_sql_formats(tmp_path):
    assert "sft --> sample" in align("graph").stdout
    store = ["--store", str(tmp_path)]
    assert align("sql", "SELECT 1 AS a, 'b,c' AS b", "--csv", *store).stdout == 'a,b\n1,"b,c"\n'
    assert '"a": 1' in align("sql", "SELECT 1 AS a", "--json", *store).stdout


@pytest.mark.parametrize("name", sorted(p.stem for p in RECIPES.glob("*.yaml")))
def test_graph_of_every_recipe(name):
    assert align("graph", name).returncode == 0


def test_gc_and_verify_on_an_empty_store(tmp_path):
    store = ["--store", str(tmp_path)]
    assert align("verify", *store).returncode == 0
    assert "0 removed" in align("gc", *store).stdout
    assert align("runs", *store).returncode == 0


def test_what_a_stage_counted_is_printed_where_there_is_no_report(capsys: pytest.CaptureFixture[str]) -> None:
    from flows import show

    show.metrics("filter", {"read": 1200, "dropped.empty": 0, "dropped.refusal": 7, "dropped.echo": 2, "loss": 0.25})
    assert capsys.readouterr().out == "filter:\n  read: 1,200\n  dropped: refusal 7, echo 2\n  loss: 0.2500\n"
