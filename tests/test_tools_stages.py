"""Tools through the stages: what trains on them, draws from them and scores them, and what sets them aside."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
from test_pairs import Bench
from tooled import ASKED, OPENAI, SPELLINGS, read

from align import tables
from align.errors import StageError
from align.grading.graders import ExactGrader
from align.grading.suites import Asked
from align.models.base import BaseConfig, load_chat
from align.models.kto import encode as encode_labels
from align.models.pairs import encode
from tasks.answer import AnswerConfig, answer
from tasks.evaluate import EvaluateConfig, SuiteConfig, evaluate
from tasks.filter import FilterConfig, filter
from tasks.ingest import IngestConfig, Source, ingest
from tasks.sample import SampleConfig, sample
from tasks.select import SelectConfig, select
from tasks.sft import SftConfig, sft

TEMPLATE = (  # its markers enclose the assistant's words, and no calls
    "{% if tools %}<|system|>\n{% for t in tools %}{{ t | tojson }}{% endfor %}<|end|>\n{% endif %}"
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<|assistant|>\n"
    "{% generation %}{{ m['content'] }}{% if not m.tool_calls %}<|end|>{% endif %}{% endgeneration %}"
    "{% for c in m.tool_calls or [] %}call {{ c.function.name }} {{ c.function.arguments | tojson }}{% endfor %}"
    "{% if m.tool_calls %}<|end|>{% endif %}\n"
    "{% else %}<|{{ 'user' if m['role'] == 'tool' else m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
SETTINGS: dict[str, Any] = {"num_train_epochs": 1, "per_device_train_batch_size": 8, "max_length": 512}
NONE = "the chat template does not write tool calls"


@pytest.fixture(scope="module")
def tooled(tmp_path_factory: pytest.TempPathFactory) -> BaseConfig:
    """A base whose template writes tools."""
    return tiny.tiny_base(tmp_path_factory.mktemp("tooled"), template=TEMPLATE, context=1024)


def talk(i: int, final: bool = False) -> dict[str, Any]:
    """A conversation in which a tool is called; `final`: the call is what it ends with."""
    messages = [{**ASKED, "content": f"How is it in {i}?"}, *OPENAI[1:]]
    return {"messages": messages[:2] if final else messages, "tools": SPELLINGS["OpenAI"]["tools"]}


def rows_of(folder: Path, *rows: dict[str, Any], use: str = "instructions", **options: Any) -> Path:
    """The rows.parquet that ingest makes."""
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = Source(path=folder / "data.jsonl", use=use, shape="messages")
    ingest(IngestConfig(sources={"a": source}, **options), folder)
    return folder / "rows.parquet"


def trained(base: BaseConfig, folder: Path, rows: Path) -> dict[str, Any]:
    """Metrics of sft on what the filter leaves of `rows`."""
    for name in ("filter", "sft"):
        (folder / name).mkdir()
    filter(FilterConfig(rules=()), folder / "filter", rows=rows, base=base)
    return sft(SftConfig(**SETTINGS), folder / "sft", base=base, rows=folder / "filter" / "kept.parquet")


def test_sft_trains_on_calls_and_on_nothing_that_a_tool_returned(tooled: BaseConfig, tmp_path: Path) -> None:
    rows = rows_of(
        tmp_path, *(talk(i) for i in range(8)), *(talk(i, final=True) for i in range(8, 12)), split={"sft": 1}
    )
    metrics = trained(tooled, tmp_path, rows)
    count = load_chat(tooled).tokenizer
    call, words = (len(count(text)["input_ids"]) for text in (
        'call look_up {"city": "Busan-si", "days": 2}<|end|>', "It rains.<|end|>"))  # fmt: skip
    assert metrics["rows"] == 12 and "rows.faulty" not in metrics
    assert metrics["tokens.trained"] == 12 * call + 8 * words
    assert not tables.read(tmp_path / "sft" / "dropped.parquet")


def test_sft_sets_aside_what_its_template_would_leave_out(base: BaseConfig, tmp_path: Path) -> None:
    plain = [{"messages": [{**ASKED, "content": f"Who is {i}?"}, OPENAI[-1]]} for i in range(9)]
    rows = rows_of(tmp_path, *plain, talk(0), talk(1, final=True), split={"sft": 1})
    metrics = trained(base, tmp_path, rows)
    gone = tables.read(tmp_path / "sft" / "dropped.parquet")
    called = {r["row_id"] for r in tables.read(rows) if "tools" in r["messages"][0]}
    assert {g["row_id"] for g in gone} == called and {g["reason"] for g in gone} == {NONE}
    assert (metrics["rows"], metrics["rows.read"], metrics["rows.faulty"], metrics["rows.too_long"]) == (9, 11, 2, 0)
    (tmp_path / "only").mkdir()
    only = rows_of(tmp_path / "only", talk(0), split={"sft": 1})
    with pytest.raises(StageError, match=f"There are 0 rows to train on: of row .*, {NONE}"):
        trained(base, tmp_path / "only", only)


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    """Two prompts with tools, and one without."""
    rows = [talk(i) | {"messages": talk(i)["messages"][:3]} for i in range(2)]
    return rows_of(tmp_path, *rows, {"messages": [ASKED]}, use="evaluation")


def test_prompts_with_tools_are_drawn_from_where_the_template_writes_them(
    base: BaseConfig, tooled: BaseConfig, asked: Path, tmp_path: Path
) -> None:
    config = SampleConfig(split="evaluation", use=("evaluation",), n=1, max_new_tokens=4)
    for name, one, n in (("with", tooled, 3), ("without", base, 1)):
        (tmp_path / name).mkdir()
        metrics = sample(config, tmp_path / name, base=one, rows=asked)
        gone = tables.read(tmp_path / name / "dropped.parquet")
        assert metrics["samples"] == n and metrics.get("prompts_faulty", 0) == len(gone) == 3 - n
        assert {g["reason"] for g in gone} <= {NONE}
    (tmp_path / "none").mkdir()
    only = rows_of(tmp_path / "none", talk(0) | {"messages": talk(0)["messages"][:3]}, use="evaluation")
    with pytest.raises(StageError, match=f"None of the 1 prompts can be answered: of row .*, {NONE}"):
        sample(config, tmp_path / "none", base=base, rows=only)


def test_items_with_tools_that_cannot_be_asked_are_ungraded(base: BaseConfig, asked: Path, tmp_path: Path) -> None:
    settings = AnswerConfig(suites={"*": Asked()}, n=0, max_new_tokens=4)
    metrics = answer(settings, tmp_path, base=base, rows=asked)
    assert (metrics["answers"], metrics["items.faulty"], metrics["items.faulty.reason"]) == (3, 2, NONE)
    assert metrics["answers.no_room"] == 0
    (tmp_path / "graded").mkdir()
    config = EvaluateConfig(suites={"*": SuiteConfig(grader=ExactGrader())}, n=0, primary="greedy")
    for row in (rows := tables.read(asked)):
        row["reference"] = "It rains."
    tables.write(tmp_path / "graded" / "rows.parquet", rows, tables.ROWS)
    evaluate(config, tmp_path / "graded", rows=tmp_path / "graded" / "rows.parquet", base=tmp_path / "answers.parquet")
    graded = tables.read(tmp_path / "graded" / "evaluations.parquet")
    why = [g["detail"] for g in graded if g["status"] == "ungraded"]
    assert len(why) == 2 and all("tools cannot be given" in w for w in why)


def test_pairs_and_labels_have_tools_in_their_prompts(base: BaseConfig, tooled: BaseConfig, tmp_path: Path) -> None:
    turns = read(**SPELLINGS["OpenAI"]).messages
    pairs = [tiny.pair(i, **({"messages": turns} if i < 3 else {})) for i in range(1, 10)]
    labels = [
        {"label_id": f"l{i}", "row_id": f"r{i}", "messages": turns if i < 3 else tiny.row(i)["messages"],
         "response": f"It is {i}.", "desirable": bool(i % 2), "labelled_by": "x", "held_out": False} for i in range(1, 9)
    ]  # fmt: skip
    settings = SftConfig(**SETTINGS)
    for one, faulty in ((tooled, 0), (base, 2)):
        found, counts = encode(load_chat(one), pairs, settings, tmp_path)
        assert (counts["pairs.faulty"], len(found)) == (faulty, 9 - faulty)
        also, counted = encode_labels(load_chat(one), labels, settings, tmp_path)
        assert (counted["labels.faulty"], len(also)) == (faulty, 8 - faulty)
        assert {g["reason"] for g in tables.read(tmp_path / "dropped.parquet")} == ({NONE} if faulty else set())
        if not faulty:
            first = load_chat(one).tokenizer.decode(found[0].chosen.ids[: found[0].chosen.prompt])
            assert "Weather of a city" in first and "call look_up" in first and "rain, 21" in first


def test_a_reference_that_is_a_call_is_never_chosen(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.ask("words", "no", "nope", reference="yes")
    bench.ask("call", "no", "nope", reference='[{"function": {}}]', calls=True)
    made, metrics = bench.run(use_reference=True)
    assert [(p["row_id"], p["chosen"]) for p in made] == [("words", "yes")] and metrics["prompts.all_wrong"] == 1
    labels = tables.read(tmp_path / "out" / "labels.parquet")
    assert [x["row_id"] for x in labels if x["desirable"]] == ["words"]


def test_selected_words_are_no_calls(tooled: BaseConfig, tmp_path: Path) -> None:
    from tasks.reward import RewardConfig, reward

    for name in ("reward", "out"):
        (tmp_path / name).mkdir()
    config = RewardConfig(learning_rate=2e-3, num_train_epochs=1, per_device_train_batch_size=16, max_length=128)
    reward(config, tmp_path / "reward", base=tooled, pairs=tiny.pairs(tmp_path / "p.parquet", 20), adapter=None)
    rows = rows_of(tmp_path, talk(1, final=True), use="prompts")
    (row,) = tables.read(rows)
    texts = [{"row_id": row["row_id"], "sample_id": f"s{k}", "sample_index": k, "text": f"It is {k}.",
              "finish_reason": "stop", "n_tokens": 5} for k in range(2)]  # fmt: skip
    tables.write(tmp_path / "samples.parquet", texts, tables.SAMPLES)
    select(SelectConfig(), tmp_path / "out", base=tooled, rows=rows, samples=tmp_path / "samples.parquet",
           reward=tmp_path / "reward")  # fmt: skip
    (kept,) = tables.read(tmp_path / "out" / "kept.parquet")
    assert (
        row["calls"] and not kept["calls"] and kept["response"].startswith("It is") and "tools" in kept["messages"][0]
    )


def test_rows_of_an_older_version_are_filtered_and_trained_on(base: BaseConfig, tmp_path: Path) -> None:
    """Messages of two fields, and no column `calls`."""
    turns = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    old = [(n, turns if n == "messages" else f.type) for n, f in zip(tables.ROWS.names, tables.ROWS, strict=True)]
    schema = pa.schema([(n, t) for n, t in old if n != "calls"])
    rows = [{**tiny.row(i), "meta": "{}"} for i in range(16)]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "rows.parquet")
    assert trained(base, tmp_path, tmp_path / "rows.parquet")["rows"] == 16
    kept = tables.read(tmp_path / "filter" / "kept.parquet")
    assert kept[3]["messages"] == tiny.row(3)["messages"] and kept[3]["calls"] is None
