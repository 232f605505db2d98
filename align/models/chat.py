"""Conversations as tokens: rendering with the model's chat template, and what must hold before anything is trained.

A training example is a prompt and a response that ends with the end-of-turn token. Only what stands between the
template's {% generation %} markers is trained on.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from align.errors import InputError, StageError
from align.progress import Progress

if TYPE_CHECKING:
    import torch

Message = dict[str, str]

CHUNK = 2000  # conversations that are tokenised at a time
PROBE_PROMPT, PROBE_RESPONSE = "Which way is north?", "That way, up."


@dataclass(frozen=True)
class Example:
    """Token ids of a conversation up to the end-of-turn token; `mask[i]` is 1 where token i is trained on."""

    ids: list[int]
    mask: list[int]
    prompt: int
    """Number of leading tokens that the generation prompt has as well: where the response starts."""

    @property
    def tokens(self) -> int:
        """Tokens of the response, the end-of-turn token among them."""
        return len(self.ids) - self.prompt


class Reader(Protocol):
    """What makes tokens of conversations: a chat template, or an encoder's tokenizer."""

    tokenizer: Any
    end_id: int
    """The token that a conversation ends with."""
    room: int
    """Tokens that the model can read at most."""

    @property
    def pad_id(self) -> int: ...
    def facts(self) -> dict[str, str]: ...
    def check(self) -> None: ...
    def examples(self, conversations: Sequence[Sequence[Message]], responses: Sequence[str]) -> list[Example]: ...


class Chat:
    """A tokenizer with its chat template; `name` is what messages call the template.

    Raises InputError if no padding token can be told from the end of a turn.
    """

    room = 1 << 30  # positions are relative: nothing breaks where a conversation is longer than those trained on

    def __init__(self, tokenizer: Any, pad_token: str | None = None, name: str = "The chat template"):
        self.tokenizer, self.name = tokenizer, name
        self.template: str = tokenizer.chat_template
        self.digest = hashlib.sha256(self.template.encode()).hexdigest()
        special = {t.content for t in tokenizer.added_tokens_decoder.values() if t.special}
        self._control = sorted(special | set(tokenizer.all_special_tokens), key=len, reverse=True)
        self.end_id, self.end_is_special = self._end_of_turn()
        self._set_padding(pad_token)

    @property
    def pad_id(self) -> int:
        return int(self.tokenizer.pad_token_id)

    def facts(self) -> dict[str, str]:
        """What of the template is recorded beside an adapter."""
        return {"chat_template": self.digest, "end_of_turn": str(self.tokenizer.convert_ids_to_tokens(self.end_id))}

    def render(self, messages: Sequence[Message], *, generation_prompt: bool = False) -> str:
        """The text that the template makes of a conversation, in transformers' sandbox."""
        return str(self._apply([list(messages)], tokenize=False, add_generation_prompt=generation_prompt)[0])

    def prompts(self, conversations: Sequence[Sequence[Message]]) -> list[list[int]]:
        """Token ids of each conversation, ending where the model's answer begins."""
        ids: list[list[int]] = []
        with Progress(len(conversations), "tokenising prompts") as progress:
            for at in range(0, len(conversations), CHUNK):
                cleaned = [self.clean(c) for c in conversations[at : at + CHUNK]]
                ids += self._apply(cleaned, add_generation_prompt=True, return_dict=True)["input_ids"]
                progress.advance(len(cleaned))
        return ids

    def examples(self, conversations: Sequence[Sequence[Message]], responses: Sequence[str]) -> list[Example]:
        """Each conversation with its response as a training example, up to and with the end-of-turn token."""
        out: list[Example] = []
        prompts = self.prompts(conversations)
        pairs = list(zip(conversations, responses, strict=True))
        with Progress(len(pairs), "tokenising responses") as progress:
            for at in range(0, len(pairs), CHUNK):
                full = [self.clean([*c, {"role": "assistant", "content": r}]) for c, r in pairs[at : at + CHUNK]]
                encoded = self._apply(full, return_dict=True, return_assistant_tokens_mask=True)
                for ids, mask in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True):
                    trained = [i for i, m in enumerate(mask) if m]
                    ends = [i for i in trained if ids[i] == self.end_id] or trained or [0]
                    out.append(
                        Example(ids[: ends[-1] + 1], mask[: ends[-1] + 1], common_prefix(prompts[len(out)], ids))
                    )
                progress.advance(len(full))
        return out

    def clean(self, messages: Sequence[Message]) -> list[Message]:
        """The messages with control tokens in their words broken up, so that data cannot end a turn or open one."""
        return break_up(messages, self._control)

    def check(self) -> None:
        """What must hold of the template before training; each fails with its own StageError."""
        ask: list[Message] = [{"role": "user", "content": PROBE_PROMPT}]
        answer: Message = {"role": "assistant", "content": PROBE_RESPONSE}
        encoded = self._apply([[*ask, answer]], return_dict=True, return_assistant_tokens_mask=True)
        ids, mask = encoded["input_ids"][0], encoded["assistant_masks"][0]
        trained = [i for i, m in zip(ids, mask, strict=True) if m]
        if not trained:
            raise StageError(
                "No token would be trained on: the chat template has no {% generation %} markers around the "
                "assistant's words; set base.chat_template to one that has."
            )
        words = self.tokenizer.decode(trained)
        if PROBE_PROMPT in words or not self.render([*ask, answer]).startswith(self.render(ask)):
            raise StageError(
                "The prompt would be trained on: the chat template's {% generation %} markers enclose the user's words."
            )
        if not self.end_is_special or self.end_id not in trained:
            raise StageError(
                f"The model would never learn to stop: the last trained token is "
                f"{self.tokenizer.decode([trained[-1]])!r}, not an end-of-turn token; put it inside "
                "{% generation %} in base.chat_template."
            )
        if self.end_id == self.pad_id:
            raise StageError(
                f"The end-of-turn token {self.tokenizer.pad_token!r} is also the padding token; set base.pad_token."
            )
        bos = self.tokenizer.bos_token_id
        if bos is not None and ids[:2] == [bos, bos]:
            raise StageError("The chat template begins a conversation with the BOS token twice.")
        if common_prefix(self.prompts([ask])[0], ids) < len(self.prompts([ask])[0]):
            raise StageError(
                "The prompt that the model answers is not the beginning of what it is trained on: end the chat "
                "template's generation prompt on a token boundary, such as a line break or a special token."
            )

    def _apply(self, conversations: list[list[Message]], **options: Any) -> Any:
        try:
            return self.tokenizer.apply_chat_template(conversations, **options)
        except Exception as error:  # a template is a program, and can raise anything
            reason = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
            raise InputError(f"{self.name} cannot render a conversation: {reason}.") from error

    def _end_of_turn(self) -> tuple[int, bool]:
        """The token that follows the assistant's words, and whether it is a special token."""
        text = self.render(
            [{"role": "user", "content": PROBE_PROMPT}, {"role": "assistant", "content": PROBE_RESPONSE}]
        )
        if PROBE_RESPONSE not in text:
            raise InputError(f"{self.name} drops the assistant's words.")
        end = text.rindex(PROBE_RESPONSE) + len(PROBE_RESPONSE)
        encoded = self.tokenizer(text, add_special_tokens=False)
        token = encoded.char_to_token(end) if end < len(text) else None
        special = {i for i, t in self.tokenizer.added_tokens_decoder.items()}
        if token is not None and encoded["input_ids"][token] in special:
            return encoded["input_ids"][token], True
        if self.tokenizer.eos_token_id is None:
            raise InputError(
                "The tokenizer has no end-of-sequence token and the chat template ends a turn without one."
            )
        return self.tokenizer.eos_token_id, False

    def _set_padding(self, pad_token: str | None) -> None:
        tokenizer = self.tokenizer
        if pad_token is not None:
            if tokenizer.convert_tokens_to_ids(pad_token) in (None, tokenizer.unk_token_id) and (
                pad_token != tokenizer.unk_token
            ):
                raise InputError(f"base.pad_token {pad_token!r} is not in the tokenizer's vocabulary.")
            tokenizer.pad_token = pad_token
        elif tokenizer.pad_token_id is None or tokenizer.pad_token_id == self.end_id:
            used = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.convert_ids_to_tokens(self.end_id)}
            free = [t.content for _, t in sorted(tokenizer.added_tokens_decoder.items()) if t.special]
            free = [t for t in free if t not in used and t not in self.template]
            if not free:
                raise InputError(
                    "The tokenizer has no token to pad with that is not the end of a turn; set base.pad_token."
                )
            tokenizer.pad_token = free[-1]
        tokenizer.padding_side = "right"


def break_up(messages: Sequence[Message], control: Sequence[str]) -> list[Message]:
    """The messages with a blank inside every control token in their words; longer tokens stand before their parts."""
    out = []
    for message in messages:
        text = message["content"]
        for token in control:
            if token in text:
                text = text.replace(token, token[:1] + " " + token[1:])
        out.append({"role": message["role"], "content": text})
    return out


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """The number of leading elements that are the same."""
    n = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        n += 1
    return n


def pad(examples: Sequence[Example], pad_id: int) -> tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]:
    """Right-padded token ids, attention mask and response mask, [B, T] each."""
    import torch

    shape = (len(examples), max(len(e.ids) for e in examples))
    ids = torch.full(shape, pad_id, dtype=torch.long)
    mask, response = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    for row, e in enumerate(examples):
        ids[row, : len(e.ids)] = torch.tensor(e.ids)
        mask[row, : len(e.ids)] = 1
        response[row, e.prompt : len(e.ids)] = 1
    return ids, mask, response
