"""`align export` and `align chat` on a store with a real run: the card, the certificate, pushing, and what is refused."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import hub
import pytest
import warm
from hostile_words import refused
from ruamel.yaml import YAML
from served import own_environment

from align.errors import StageError
from align.handover import export as exporting
from align.handover.card import clean
from align.handover.licence import licence_of
from align.models.base import BaseConfig
from flows import cli
from flows.handover import Order, hand_over
from flows.recipe import ROOT
from storage import runs
from storage.store import Store
from storage.views import connect

TINY = Path(__file__).with_name("tiny.yaml")
SECRET = "hf_abcdefghijklmnop"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with a run of tests/tiny.yaml up to its evaluation."""
    root = tmp_path_factory.mktemp("handover") / "store"
    words = ["--select", "+evaluate", "--set", "controls.random_of_n=false", "--store", str(root)]
    done = warm.align("run", str(TINY), *words, env=own_environment())
    assert done.returncode == 0, done.stderr
    return Store(root)


def align(store: Store, *words: str) -> int:
    """The exit status of a command in this process, whose libraries are loaded."""
    try:
        cli.main([*words, "--store", str(store.root)])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def run_of(store: Store) -> str:
    return str(runs.history(store)[-1]["run_id"])


@pytest.fixture(scope="module")
def exported(store: Store) -> Path:
    to = store.root.parent / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MY_KEY", SECRET)
        words = ["export", run_of(store), "--to", str(to), "--no-server", "--license", "apache-2.0"]
        assert align(store, *words) == 0
    return to


def test_the_certificate_holds_what_was_measured(exported: Path, store: Store) -> None:
    found = json.loads((exported / "served.json").read_text())
    plain = found["plain"]
    assert found["certified"] is True and found["artifact"].startswith("dpo-") and found["run"] == run_of(store)
    assert plain["items"] == plain["prompts_alike"] == plain["graded"] == 16
    assert plain["same_text"] == 1.0 and plain["drift"]["max"] < 1e-4 and "server" not in found


def test_the_card_names_what_it_comes_of(exported: Path, store: Store) -> None:
    text = (exported / "README.md").read_text(encoding="utf-8")
    front = YAML(typ="safe").load(io.StringIO(text.split("---\n")[1]))
    assert front["license"] == "apache-2.0" and front["library_name"] == "transformers"
    assert front["pipeline_tag"] == "text-generation" and front["language"] == ["en", "ko"]
    assert "base_model" not in front, "a local directory is no model of a hub"
    stages = {s["stage"]: s["artifact"] for s in runs.stages(store, run_of(store))}
    before = set(stages) - {"evaluate"} - {s for s in stages if s.startswith("answer_")}
    for stage in before:
        artifact = store.artifact(stages[stage])
        assert artifact is not None and f"| {stage} | {artifact.id} | {artifact.digest()} |" in text
    assert stages["evaluate"] not in text
    assert "| instructions | instructions.jsonl | instructions | 3,000 | 240 | 0 |" in text
    assert "quantised to NF4 and dequantised again, which is what was graded" in text and "Drift: over " in text
    assert "learning_rate: 0.002" in text and "beta: 0.1" in text


def test_the_card_has_the_intervals_of_the_view(exported: Path, store: Store) -> None:
    text = (exported / "README.md").read_text(encoding="utf-8")
    query = (
        "SELECT suite, mode, model, against, n, mean, low, high, diff, diff_low, diff_high, verdict FROM comparisons"
    )
    rows = connect(store, query).execute(query).fetchall()
    for suite, mode, model, against, n, mean, low, high, diff, diff_low, diff_high, verdict in rows:
        if against is None:
            assert (
                f"| {suite} | {mode} | {model} | {n} | {100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}] |" in text
            )
        elif model == "dpo":
            shown = f"{100 * diff:+.1f} [{100 * diff_low:+.1f}, {100 * diff_high:+.1f}]"
            assert f"| {suite} | {mode} | {against} | {n} | {shown} | {verdict} |" in text


def test_nothing_that_is_exported_names_this_machine(exported: Path, store: Store) -> None:
    for file in exported.iterdir():
        held = file.read_bytes()
        for secret in (str(ROOT), str(store.root), str(store.root.parent), SECRET):
            assert secret.encode() not in held, f"{file.name} holds {secret}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("read /srv/me/data/a.jsonl and ~/b/c.csv", "read a.jsonl and c.csv"),
        ("see https://hub.example/org/name/tree and org/name", "see https://hub.example/org/name/tree and org/name"),
        ("path: '/srv/x/z' or /tmp", "path: 'z' or /tmp"),
        ("https://me:pass@host/a", "https://***@host/a"),
        (f"key {SECRET}", "key ***"),
    ],
)  # fmt: skip
def test_paths_and_secrets_are_left_out(text: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", SECRET)
    assert clean(text) == shown


@pytest.mark.parametrize(
    ("card", "found"),
    [
        ("---\nlicense: mit\n---\n# x", "mit"),
        ("---\r\nlicense: mit\r\n---\r\n", "mit"),
        ("---\nlicense: [a, b]\n---\n", None),
        ("---\nlicense: {\n---\n", None),
        ("# no front matter\nlicense: mit", None),
        ("---\nlicense: 'a b\\nc: d'\n---\n", None),
    ],
)
def test_the_licence_is_the_bases(card: str, found: str | None, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(card.encode())
    assert licence_of(BaseConfig(path=tmp_path)) == found
    assert licence_of(BaseConfig(path=tmp_path / "none")) is None


def test_the_example_of_the_readme_works(exported: Path) -> None:
    codes = [f"DIR = {str(exported)!r}"]
    for page in (ROOT / "README.md", ROOT / "README.ko.md", exported / "README.md"):
        text = page.read_text(encoding="utf-8")
        codes += re.findall(r"```python\n(from transformers import pipeline\n.*?)```", text, re.DOTALL)
    words = [sys.executable, "-I", "-c", "\nprint('said')\n".join(codes)]
    done = subprocess.run(words, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0 and len(codes) == 4, done.stderr
    answers = done.stdout.split("said\n")[1:]
    assert len(answers) == 3 and all(answer.strip() for answer in answers)


def test_pushing_sends_all_of_it_with_the_token_of_the_environment(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    words = ["export", run_of(store), "--to", str(tmp_path / "model"), "--certify", "0", "--push", "org/model"]
    with hub.running() as there:
        monkeypatch.setenv("HF_ENDPOINT", there.url)
        assert align(store, *words) == 0
        assert f"{there.url}/org/model" in capsys.readouterr().err
        assert there.files == {p.name: p.read_bytes() for p in (tmp_path / "model").iterdir()}
        assert {"model.safetensors", "README.md", "generation_config.json", "chat_template.jinja"} <= set(there.files)
        assert there.tokens == {f"Bearer {SECRET}"}
        (made,) = there.created
        assert (
            "private" in (made.get("visibility"), *made) and made["name"] == "model" and made["organization"] == "org"
        )
        assert b"**Not certified**: no certificate was asked for" in there.files["README.md"]
        there.refuses = True
        assert align(store, *words[:3], str(tmp_path / "again"), *words[4:]) == 1
    said = capsys.readouterr().err
    assert "org/model could not be pushed (" in said and "You may not write here" in said and SECRET not in said
    assert (tmp_path / "again" / "model.safetensors").is_file(), "what was written stays"


def test_what_cannot_be_done_is_said_before_anything_is(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))

    def refusal(*words: str) -> str:
        to = ["--to", str(tmp_path / "model"), "--store", str(store.root)]
        return refused(["export", run_of(store), *to, *words], capsys)

    assert "environment variable HF_TOKEN" in refusal("--push", "org/model")
    assert "takes ORG/NAME" in refusal("--push", "../../model")
    assert "convert_hf_to_gguf.py DIR --outfile model.gguf" in refusal("--form", "gguf")
    assert "number of items" in refusal("--certify", "-1")
    assert "Invalid value" in refusal("--form", "onnx")
    monkeypatch.setenv("HF_TOKEN", SECRET)
    assert "local directory, which others lack" in refusal("--push", "org/model", "--form", "adapter")
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_says_something_else_is_there_but_neither_certified_nor_pushed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, pushed = exporting._merged, []

    def wrong(model: Any, *more: Any) -> None:
        import torch

        torch.manual_seed(0)
        for value in model.parameters():
            value.data += 0.5 * value.data.std() * torch.randn_like(value)
        write(model, *more)

    monkeypatch.setattr(exporting, "_merged", wrong)
    monkeypatch.setattr("align.handover.push.push", lambda *_, **__: pushed.append(1))
    monkeypatch.setenv("HF_TOKEN", SECRET)
    order = Order(push="org/model", server=False)
    with pytest.raises(StageError, match="is written, but not certified: loaded by transformers"):
        hand_over(store, run_of(store), "dpo", tmp_path / "model", order, lambda _: None)
    assert json.loads((tmp_path / "model" / "served.json").read_text())["certified"] is False
    assert "**Not certified** (`served.json`)" in (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert not pushed and [p.name for p in tmp_path.iterdir()] == ["model"]


def test_chat_keeps_the_conversation_until_it_is_reset(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = "How many customers are there?\nAnd orders?\n/reset\nHow many customers are there?\n/quit\nno\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    assert align(store, "chat", "--against", "base", "--system", "Be brief.") == 0
    out, err = capsys.readouterr()
    assert "A new conversation." in err
    said = re.split(r"^(?=(?:dpo|base): )", out, flags=re.MULTILINE)[1:]
    assert [s.split(":")[0] for s in said] == ["dpo", "base"] * 3
    assert said[:2] == said[4:] and said[2:4] != said[:2]


def test_chat_refuses_what_is_no_policy(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert "did not finish nothing" in refused(["chat", "--against", "nothing", "--store", str(store.root)], capsys)
    assert align(store, "chat", "--model", "reward") == 1
    assert "is a reward model, not a policy" in capsys.readouterr().err
