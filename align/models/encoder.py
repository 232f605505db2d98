"""Encoders (BERT and its kin) as what a reward model is trained on: which models are ones, and conversations as their
tokens.

An encoder reads a whole text at once and scores it at its first token, [CLS] (Devlin et al., 2019). It has no chat
template as a rule, writes nothing, and reads no more tokens than it has positions for.
"""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from align.data.tool_turns import as_json
from align.errors import InputError, StageError
from align.models.control import Control
from align.models.example import Example, common_prefix
from align.models.files import read_json
from align.models.lone import asked_as, lone_system
from align.models.tools import Form, Message, form_of, given, has_calls, lost

ENCODERS = frozenset({
    "albert", "bert", "big_bird", "camembert", "convbert", "deberta", "deberta-v2", "distilbert", "electra", "ernie",
    "ibert", "longformer", "megatron-bert", "mobilebert", "modernbert", "mpnet", "nystromformer", "rembert", "roberta",
    "roberta-prelayernorm", "squeezebert", "xlm-roberta", "xlm-roberta-xl", "xmod", "yoso",
})  # fmt: skip
"""The kinds of model (`model_type` in config.json) that are encoders, unless their config says otherwise."""
_POSITIONS_AFTER_PADDING = {"camembert", "ibert", "longformer", "mpnet", "xmod"}  # and every RoBERTa


def is_encoder(facts: dict[str, Any]) -> bool:
    """Whether `facts`, a config.json, is about an encoder and not about a model that writes."""
    writes = any(str(a).endswith(("CausalLM", "LMHeadModel")) for a in facts.get("architectures") or ())
    return facts.get("model_type") in ENCODERS and not facts.get("is_decoder") and not writes


def heads_of(model: Any) -> tuple[str, ...]:
    """The parts of a sequence classifier that are trained whole: what stands behind its base, and a base's pooler.

    Paths, since transformers takes names of parts that it shall not quantise only so.
    """
    base = getattr(model, model.base_model_prefix)
    behind = [n for n, m in model.named_children() if m is not base and any(True for _ in m.parameters())]
    pooler = [f"{model.base_model_prefix}.pooler"] if getattr(base, "pooler", None) is not None else []
    return tuple(sorted([*behind, *pooler]))


def heads_to_be(folder: Path, name: str, *, scores: bool) -> tuple[str, ...]:
    """The heads of the model in `folder` as one that `scores` (with one output), or that writes and has none.

    They are known from config.json alone, before weights are loaded and quantised. Raises InputError for an encoder
    that is to write.
    """
    if not is_encoder(read_json(folder / "config.json", InputError)):
        return ("score",) if scores else ()
    if not scores:
        raise InputError(
            f"{name} is an encoder, which writes nothing and can only score; name it in reward.base, and in base a "
            "language model."
        )
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    with torch.device("meta"):
        return heads_of(
            AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(folder, num_labels=1))
        )


class EncoderReader:
    """Conversations as the tokens of an encoder, from its first token, [CLS], to its last, [SEP].

    The text is what the tokenizer's chat template makes of the conversation, or, where it has none, a line per turn
    that begins with the role. `facts` is config.json.
    """

    def __init__(self, tokenizer: Any, facts: dict[str, Any], name: str):
        self.tokenizer, self.name = tokenizer, name
        lacks = [t for t in ("cls_token", "sep_token", "pad_token") if getattr(tokenizer, f"{t}_id") is None]
        if lacks:
            raise InputError(f"The tokenizer of {name} has no {lacks[0]}, which an encoder needs; use another base.")
        self.end_id, self.pad_id = int(tokenizer.sep_token_id), int(tokenizer.pad_token_id)
        self.control = Control(tokenizer, tokenizer.sep_token)
        kind = str(facts["model_type"])
        shifted = "roberta" in kind or kind in _POSITIONS_AFTER_PADDING
        positions = int(facts.get("max_position_embeddings") or 1 << 30) - (self.pad_id + 1 if shifted else 0)
        self.room = min(positions, int(tokenizer.model_max_length))
        tokenizer.padding_side = "right"
        self.lone_system = lone_system(self.render)

    def facts(self) -> dict[str, str]:
        """What of the template is recorded beside an adapter."""
        template = hashlib.sha256((self.tokenizer.chat_template or "").encode()).hexdigest()
        return {"chat_template": template, "end_of_turn": str(self.tokenizer.sep_token)}

    def render(self, messages: Sequence[Message], *, generation_prompt: bool = False) -> str:
        """A conversation as one text."""
        if self.tokenizer.chat_template:
            functions = messages[0].get("tools") if messages else None
            plain = [{k: v for k, v in m.items() if k != "tools"} for m in messages]
            try:
                text = self.tokenizer.apply_chat_template(
                    plain, tools=functions, tokenize=False, add_generation_prompt=generation_prompt
                )
            except Exception as error:  # a template is a program, and can raise anything
                raise InputError(f"The chat template of {self.name} cannot render a conversation: {error}.") from error
            return str(text)
        lines = [f"{name}: {as_json(m[name])}" for m in messages[:1] for name in ("tools",) if name in m]
        lines += [
            f"{m['role']}: " + "\n".join(filter(None, (m["content"], m.get("tool_calls") and as_json(m["tool_calls"]))))
            for m in messages
        ]
        return "\n".join([*lines, "assistant:"] if generation_prompt else lines)

    def examples(self, conversations: Sequence[Sequence[Message]], responses: Sequence[str]) -> list[Example]:
        """Each conversation with its response; control tokens in their words are broken up."""
        taken = [asked_as(self.lone_system, c) for c in conversations]
        asked = [[given(m, self.control.clean, self.form if has_calls(c) else None) for m in c] for c in taken]
        answers = [[{"role": "assistant", "content": self.control.clean(r)}] for r in responses]
        full = self._ids([self.render([*c, *a]) for c, a in zip(asked, answers, strict=True)])
        prompts = self._ids([self.render(c, generation_prompt=True) for c in asked])
        return [Example(ids, [], common_prefix(p[:-1], ids)) for p, ids in zip(prompts, full, strict=True)]

    @cached_property
    def form(self) -> Form | None:
        """How the template takes tool calls."""
        return form_of(self.render)

    def lost(self, conversation: Sequence[Message], response: str) -> str | None:
        """Why a conversation is to be set aside: what of its tools the template would leave out; else None."""
        return lost(asked_as(self.lone_system, conversation), self.render, lambda: self.form)

    def check(self) -> None:
        """StageError unless a conversation begins with one [CLS], ends with [SEP], and holds the response."""
        turn: Message = {"role": "user", "content": "Which way is north?"}
        first, other = self.examples([[turn]] * 2, ["That way, up.", "Nobody knows."])
        if first.ids[0] != self.tokenizer.cls_token_id or first.ids[-1] != self.end_id:
            raise StageError(
                f"The tokenizer of {self.name} does not put {self.tokenizer.cls_token} before a text and "
                f"{self.tokenizer.sep_token} behind it, where an encoder scores it."
            )
        if first.ids[1] == first.ids[0]:
            raise StageError(f"The chat template of {self.name} writes {self.tokenizer.cls_token} a second time.")
        if first.ids == other.ids:
            raise StageError(f"The chat template of {self.name} drops the assistant's words.")

    def _ids(self, texts: list[str]) -> list[list[int]]:
        found: list[list[int]] = self.tokenizer(texts, truncation=False, verbose=False)["input_ids"] if texts else []
        return found
