"""The chat templates of known families with stand-in tokenizers, and docs/templates.md, which says what of each is
trained on: `python tests/families.py` writes it, a test compares it.

The templates are those that trl ships. Five it does not have lie in chat_templates/; they are written after the format
that the model's card documents.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import tiny
import tooled

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "templates.md"
ASK = [{"role": "user", "content": "Hi"}]


@dataclass(frozen=True)
class Family:
    """A chat template and what its tokenizer knows."""

    models: str
    template: str
    """Name of the file, without its ending."""
    tokens: str
    """Control tokens, separated by spaces."""
    eos: str
    bos: str | None = None
    adds_bos: bool = False
    """Whether the tokenizer begins every text with BOS."""
    pad: str | None = None
    words: str = ""
    """Added tokens that are no control tokens, such as <think>."""

    @property
    def own(self) -> Path:
        return HERE / "chat_templates" / f"{self.template}.jinja"


CHATML = "<|im_start|> <|im_end|> <|endoftext|>"
LLAMA = "<|begin_of_text|> <|start_header_id|> <|end_header_id|> <|eot_id|> <|finetune_right_pad_id|>"
GEMMA = "<bos> <eos> <pad> <start_of_turn> <end_of_turn>"
PHI = "<s> <|endoftext|> <|user|> <|assistant|> <|system|> <|end|> <|placeholder1|>"
DEEPSEEK = "<｜begin▁of▁sentence｜> <｜end▁of▁sentence｜> <｜User｜> <｜Assistant｜> <｜▁pad▁｜>"
FAMILIES = (
    Family("Qwen2.5", "qwen2_5", CHATML, "<|im_end|>"),
    Family("Qwen3", "qwen3", CHATML, "<|im_end|>", words="<think> </think>"),
    Family("Qwen3-2507", "qwen3_instruct_2507", CHATML, "<|im_end|>"),
    Family("Llama 3", "llama3", LLAMA, "<|eot_id|>", "<|begin_of_text|>", adds_bos=True),
    Family("Llama 3.1", "llama3_1", LLAMA, "<|eot_id|>", "<|begin_of_text|>", adds_bos=True),
    Family("Llama 3.2", "llama3_2", LLAMA, "<|eot_id|>", "<|begin_of_text|>", adds_bos=True),
    Family("Gemma 2", "gemma", GEMMA, "<eos>", "<bos>", adds_bos=True),
    Family("Gemma 3", "gemma3", GEMMA, "<eos>", "<bos>", adds_bos=True),
    Family("Mistral 7B v0.2", "mistral", "<unk> <s> </s>", "</s>", "<s>", adds_bos=True),
    Family("Phi-3", "phi3", PHI, "<|endoftext|>", "<s>"),
    Family("Phi-3.5", "phi3_5", PHI, "<|endoftext|>", "<s>"),
    Family("Phi-4", "phi4", "<|endoftext|> <|im_start|> <|im_sep|> <|im_end|> <|dummy_0|>", "<|im_end|>"),
    Family(
        "GLM-4.5", "glm4moe", "<|endoftext|> [MASK] [gMASK] <sop> <eop> <|system|> <|user|> <|assistant|> <|observation|>",
        "<|endoftext|>", pad="<|endoftext|>", words="<think> </think>",
    ),
    Family("DeepSeek-V3", "deepseekv3", DEEPSEEK, "<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>", adds_bos=True),
    Family(
        "DeepSeek-R1-Distill", "deepseek_r1_distill", DEEPSEEK, "<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>",
        adds_bos=True, words="<think> </think>",
    ),
    Family(
        "gpt-oss", "gptoss", "<|startoftext|> <|endoftext|> <|return|> <|start|> <|end|> <|message|> <|channel|> <|call|>",
        "<|return|>", "<|startoftext|>",
    ),
    Family("Nemotron 3 Nano", "nemotron_3_nano", "<unk> " + CHATML, "<|im_end|>", words="<think> </think>"),
    Family("SmolLM2", "smollm2", CHATML, "<|im_end|>"),
    Family("Zephyr", "zephyr", "<unk> <s> </s>", "</s>", "<s>", adds_bos=True),
    Family("EXAONE 3", "exaone", "[PAD] [BOS] [EOS] [|system|] [|user|] [|assistant|] [|endofturn|]", "[|endofturn|]"),
)  # fmt: skip
BY_NAME = {family.models: family for family in FAMILIES}


def template_of(family: Family) -> str:
    """The text of the family's template."""
    import trl.chat_template_utils

    shipped = Path(trl.chat_template_utils.__file__).parent / "chat_templates" / f"{family.template}.jinja"
    if not family.own.is_file():
        return shipped.read_text(encoding="utf-8")
    return family.own.read_text(encoding="utf-8").removesuffix("\n")


def tokenizer_of(family: Family, template: str | None = None) -> Any:
    """A small byte-level BPE with the family's tokens and its template, or another."""
    tokenizer = _tokenizer(family.tokens, family.words, family.eos, family.bos, family.adds_bos)
    tokenizer.pad_token = family.pad
    tokenizer.chat_template = template or template_of(family)
    return tokenizer


def _tokenizer(control: str, words: str, eos: str, bos: str | None, adds_bos: bool) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384, special_tokens=control.split(), initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(tiny.TEXT, trainer)
    tokenizer.add_tokens([AddedToken(word, special=False, normalized=False) for word in words.split()])
    if adds_bos:
        ids = [(str(bos), tokenizer.token_to_id(str(bos)))]
        tokenizer.post_processor = processors.TemplateProcessing(f"{bos} $A", f"{bos} $A {bos} $B", ids)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos, bos_token=bos)


@cache
def chat_of(name: str) -> Any:
    """The family's Chat."""
    from align.models.chat import Chat

    return Chat(tokenizer_of(BY_NAME[name]), name=f"The chat template of {name}")


def marked(chat: Any, example: Any) -> str:
    """A row as text, what is trained on in ⟦ ⟧, from the generation prompt's turn on."""
    said = [i for i, m in enumerate(example.mask) if m]
    before, after = example.ids[: said[0]], example.ids[said[0] : said[-1] + 1]
    return f"{chat.tokenizer.decode(before)}⟦{chat.tokenizer.decode(after)}⟧"


def tools_of(chat: Any) -> str:
    """What of tools a template writes."""
    called = tooled.read(**tooled.SPELLINGS["OpenAI"]).messages
    plain = [{k: v for k, v in m.items() if k != "tools"} for m in called]
    return next((says for says, m in (("yes", called), ("calls", plain)) if chat.lost(m, "") is None), "")


def table() -> str:
    """docs/templates.md."""
    lines = [
        "# Chat templates", "",
        "Made by `python tests/families.py` and checked by tests/test_families.py, on stand-in tokenizers with the",
        "families' tokens. What is between ⟦ and ⟧ is trained on, as the answer `Hello.` to `Hi`; ↵ is a line break.", "",
        "The assistant's words are known from the template's own `{% generation %}` markers, else from trl's training",
        "template for exactly this text (`trl`), else by rendering the conversation a second time with other words",
        "(`rendering`), and so in every conversation that calls tools, whose calls markers may leave out. A template that",
        "leaves out the BOS which its tokenizer adds to every text gets it, and one that does not end the last turn gets",
        "EOS (`added`); the template that is saved beside an adapter has them.",
        "A reasoning block is read off what a policy draws, into the column `reasoning`; it is neither graded nor trained",
        "on. Where the generation prompt opens one, responses are trained on after an empty block.",
        "A system message that stands alone (an evaluation item may be one) is rendered as it is where the template takes",
        "it, else as the user's turn (`lone system`).",
        "`tools`: whether the template writes the functions that may be called, calls and their results (yes), or without",
        "the functions (calls). Rows that hold what it does not write are set aside.", "",
        "| models | template | from | added | lone system | tools | the end of a row | reasoning |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for family in FAMILIES:
        chat = chat_of(family.models)
        (example,) = chat.examples([ASK], ["Hello."])
        row = marked(chat, example)
        row = ("…" + row[-113:] if len(row) > 113 else row).replace("\n", "↵").replace("|", "\\|")
        file = f"tests/chat_templates/{family.own.name}" if family.own.is_file() else f"trl's {family.own.name}"
        block = chat.reading.closing.strip().replace("|", "\\|")
        reasoning = f"ends with `{block}`" if block else ""
        known = (family.models, file, chat.source, ", ".join(chat.added), chat.lone_system, tools_of(chat))
        lines.append(f"| {' | '.join(known)} | `{row}` | {reasoning} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(table(), encoding="utf-8")
