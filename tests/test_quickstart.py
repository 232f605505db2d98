"""The bundled world: what the quickstart's files promise to the pipeline."""

import hashlib
import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from align.models.base import load_chat
from align.text import normalise, split_of
from flows.recipe import load
from quickstart import world
from quickstart.corpus import documents
from quickstart.questions import FRACTIONS, result

HERE = Path(__file__).parents[1] / "quickstart"


def _rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (HERE / "data" / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def questions() -> list[dict[str, Any]]:
    return _rows("questions.jsonl")


@pytest.fixture(scope="module")
def raw() -> list[dict[str, Any]]:
    return _rows("instructions.jsonl")


@pytest.fixture(scope="module")
def con() -> Any:
    return world.connect(HERE / "warehouse")


def test_warehouse_is_what_the_seed_gives() -> None:
    for name, rows in world.tables(0).items():
        assert pq.read_table(HERE / "warehouse" / f"{name}.parquet").to_pylist() == rows
    assert (HERE / "warehouse" / "schema.sql").read_text() == world.SCHEMA


def test_splits_are_disjoint_and_large_enough(questions: list[dict[str, Any]], raw: list[dict[str, Any]]) -> None:
    sizes = Counter(split_of(row["question"], FRACTIONS, 0) for row in questions)
    assert sizes["sft"] == 0 and sizes["evaluation"] >= 400 and sizes["preference"] >= 400 and sizes["rejection"] >= 600
    elsewhere = [r for r in raw if split_of(r["question"], FRACTIONS, 0) != "sft"]
    assert {r["defect"] for r in elsewhere} == {"leak"}
    assert len({normalise(r["question"]) for r in questions}) == len(questions)


def test_no_answer_is_in_two_splits(questions: list[dict[str, Any]], raw: list[dict[str, Any]]) -> None:
    where: dict[str, set[str]] = {}
    for row in questions:
        where.setdefault(row["reference"], set()).add(split_of(row["question"], FRACTIONS, 0))
    for row in raw:
        if row["defect"] not in ("leak", "refusal", "empty", "wrong_language", "wrong_sql", "truncated"):
            where.setdefault(row["answer"], set()).add("sft")
    assert all(len(splits) == 1 for splits in where.values())


def test_references_tell_answers_apart(questions: list[dict[str, Any]], con: Any) -> None:
    held_out = [r for r in questions if split_of(r["question"], FRACTIONS, 0) == "evaluation"]
    results = [result(con, r["reference"]) for r in held_out]
    assert all(rows and all(v is not None for row in rows for v in row) for rows in results)
    assert max(Counter(map(repr, results)).values()) <= 3


def test_defects_are_planted_as_recorded(raw: list[dict[str, Any]], con: Any) -> None:
    kinds = Counter(r["defect"] for r in raw)
    assert 0.35 <= 1 - kinds[None] / len(raw) <= 0.45
    assert set(kinds) == {
        None,
        "exact_duplicate",
        "near_duplicate",
        "truncated",
        "empty",
        "mismatched",
        "wrong_sql",
        "wrong_language",
        "refusal",
        "leak",
    }
    for row in raw:
        if row["defect"] in (None, "exact_duplicate", "near_duplicate", "leak", "mismatched"):
            con.execute("EXPLAIN " + row["answer"])
        elif row["defect"] == "wrong_sql":
            with pytest.raises(Exception, match="Error"):
                con.execute("EXPLAIN " + row["answer"])


def test_corpus_holds_no_evaluation_answer(questions: list[dict[str, Any]]) -> None:
    held_out = {r["reference"] for r in questions if split_of(r["question"], FRACTIONS, 0) == "evaluation"}
    asked = {normalise(r["question"]) for r in questions}
    for text in itertools.islice(documents(4000, held_out, 0), 4000):
        label, _, query = text.partition("\n") if text.startswith("--") else ("", "", text)
        assert query not in held_out and normalise(label) not in asked


def test_tokens_and_masks_are_those_that_the_result_table_was_made_with() -> None:
    """The digest is of token ids, masks and prompt lengths of every row, as version 0.1.0 made them."""
    rows = [json.loads(line) for line in (HERE / "data" / "instructions.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["question"] and row["answer"]]
    asked = [[{"role": "user", "content": row["question"]}] for row in rows]
    chat, h = load_chat(load("quickstart").base), hashlib.sha256()
    chat.check()
    for e in chat.examples(asked, [row["answer"] for row in rows]):
        h.update(json.dumps([e.ids, e.mask, e.prompt]).encode())
    assert (len(rows), h.hexdigest()[:16]) == (2972, "d84665b39126c621")
    assert (chat.source, chat.added) == ("markers", ())


def test_base_loads_and_the_template_marks_the_answer() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    template = (HERE / "chat_template.jinja").read_text()
    tokenizer: Any = AutoTokenizer.from_pretrained(HERE / "base")
    model = AutoModelForCausalLM.from_pretrained(HERE / "base")
    assert sum(p.numel() for p in model.parameters()) < 2_000_000
    assert tokenizer.chat_template is None and tokenizer.bos_token is None
    assert len({tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id}) == 3
    turns = [{"role": "user", "content": "부산 고객은?"}, {"role": "assistant", "content": "SELECT 1;"}]
    encoded = tokenizer.apply_chat_template(
        turns,
        chat_template=template,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    trained = [i for i, m in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if m]
    assert tokenizer.decode(trained) == "SELECT 1;<|end|>"
    prompt = tokenizer.apply_chat_template(
        turns[:1], chat_template=template, tokenize=False, add_generation_prompt=True
    )
    assert prompt == "<|user|>부산 고객은?<|end|><|assistant|>"
    assert tokenizer.decode(encoded["input_ids"]).startswith(prompt)
