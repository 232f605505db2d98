"""A policy as a plain model directory: what loads it needs nothing of this package."""

from pathlib import Path
from typing import Any

from align.models.chat import Chat


def stop_ids(settings: Any, chat: Chat) -> list[int]:
    """The tokens at which a response ends: the end of a turn, the tokenizer's EOS, and what the model's own generation
    settings name."""
    named = settings.eos_token_id
    listed = named if isinstance(named, list) else [named]
    return sorted({chat.end_id, chat.tokenizer.eos_token_id, *listed} - {None})


def write(model: Any, chat: Chat, to: Path) -> None:
    """Write a merged policy, its tokenizer with the template of training, and generation settings that end where it
    does."""
    model.generation_config.eos_token_id = stop_ids(model.generation_config, chat)
    model.generation_config.pad_token_id = chat.pad_id
    model.config.eos_token_id = chat.end_id
    model.config.pad_token_id = chat.pad_id
    model.save_pretrained(to)
    chat.tokenizer.save_pretrained(to)
