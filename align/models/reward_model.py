"""Reward models: what they are, loading a trained one, and scoring conversations with it.

head:        a linear map of the last hidden state at the end-of-turn token (Ouyang et al., 2022). It starts at random
             and needs thousands of pairs.
likelihood:  SCALE times the mean log-probability of the response under the adapter itself, the reward that is implicit
             in a language model (Meng et al., 2024, SimPO). It starts from what SFT knows, so hundreds of pairs do.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from align.errors import StageError
from align.models.base import REWARD, BaseConfig, check_adapter, compute_dtype, load_model, merge
from align.models.chat import Chat, Example, pad
from align.models.files import adapter_weights, read_json
from align.models.finite import check_scores
from align.models.memory_inference import SCORED, Batch, batches, forward, rows_that_fit
from align.models.quantise import dequantise
from align.progress import Progress

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Kind = Literal["head", "likelihood"]

HEAD = "score"
SCALE = 3.0  # rewards of a likelihood model differ by about 1 where log-probabilities per token differ by a third


def reward_base(base: BaseConfig, kind: Kind) -> "PreTrainedModel":
    """The (quantised) base that a reward model of this kind is trained on."""
    model = load_model(base, head="reward" if kind == "head" else "lm")
    model.config.num_labels = 1
    if kind == "likelihood":
        from trl.trainer.utils import add_fused_lm_head

        add_fused_lm_head(model)
    return model


def rewards(
    model: "PreTrainedModel", kind: Kind, ids: "torch.Tensor", mask: "torch.Tensor", response: "torch.Tensor"
) -> "torch.Tensor":
    """One reward per row [B] of right-padded ids [B, T]; `response` [B, T] is 1 on the response and its end of turn."""
    if kind == "head":
        return model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, 0]
    labels = ids.masked_fill(response == 0, -100)
    output = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False, fused_lm_head=True)
    return SCALE * output.log_probs.sum(1) / response.sum(1)


def save_kind(kind: Kind, out: Path) -> None:
    """Write down what kind of reward model the artifact `out` holds."""
    (out / "adapter" / REWARD).write_text(json.dumps({"kind": kind, "scale": SCALE}) + "\n")


def load_reward(base: BaseConfig, reward: Path) -> tuple["PreTrainedModel", Kind]:
    """The reward model of a reward artifact, for inference. Raises StageError if base or score head do not match."""
    check_adapter(base, reward)
    file = reward / "adapter" / REWARD
    if not file.is_file():
        raise StageError(f"{reward.name} is an adapter, but not a reward model (adapter/{REWARD} is missing).")
    kind: Kind = read_json(file, StageError).get("kind", "")
    if kind not in get_args(Kind):
        raise StageError(f"{file} names no kind of reward model; run the stage reward again.")
    head = _saved_head(reward) if kind == "head" else None
    model = reward_base(base, kind)
    if base.quantization == "nf4":
        dequantise(model, compute_dtype(base))
    model = merge(model, reward)
    if (
        head is not None
        and not (getattr(model, HEAD).weight.cpu().float() == head.to(compute_dtype(base)).float()).all()
    ):
        raise StageError(f"The score head of the reward model {reward.name} was not loaded.")
    return model, kind


def _saved_head(reward: Path) -> "torch.Tensor":
    """The score head's weight as it lies in the artifact. StageError if it is not there, or PEFT would not load it."""
    weights = adapter_weights(reward)
    saved = [name for name in weights if f".{HEAD}." in name]
    if len(saved) != 1:
        raise StageError(f"The reward model {reward.name} was saved without its score head, so it cannot score.")
    declared = read_json(reward / "adapter" / "adapter_config.json", StageError).get("modules_to_save") or []
    if HEAD not in declared:
        raise StageError(f"The reward model {reward.name} does not declare its score head, so PEFT would not load it.")
    return weights[saved[0]]


def score(
    model: "PreTrainedModel",
    kind: Kind,
    chat: Chat,
    examples: Sequence[Example],
    *,
    batch_size: Batch = "auto",
    label: str = "scoring",
) -> list[float]:
    """The reward of each conversation. It must end with the end-of-turn token, where a head reads it.

    Conversations are batched by length, with auto as many as fit; padding on the right is never scored. Raises
    StageError where a score is not finite.
    """
    import torch

    if any(not e.ids or e.ids[-1] != chat.end_id for e in examples):
        raise StageError("A conversation to score does not end with the end-of-turn token, where the reward is read.")
    model.config.get_text_config().pad_token_id = chat.pad_id
    scores = [0.0] * len(examples)
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].ids))
    half = torch.autocast(model.device.type, torch.bfloat16, enabled=model.dtype == torch.bfloat16)
    with torch.inference_mode(), half, Progress(len(order), label) as progress:
        for batch in batches(order, _rows(model, examples, batch_size)):
            inputs = pad([examples[i] for i in batch], chat.pad_id)
            found = rewards(model, kind, *(x.to(model.device) for x in inputs))
            for i, value in zip(batch, found.float().tolist(), strict=True):
                scores[i] = value
            progress.advance(len(batch))
    check_scores(scores, label)
    return scores


def _rows(model: "PreTrainedModel", examples: Sequence[Example], batch_size: Batch) -> Callable[[int], int]:
    """How many conversations are scored together, of which the longest is the i-th."""
    fit = rows_that_fit(batch_size, SCORED)
    if fit is None:
        size = SCORED if batch_size == "auto" else batch_size
        return lambda i: size
    shape, itemsize = model.config.get_text_config(), model.dtype.itemsize
    return lambda i: fit(forward(shape, len(examples[i].ids), itemsize))
