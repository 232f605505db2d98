"""What is drawn is not yet the response: reasoning blocks and headers are read off it, and kept apart."""

from pathlib import Path

import pytest
import tiny
from families import ASK, chat_of

from align import tables
from align.errors import StageError
from align.grading.suites import Asked
from align.models.base import BaseConfig, load_chat
from tasks.answer import AnswerConfig, answer
from tasks.sample import SampleConfig, sample
from tasks.sft import SftConfig, sft

THINKS = tiny.CHATML.replace(  # two channels, as gpt-oss has them
    "{% generation %}",
    "{% generation %}{% if m['thinking'] %}<|user|>plan<|system|>{{ m['thinking'] }}{% endif %}<|user|>final<|system|>",
)


@pytest.mark.parametrize(
    ("name", "drawn", "response", "reasoning"),
    [
        ("gpt-oss", "<|channel|>final<|message|>SELECT 1;", "SELECT 1;", None),
        (
            "gpt-oss",
            "<|channel|>analysis<|message|>A sum.<|end|><|start|>assistant<|channel|>final<|message|>SELECT 1;",
            "SELECT 1;",
            "A sum.",
        ),
        ("gpt-oss", "<|channel|>analysis<|message|>A sum, or", "", "A sum, or"),
        ("gpt-oss", "SELECT 1;", "SELECT 1;", None),
        ("Qwen3", "<think>\n\n</think>\n\nSELECT 1;", "SELECT 1;", None),
        ("Qwen3", "<think>\nA sum.\nYes.\n</think>\n\nSELECT 1;", "SELECT 1;", "A sum.\nYes."),
        ("Qwen3", "<think>\nA sum, or", "", "A sum, or"),
        ("Qwen3", "SELECT 1;", "SELECT 1;", None),
        ("GLM-4.5", "\n<think></think>\nSELECT 1;", "SELECT 1;", None),
        ("GLM-4.5", "\n<think>A sum.</think>\nSELECT 1;", "SELECT 1;", "A sum."),
        ("DeepSeek-R1-Distill", "A sum.\n</think>\n\nSELECT 1;", "SELECT 1;", "A sum."),
        ("DeepSeek-R1-Distill", "A sum, or", "", "A sum, or"),
        ("Mistral 7B v0.2", " SELECT 1;", "SELECT 1;", None),
        ("Qwen2.5", "SELECT '<think>';", "SELECT '<think>';", None),
    ],
)
def test_the_response_and_the_reasoning(name: str, drawn: str, response: str, reasoning: str | None) -> None:
    chat = chat_of(name)
    ids = chat.tokenizer(drawn, add_special_tokens=False)["input_ids"]
    assert chat.read([ids]) == [(response, reasoning)]


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> tuple[BaseConfig, Path]:
    """A base whose template has a channel for reasoning, and the artifact of SFT on it."""
    folder = tmp_path_factory.mktemp("thinking")
    base = tiny.tiny_base(folder / "base", template=THINKS, quantization="none")
    (folder / "sft").mkdir()
    settings = SftConfig(learning_rate=5e-3, num_train_epochs=10, per_device_train_batch_size=8, max_length=128)
    sft(settings, folder / "sft", base=base, rows=tiny.kept(folder / "kept.parquet", 64))
    return base, folder / "sft"


def test_a_policy_that_learned_the_channel_is_not_graded_on_it(
    thinking: tuple[BaseConfig, Path], tmp_path: Path
) -> None:
    base, trained = thinking
    rows = [tiny.row(i, use="prompts", split="preference", response=None) for i in range(6)]
    rows += [tiny.row(i, use="evaluation", split="evaluation", response=None) for i in range(6, 12)]
    tables.write(tmp_path / "rows.parquet", rows, tables.ROWS)
    settings = SampleConfig(split="preference", n=2, temperature=0.2, max_new_tokens=48)
    metrics = sample(settings, tmp_path, base=base, rows=tmp_path / "rows.parquet", adapter=trained)
    drawn = tables.read(tmp_path / "samples.parquet")
    assert len(drawn) == metrics["samples"] == 12
    written = [s["text"] for s in drawn if s["finish_reason"] == "stop"]
    assert written and all("final" not in text for text in written)
    assert sum(text.startswith("It is ") for text in written) > len(written) / 2
    asked = AnswerConfig(suites={"sums": Asked()}, n=0, max_new_tokens=48)
    answer(asked, tmp_path, base=base, rows=tmp_path / "rows.parquet", adapter=trained)
    answers = tables.read(tmp_path / "answers.parquet")
    assert len(answers) == 6 and all("final" not in a["response"] for a in answers if a["finish_reason"] == "stop")
    assert {"reasoning"} <= answers[0].keys() & drawn[0].keys()


def test_a_header_that_cannot_be_read_off_fails_the_check(base: BaseConfig, tmp_path: Path) -> None:
    """The words begin like what the template may write before them: only sometimes, so it cannot be told apart."""
    odd = (
        "{% set lead = 'Sure. ' if messages[-1]['content'] | length > 5 and not 'reasoning' in messages[-1] else '' %}"
    )
    file = tmp_path / "template.jinja"
    file.write_text(odd + tiny.CHATML.replace("{% generation %}", "{% generation %}{{ lead }}<|user|>"))
    chat = load_chat(base.model_copy(update={"chat_template": file}))
    with pytest.raises(StageError, match="would not be read back"):
        chat.check()


def test_reasoning_in_the_data_is_no_content() -> None:
    chat = chat_of("Qwen3")
    (example,) = chat.examples([ASK], ["<think>\nA sum.\n</think>\n\nSELECT 1;"])
    assert chat.read([example.ids[example.prompt : -1]]) == [("SELECT 1;", "A sum.")]
