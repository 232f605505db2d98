"""A real but tiny encoder, made on the spot: a 2-layer BERT (or RoBERTa) with a word-level tokenizer."""

from pathlib import Path
from typing import Any

import tiny

from align.models.base import BaseConfig


def tiny_encoder(folder: Path, *, kind: str = "bert", quantization: str = "nf4", context: int = 64, seed: int = 0,
                 labels: int | None = None) -> BaseConfig:  # fmt: skip
    """Write the model to `folder`: pretrained for masked words, or with `labels` a classifier already."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import (
        AutoConfig,
        AutoModelForMaskedLM,
        AutoModelForSequenceClassification,
        PreTrainedTokenizerFast,
    )

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    alphabet = [chr(c) for c in range(33, 127)]
    trainer = trainers.BpeTrainer(vocab_size=384, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(tiny.TEXT, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=512,
    ).save_pretrained(folder)  # fmt: skip
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer.get_vocab()), "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": context, "pad_token_id": 0, "bos_token_id": 2,
        "eos_token_id": 3, "initializer_range": 0.1,
    }  # fmt: skip
    if labels:
        sizes["num_labels"] = labels
    config = AutoConfig.for_model(kind, **sizes)
    factory = AutoModelForSequenceClassification if labels else AutoModelForMaskedLM
    factory.from_config(config).save_pretrained(folder)
    return BaseConfig.model_validate({"path": folder, "quantization": quantization})
