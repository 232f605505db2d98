"""The report in Korean: no sentence is left in English, every sentence is used, particles follow their words."""

import ast
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from string import Formatter
from typing import Any

import pytest
from artifacts import artifacts

from align.report import korean, words
from align.report.evidence import VERDICTS
from align.report.words import particle, say, speaking
from flows.recipe import ROOT, load
from flows.stages import STAGES, outline
from tasks.report import report

REPORT = ROOT / "align" / "report"
TEMPLATES = [path.read_text() for path in sorted((REPORT / "templates").glob("report*.jinja"))]
BESIDE = ("flows/stages.py", "flows/reporting.py", "flows/front.py", "tasks/promote.py")
CODE = [*sorted(REPORT.glob("*.py")), *(ROOT / name for name in BESIDE)]


def said() -> Iterator[str]:
    """The literal sentences that are said."""
    for file in CODE:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "say":
                todo = [node.args[0]]
                while todo:
                    at = todo.pop()
                    todo += [at.body, at.orelse] if isinstance(at, ast.IfExp) else []
                    if isinstance(at, ast.Constant) and isinstance(at.value, str):
                        yield at.value
    for template in TEMPLATES:
        for one, other in re.findall(r"""\bsay\((?:"([^"]*)"|'([^']*)')""", template):
            yield one or other


def written() -> set[str]:
    """Every text in the code, and those of the templates that are said, also through a variable."""
    texts = {node.value for file in CODE for node in ast.walk(ast.parse(file.read_text()))
             if isinstance(node, ast.Constant) and isinstance(node.value, str)}  # fmt: skip
    quoted = {
        part
        for template in TEMPLATES
        for marks in ("'", '"')
        for part in re.findall(f"{marks}([^{marks}\n]*){marks}", template)
    }
    modes = {f"{mode} {measure}" for mode in ("greedy", "sampled") for measure in ("accuracy", "mean score")}
    on_pairs = {f"{where} {what}" for where in ("held-out", "training") for what in ("pairs", "labels")}
    return (
        texts
        | {text.replace("DPO", "KTO") for text in texts}
        | quoted
        | modes
        | on_pairs
        | {"correct", "wrong", "round", "skipped", "interrupted", "evaluation"}
    )


def test_every_sentence_is_there_and_used() -> None:
    kto = outline(load("quickstart", ["chain.dpo_pairs=fresh", "dpo.nll=0", "dpo.loss_type=kto"])).parts
    everything = {*said(), *VERDICTS.values(), *(stage.title for stage in STAGES), *(part.title for part in kto),
                  *(topic for stage in STAGES for topic, *_ in stage.questions)}  # fmt: skip
    assert sorted(everything - korean.SENTENCES.keys()) == []
    assert sorted(korean.SENTENCES.keys() - written()) == []


def test_a_translation_has_the_values_of_its_sentence() -> None:
    def values(text: str) -> set[str | None]:
        return {name for _, name, _, _ in Formatter().parse(text) if name}

    wrong = [en for en, ko in korean.SENTENCES.items() if values(en) != values(ko)]
    assert not wrong
    forms = {spec for ko in korean.SENTENCES.values() for _, name, spec, _ in Formatter().parse(ko) if name and spec}
    assert forms <= words.PARTICLES.keys()
    assert not [ko for ko in korean.SENTENCES.values() if re.search(r"\{\w+\}(은|는|을|를|과|와|으로)\b", ko)]


@pytest.mark.parametrize(
    ("word", "form", "expected"),
    [("필터", "은", "는"), ("정책", "은", "은"), ("dpo", "이", "가"), ("SFT", "을", "를"), ("sft_rs", "은", "는"),
     ("거부 샘플링(n개 중 최선)", "은", "은"), ("모델", "으로", "로"), ("정책", "으로", "으로"), ("llama3", "과", "과"),
     ("llama2", "과", "와"), ("qwen", "은", "은"), ("dpo_r8", "으로", "로"), ("?", "이", "가")],
)  # fmt: skip
def test_particles(word: str, form: str, expected: str) -> None:
    assert particle(word, form) == expected


def test_numbers_and_what_is_not_translated() -> None:
    assert say("{n:row} of {m:category|categories}, {k}", n=1, m=1200, k=1200) == "1 row of 1,200 categories, 1,200"
    with speaking("ko"):
        assert say("No such sentence {n:row}.", n=2) == "No such sentence 2 rows."
        assert say("{rows:row} from {sources:source}.", rows=1200, sources=1) == "출처 1곳에서 1,200행."
    assert say("model") == "model"


class Texts(HTMLParser):
    """The texts that a reader sees, without what is marked as English, code, quoted data and names."""

    VOID = {"meta", "br", "hr", "input"}
    QUOTED = {"pre", "style", "script", "code"}

    def __init__(self, html: str):
        super().__init__()
        self.hidden: list[bool] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in self.VOID:
            self.hidden.append(tag in self.QUOTED or (tag != "html" and given.get("lang") == "en"))
        if not any(self.hidden):
            self.texts += [text for name in ("aria-label", "alt", "title") if (text := given.get(name))]

    def handle_endtag(self, tag: str) -> None:
        self.hidden.pop()

    def handle_data(self, data: str) -> None:
        if not any(self.hidden) and data.strip():
            self.texts.append(data.strip())


ENGLISH = re.compile(
    r"\b(the|a|an|of|is|are|was|were|and|not|with|in|on|at|to|from|by|no|that|which|than|each|run|stage)\b"
)


def english(html: str) -> list[str]:
    """What reads like English: a small word of it, or a word with a capital that no name of the pipeline has."""
    return [text for text in Texts(html).texts if ENGLISH.search(text)]


@pytest.mark.parametrize(
    "options",
    [{"graded": False, "arms": ("sft", "dpo")}, {"suites": 2, "arms": ("sft", "sft_rs", "dpo")}, {"arms": ()}],
)
def test_nothing_is_left_in_english(options: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missed: list[str] = []

    class Watched(dict[str, str]):
        def get(self, key: str, default: Any = None) -> Any:
            missed.extend([] if key in self else [key])
            return super().get(key, default)

    monkeypatch.setattr(korean, "SENTENCES", Watched(korean.SENTENCES))
    inputs = artifacts(tmp_path, n=12, **options)
    (tmp_path / "out").mkdir()
    recipe = load(overrides=["report.language=ko"])
    report(recipe.report, tmp_path / "out", outline=outline(recipe), **inputs)
    html = (tmp_path / "out" / "report.html").read_text()
    assert not missed
    assert '<html lang="ko">' in html and "<h1>정렬 보고서</h1>" in html
    assert english(html.replace("suite &lt;b&gt;1&lt;/b&gt;", "묶음")) == []
    assert not ENGLISH.search((tmp_path / "out" / "summary.md").read_text().replace("suite", ""))
    table = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert "model" in table["columns"]  # what `align run` prints is English


def test_english_would_be_found() -> None:
    page = '<html lang="en"><p>{}<pre>the model</pre><i lang="en">the grader</i><svg aria-label="{}"></svg></p></html>'
    assert english(page.format("The rows of it", "Loss by step")) == ["The rows of it", "Loss by step"]
    assert english(page.format("sft 62.0%", "손실")) == []
