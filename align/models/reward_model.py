"""Reward models: what they are, loading a trained one, and scoring conversations with it.

head:        a linear map of the last hidden state at the end-of-turn token (Ouyang et al., 2022). It starts at random
             and needs thousands of pairs.
likelihood:  SCALE times the mean log-probability of the response under the adapter itself, the reward that is implicit
             in a language model (Meng et al., 2024, SimPO). It starts from what SFT knows, so hundreds of pairs do.
encoder:     a classifier of BERT's kind with one output, at the first token of the conversation (models.encoder).
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from align.errors import InputError, StageError
from align.models.base import WHOLE, BaseConfig, compute_dtype, directory, load_chat, load_model, load_tokenizer
from align.models.encoder import EncoderReader, heads_of, is_encoder
from align.models.example import Example, pad
from align.models.files import read_json
from align.models.finite import check_scores
from align.models.memory_inference import SCORED, Batch, batches, forward, rows_that_fit
from align.models.quantise import dequantise
from align.models.reader import Reader
from align.models.shards import gather, is_split, share
from align.models.tools import Message
from align.models.trained import REWARD, check_trained, folder, is_reward_model, merge, weights
from align.progress import Progress

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Kind = Literal["head", "likelihood", "encoder"]

SCALE = 3.0  # rewards of a likelihood model differ by about 1 where log-probabilities per token differ by a third


def load_reader(base: BaseConfig) -> Reader:
    """What makes tokens of conversations for a reward model on `base`. Raises InputError as load_chat does."""
    facts = read_json(directory(base) / "config.json", InputError)
    if not is_encoder(facts):
        return load_chat(base)
    return EncoderReader(load_tokenizer(base)[0], facts, base.name)


def heads(model: Any, kind: Kind) -> tuple[str, ...]:
    """The parts of a reward model that are trained and saved whole."""
    return () if kind == "likelihood" else heads_of(model)


def reward_base(base: BaseConfig, kind: Kind, trained: Path | None = None, split: bool = False) -> "PreTrainedModel":
    """The (quantised) base that a reward model of this kind is trained on; `trained` and `split` as in load_model."""
    model = load_model(base, head="lm" if kind == "likelihood" else "reward", trained=trained, split=split)
    model.config.num_labels = 1
    if kind == "likelihood":
        from trl.trainer.utils import add_fused_lm_head

        add_fused_lm_head(model)
    return model


def rewards(
    model: "PreTrainedModel", kind: Kind, ids: "torch.Tensor", mask: "torch.Tensor", response: "torch.Tensor"
) -> "torch.Tensor":
    """One reward per row [B] of right-padded ids [B, T]; `response` [B, T] is 1 on the response and its end of turn."""
    if kind == "encoder":
        return model(input_ids=ids, attention_mask=mask).logits[:, 0]
    if kind == "head":
        return model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, 0]
    labels = ids.masked_fill(response == 0, -100)
    output = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False, fused_lm_head=True)
    return SCALE * output.log_probs.sum(1) / response.sum(1)


def save_kind(kind: Kind, out: Path) -> None:
    """Write down what kind of reward model the artifact `out` holds."""
    (folder(out) / REWARD).write_text(json.dumps({"kind": kind, "scale": SCALE}) + "\n")


def load_reward(base: BaseConfig, reward: Path) -> tuple["PreTrainedModel", Kind]:
    """The reward model of a reward artifact, for inference. Raises StageError if base or score head do not match."""
    check_trained(base, reward)
    file = folder(reward) / REWARD
    if not is_reward_model(reward):
        raise StageError(f"{reward.name} is a policy, and not a reward model ({REWARD} is missing).")
    kind: Kind = read_json(file, StageError).get("kind", "")
    if kind not in get_args(Kind):
        raise StageError(f"{file} names no kind of reward model; run the stage reward again.")
    model = reward_base(base, kind, reward)
    saved = {name: value for head in heads(model, kind) for name, value in _saved_head(reward, head).items()}
    if base.quantization == "nf4":
        dequantise(model, compute_dtype(base))
    model = merge(model, reward)
    for name, value in saved.items():
        loaded = model.get_parameter(name.removeprefix("base_model.model."))
        if not (loaded.cpu().float() == value.to(compute_dtype(base)).float()).all():
            raise StageError(f"The score head of the reward model {reward.name} was not loaded.")
    return model, kind


UNREAD = "longer than the reward model reads, or with calls that its template does not show"
"""Why a response has no reward."""


class Scorer:
    """A reward artifact, ready to score responses."""

    def __init__(self, base: BaseConfig, reward: Path, batch_size: Batch = "auto"):
        """`base` is what it was trained on. Raises StageError as load_reward does."""
        self.reader, self.batch_size = load_reader(base), batch_size
        self.reader.check()
        self.model, self.kind = load_reward(base, reward)

    def __call__(
        self, conversations: Sequence[Sequence[Message]], responses: Sequence[str], label: str = "scoring samples"
    ) -> list[float | None]:
        """The reward of each response to the conversation at its position; None where it is UNREAD."""
        read = [i for i, messages in enumerate(conversations) if not self.reader.lost(messages, "")]
        examples = self.reader.examples([conversations[i] for i in read], [responses[i] for i in read])
        fits = [(i, e) for i, e in zip(read, examples, strict=True) if len(e.ids) <= self.reader.room]
        found = score(self.model, self.kind, self.reader, [e for _, e in fits], batch_size=self.batch_size, label=label)
        known = {i: value for (i, _), value in zip(fits, found, strict=True)}
        return [known.get(i) for i in range(len(conversations))]


def _saved_head(reward: Path, head: str) -> "dict[str, torch.Tensor]":
    """A head's weights as they lie in the artifact. StageError if there are none, or PEFT would not load them."""
    saved = {name: value for name, value in weights(reward).items() if f".{head}." in f".{name}"}
    if not saved:
        raise StageError(f"The reward model {reward.name} was saved without its score head, so it cannot score.")
    if folder(reward).name == WHOLE:
        return saved
    declared = read_json(reward / "adapter" / "adapter_config.json", StageError).get("modules_to_save") or []
    if head not in declared:
        raise StageError(f"The reward model {reward.name} does not declare its score head, so PEFT would not load it.")
    return saved


def score(
    model: "PreTrainedModel",
    kind: Kind,
    chat: Reader,
    examples: Sequence[Example],
    *,
    batch_size: Batch = "auto",
    label: str = "scoring",
) -> list[float]:
    """The reward of each conversation. It must end with the end-of-turn token, where a head reads it.

    Conversations are batched by length, with auto as many as fit; padding on the right is never scored. Several
    processes share them. Raises StageError where a score is not finite.
    """
    import torch

    if any(not e.ids or e.ids[-1] != chat.end_id for e in examples):
        raise StageError("A conversation to score does not end with the end-of-turn token, where the reward is read.")
    model.config.get_text_config().pad_token_id = chat.pad_id
    scores = [0.0] * len(examples)
    order = share(sorted(range(len(examples)), key=lambda i: len(examples[i].ids)), model)
    half = torch.autocast(model.device.type, torch.bfloat16, enabled=model.dtype == torch.bfloat16)
    with torch.no_grad(), half, Progress(len(order), label) as progress:
        for batch in batches(order, _rows(model, examples, batch_size)):
            inputs = pad([examples[i] for i in batch], chat.pad_id)
            found = rewards(model, kind, *(x.to(model.device) for x in inputs))
            for i, value in zip(batch, found.float().tolist(), strict=True):
                scores[i] = value
            progress.advance(len(batch))
    for theirs in gather({i: scores[i] for i in order}):
        for i, value in theirs.items():
            scores[i] = value
    check_scores(scores, label)
    return scores


def _rows(model: "PreTrainedModel", examples: Sequence[Example], batch_size: Batch) -> Callable[[int], int]:
    """How many conversations are scored together, of which the longest is the i-th."""
    fit = rows_that_fit(batch_size, SCORED, alike=is_split(model))
    if fit is None:
        size = SCORED if batch_size == "auto" else batch_size
        return lambda i: size
    shape, itemsize = model.config.get_text_config(), model.dtype.itemsize
    return lambda i: fit(forward(shape, len(examples[i].ids), itemsize))
