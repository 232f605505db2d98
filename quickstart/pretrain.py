"""The tokenizer and the base model: a Llama of under two million parameters, pretrained on the corpus."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quickstart.corpus import documents

PAD, END = "<|pad|>", "<|end|>"
SPECIAL = [PAD, END, "<|system|>", "<|user|>", "<|assistant|>"]
VOCABULARY = 1024
BLOCK = 192


def train_tokenizer(held_out: set[str], seed: int) -> Any:
    """A byte-level BPE over a sample of the corpus. It adds no token to a text by itself and has no chat template."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    # Words end at white space and at numbers only, so that `o.customer_id` and `COUNT(*)` can each be one token.
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?\d+| ?[^\s\d]+|\s+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(documents(20_000, held_out, seed + 1), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=SPECIAL[2:],
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def blocks(tokenizer: Any, held_out: set[str], seed: int) -> Any:
    """An endless stream of packed blocks of BLOCK tokens: documents, each closed by the end token."""
    import torch

    end, buffer = tokenizer.eos_token_id, []
    stream = documents(10**9, held_out, seed)
    for batch in iter(lambda: list(itertools.islice(stream, 512)), []):
        for ids in tokenizer(batch)["input_ids"]:
            buffer += [*ids, end]
        while len(buffer) >= BLOCK:
            yield torch.tensor(buffer[:BLOCK])
            buffer = buffer[BLOCK:]


def pretrain(
    tokenizer: Any,
    held_out: set[str],
    out: Path,
    *,
    steps: int,
    batch: int = 10,
    lr: float = 3e-3,
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> float:
    """Train the base for `steps` steps of batch * BLOCK tokens; saves it and its tokenizer; returns the loss."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    # One thread adds in one order, so that a seed gives one model; on a model this small a second one gains little.
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.05)
    warmup = max(1, steps // 25)

    def rate(step: int) -> float:
        """Linear warm-up, then a cosine down to 2 % of `lr`."""
        decay = 0.5 * (1 + math.cos(math.pi * max(0, step - warmup) / (steps - warmup)))
        return min((step + 1) / warmup, 0.02 + 0.98 * decay)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    stream, average = blocks(tokenizer, held_out, seed), 0.0
    for step in range(1, steps + 1):
        ids = torch.stack([next(stream) for _ in range(batch)])
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        average = loss.item() if step == 1 else 0.95 * average + 0.05 * loss.item()
        if step % 100 == 0:
            say(f"step {step}/{steps}  loss {average:.3f}")
    model.bfloat16().save_pretrained(out)
    tokenizer.save_pretrained(out)
    return average
