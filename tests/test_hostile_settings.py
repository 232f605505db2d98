"""Settings that cannot be: each mistake is named with its key, all are told at once, and nothing is written."""

import pytest
from hostile_words import GRADER, LONG, NESTED, QUICKSTART, refused

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
    "compute.processes=3": "cannot share the 16 rows", "compute.processes=0": "compute.processes", "compute.strategy=dpp": "ddp",
    "compute.strategy=fsdp": "base.quantization nf4 cannot be split", "compute.offload=true": "set compute.strategy to fsdp",
    "dpo.extra={beta: 1}": "the key of that name", "reward.extra={report_to: wandb}": "the key of that name", "reward.extra={bf16: true}": "the stage itself", "sft.extra={adam_beta1: big}": "valid number",
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
