"""Loading a trained reward model and scoring conversations with it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.lib.chat import Chat
from tasks.lib.console import Progress
from tasks.lib.errors import StageError
from tasks.lib.models import BaseConfig, check_adapter, compute_dtype, dequantise, load_model, merge

HEAD = "score"


def load_reward(base: BaseConfig, reward: Path) -> Any:
    """The reward model of a reward artifact, for inference. Raises StageError if base or score head do not match."""
    import torch
    from safetensors import safe_open

    check_adapter(base, reward)
    with safe_open(str(reward / "adapter" / "adapter_model.safetensors"), framework="pt") as file:
        saved = [name for name in file.keys() if f".{HEAD}." in name]  # noqa: SIM118 (not a dict)
        if len(saved) != 1:
            raise StageError(f"The reward model {reward.name} was saved without its score head, so it cannot score.")
        head = file.get_tensor(saved[0])
    if HEAD not in (json.loads((reward / "adapter" / "adapter_config.json").read_text())["modules_to_save"] or []):
        raise StageError(f"The reward model {reward.name} does not declare its score head, so PEFT would not load it.")
    model = load_model(base, head="reward")
    if base.quantization == "nf4":
        dequantise(model, compute_dtype(base))
    model = merge(model, reward)
    if not torch.equal(getattr(model, HEAD).weight.cpu().float(), head.to(compute_dtype(base)).float()):
        raise StageError(f"The score head of the reward model {reward.name} was not loaded.")
    return model


def score(
    model: Any, chat: Chat, sequences: Sequence[list[int]], *, batch_size: int = 64, label: str = "scoring"
) -> list[float]:
    """The reward of each token sequence, read at its last token, which must be the end-of-turn token.

    Sequences are batched by length; padding on the right is never scored.
    """
    import torch

    if any(not s or s[-1] != chat.end_id for s in sequences):
        raise StageError("A sequence to score does not end with the end-of-turn token, where the reward is read.")
    model.config.get_text_config().pad_token_id = chat.pad_id
    scores = [0.0] * len(sequences)
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    with torch.inference_mode(), Progress(len(order), label) as progress:
        for at in range(0, len(order), batch_size):
            batch = order[at : at + batch_size]
            ids, mask = pad([sequences[i] for i in batch], chat.pad_id)
            logits = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False).logits
            for i, value in zip(batch, logits[:, 0].float().tolist(), strict=True):
                scores[i] = value
            progress.advance(len(batch))
    return scores


def pad(sequences: Sequence[list[int]], pad_id: int) -> tuple[Any, Any]:
    """Right-padded token ids and attention mask, [B, T] each."""
    import torch

    width = max(len(s) for s in sequences)
    ids = torch.full((len(sequences), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(sequences), width), dtype=torch.long)
    for row, s in enumerate(sequences):
        ids[row, : len(s)] = torch.tensor(s)
        mask[row, : len(s)] = 1
    return ids, mask
