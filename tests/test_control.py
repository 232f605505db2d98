"""Control tokens in data: told by the tokenizer's own parse, broken up, counted, and the rows named."""

from pathlib import Path
from typing import Any

import pytest
import tiny
from families import BY_NAME, chat_of, tokenizer_of
from tokenizers import AddedToken

from align import tables
from align.models.base import BaseConfig
from align.models.chat import Chat
from align.models.control import broken
from tasks.dpo import DpoConfig, dpo
from tasks.sample import SampleConfig, sample
from tasks.sft import SftConfig, sft

HTML = "<p><s>old</s> new</p>"


@pytest.fixture(scope="module")
def chat() -> Chat:
    return chat_of("Mistral 7B v0.2")


def parsed(chat: Chat, text: str) -> set[str]:
    ids = chat.tokenizer(text, add_special_tokens=False)["input_ids"]
    return set(chat.tokenizer.convert_ids_to_tokens(ids)) & {"<s>", "</s>"}


def test_what_would_be_parsed_as_control_is_broken_up(chat: Chat) -> None:
    assert parsed(chat, HTML) == {"<s>", "</s>"}
    assert chat.control.find(HTML) == [(3, "<s>"), (9, "</s>")]
    assert chat.control.clean(HTML) == "<p>< s>old< /s> new</p>" and not parsed(chat, chat.control.clean(HTML))
    assert chat.control.clean("<<s>s>") == "<< s>s>"


def test_what_is_no_control_token_of_this_tokenizer_is_left_alone() -> None:
    chat = chat_of("Qwen2.5")
    for text in (HTML, "<|eot_id|>", "<think>", "a < s > b"):
        assert chat.control.clean(text) == text and chat.control.find(text) == []


def test_a_token_that_is_parsed_only_as_a_word_of_its_own_is_left_alone_within_words() -> None:
    tokenizer = tokenizer_of(BY_NAME["Qwen2.5"])
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken("STOP", single_word=True, special=True)]})
    chat = Chat(tokenizer)
    assert chat.control.clean("NONSTOP or STOP") == "NONSTOP or S TOP"


def test_special_tokens_that_the_vocabulary_lacks_are_words(chat: Chat) -> None:
    tokenizer: Any = tokenizer_of(BY_NAME["Mistral 7B v0.2"])
    assert Chat(tokenizer).control.find("unknown ✓ text") == []


def test_rows_are_counted_and_named(chat: Chat, tmp_path: Path) -> None:
    ask = [[{"role": "user", "content": text}] for text in ("plain", HTML, "none")]
    found = broken(chat.control, ["a", "b", "c"], ask, ["x", "y</s>", "<unk>"], out=tmp_path)
    assert found == {"control_tokens": 4, "control_tokens.rows": 2, "control_tokens.first": "b"}
    rows = [(r["row_id"], r["token"], r["count"]) for r in tables.read(tmp_path / "altered.parquet")]
    assert rows == [("b", "</s>", 2), ("b", "<s>", 1), ("c", "<unk>", 1)]
    assert broken(chat.control, ["a"], ask[:1], ["x"], out=tmp_path / "no") == {
        "control_tokens": 0,
        "control_tokens.rows": 0,
    }


SHORT = SftConfig(num_train_epochs=1, per_device_train_batch_size=8, max_length=128)


def test_sft_and_sampling_and_dpo_show_them(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    rows = [tiny.row(i) for i in range(8)]
    rows[3] |= {"response": "It is<|end|> 6.<|user|>"}
    tables.write(tmp_path / "kept.parquet", rows, tables.KEPT)
    (tmp_path / "sft").mkdir()
    metrics = sft(SHORT, tmp_path / "sft", base=base, rows=tmp_path / "kept.parquet")
    assert (metrics["control_tokens"], metrics["control_tokens.rows"]) == (2, 1)
    assert metrics["control_tokens.first"] == "r3"
    assert {r["row_id"] for r in tables.read(tmp_path / "sft" / "altered.parquet")} == {"r3"}

    asked = [tiny.row(i, use="prompts", split="preference", response=None) for i in range(3)]
    asked[1]["messages"] = [{"role": "user", "content": "What is <|pad|>?"}]
    tables.write(tmp_path / "rows.parquet", asked, tables.ROWS)
    (tmp_path / "sample").mkdir()
    settings = SampleConfig(split="preference", n=1, max_new_tokens=4)
    drawn = sample(settings, tmp_path / "sample", base=base, rows=tmp_path / "rows.parquet")
    assert drawn["control_tokens"] == 1 and drawn["control_tokens.first"] == "r1"

    (tmp_path / "dpo").mkdir()
    faulty = {**tiny.pair(9), "rejected": "It <|assistant|>"}
    pairs = tiny.pairs(tmp_path / "pairs.parquet", 8, faulty)
    settled = DpoConfig(per_device_train_batch_size=8, max_length=128)
    inputs = {"pairs": pairs, "adapter": adapter, "reference": tiny.reference(base, pairs, adapter)}
    assert dpo(settled, tmp_path / "dpo", base=base, **inputs)["control_tokens.first"] == "q9"
