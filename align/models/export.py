"""A trained policy as a plain model directory: what was evaluated, loadable by transformers and vLLM alone."""

import shutil
import uuid
from pathlib import Path
from typing import Any

from align.errors import InputError
from align.models.base import BaseConfig, load_chat
from align.models.chat import Chat
from align.models.trained import policy


def export(base: BaseConfig, adapter: Path, to: Path) -> Path:
    """Write the merged model, tokenizer, chat template and generation settings to the new directory `to`.

    The weights are those of the evaluated policy: the (dequantised) base with the adapter merged into it. Raises
    InputError where `to` is there already.
    """
    if to.exists():
        raise InputError(f"{to} exists; give --to a directory that does not.")
    chat = load_chat(base)
    model = policy(base, adapter)
    to.parent.mkdir(parents=True, exist_ok=True)
    draft = to.with_name(f".{to.name}.{uuid.uuid4().hex[:8]}")
    try:
        write(model, chat, draft)
        draft.rename(to)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return to


def write(model: Any, chat: Chat, to: Path) -> None:
    """Write a merged policy, its tokenizer with the chat template, and generation settings that end where it does."""
    model.generation_config.eos_token_id = chat.end_id
    model.generation_config.pad_token_id = chat.pad_id
    model.config.eos_token_id = chat.end_id
    model.config.pad_token_id = chat.pad_id
    model.save_pretrained(to)
    chat.tokenizer.save_pretrained(to)
