"""A real but tiny base model, made on the spot: a 2-layer Llama and a byte-level BPE tokenizer with a chat template."""

import tempfile
from pathlib import Path
from typing import Any

from align import tables
from align.models.base import BaseConfig

CHATML = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<|assistant|>\n"
    "{% generation %}{{ m['content'] }}<|end|>{% endgeneration %}\n"
    "{% else %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)

TEXT = [
    "Which way is north? That way, up. How many moons does Mars have? Two: Phobos and Deimos.",
    "SELECT count(*) FROM orders WHERE city = 'Seoul' GROUP BY month ORDER BY 1 DESC LIMIT 5;",
    "The quick brown fox jumps over the lazy dog. Add two and three. The answer is five.",
    "서울의 주문은 몇 건입니까? 고객은 몇 명입니까? 답은 다섯입니다.",
]


def tiny_base(
    folder: Path,
    *,
    template: str = CHATML,
    quantization: str = "nf4",
    seed: int = 0,
    layers: int = 2,
    hidden: int = 64,
    context: int = 256,
    tie: bool = True,
    window: int | None = None,
) -> BaseConfig:
    """Write the model to `folder` and its template beside it; the same arguments give the same files.

    With `window` it is a Mistral, whose attention (and cache) slides over so many tokens.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=384, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXT, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>")
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    sliding: dict[str, Any] = {"sliding_window": window} if window else {}
    config = (MistralConfig if window else LlamaConfig)(
        **sliding,
        vocab_size=384,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        tie_word_embeddings=tie,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    file = folder / "template.jinja"
    file.write_text(template, encoding="utf-8")
    return BaseConfig(path=folder, chat_template=file, quantization=quantization)


def row(i: int, **changes: Any) -> dict[str, Any]:
    """A row of ROWS or KEPT: a sum and its answer."""
    return {
        "row_id": f"r{i}",
        "source": "sums",
        "use": "instructions",
        "split": "sft",
        "messages": [{"role": "user", "content": f"What is {i} plus {i}?"}],
        "prompt": f"What is {i} plus {i}?",
        "response": f"It is {2 * i}.",
        **changes,
    }


def kept(file: Path, n: int) -> Path:
    """A KEPT file of n rows."""
    tables.write(file, [row(i) for i in range(n)], tables.KEPT)
    return file


def pair(i: int, **changes: Any) -> dict[str, Any]:
    """A row of PAIRS: the sum is chosen, a query is rejected; every fifth pair is held out."""
    return {
        "pair_id": f"q{i}",
        "row_id": f"r{i}",
        "messages": row(i)["messages"],
        "chosen": f"It is {2 * i}.",
        "rejected": f"SELECT {i}" + " no" * (i % 3),
        "margin": 1.0,
        "labelled_by": "test",
        "held_out": i % 5 == 0,
        **changes,
    }


def pairs(file: Path, n: int, *more: dict[str, Any]) -> Path:
    """A PAIRS file of n pairs and some more."""
    tables.write(file, [*(pair(i) for i in range(n)), *more], tables.PAIRS)
    return file


def reference(base: BaseConfig, pairs: Path, adapter: Path, **settings: Any) -> Path:
    """The artifact of the stage reference, beside the pairs."""
    from tasks.reference import ReferenceConfig, reference

    folder = Path(tempfile.mkdtemp(prefix="reference-", dir=pairs.parent))
    config = ReferenceConfig(**{"max_length": 128} | settings)
    reference(config, folder, base=base, pairs=pairs, adapter=adapter)
    return folder


def measured(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics that tell of the data, without those of the process: equal in equal runs."""
    return {name: value for name, value in metrics.items() if not name.startswith("process.")}
