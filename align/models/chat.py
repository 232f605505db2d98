"""Conversations as tokens: rendering with the model's chat template, and what must hold before anything is trained.

A training example is a prompt and a response that ends with the end-of-turn token. Only what the model is to say is
trained on.
"""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

from align.errors import InputError
from align.models.chat_checks import PROBE, PROBE_RESPONSE, check_chat
from align.models.control import Control
from align.models.example import Example, common_prefix, together, without_prefix
from align.models.lone import asked_as, lone_system
from align.models.marked import BOS, EOS, has_markers, lacks_bos, of_trl, without_markers
from align.models.reasoning import CLOSED, Reading, derive, opens_block
from align.models.spans import after_block, assistant_spans, closing_token, token_mask
from align.models.tools import Form, Message, form_of, given, has_calls, lost
from align.progress import Progress

CHUNK = 2000  # conversations that are tokenised at a time
Source = Literal["markers", "trl", "rendering"]


class Chat:
    """A tokenizer with the chat template that training uses; `name` is what messages call the template.

    `source` says where the assistant's words are known from: the template's own markers, trl's training template for
    it, or rendering it with other words (spans). Raises InputError if no padding token can be told from the end of a
    turn.
    """

    room = 1 << 30  # tokens it can read: positions are relative, and nothing breaks where there are more

    def __init__(self, tokenizer: Any, pad_token: str | None = None, name: str = "The chat template"):
        self.tokenizer, self.name = tokenizer, name
        self._own: str = tokenizer.chat_template
        own = self._own
        self.source: Source = "markers"
        self.added: tuple[str, ...] = ()
        """What the template leaves out, and is added to it: bos, eos."""
        self._opened = not has_markers(own) and self._opens_block()
        if not has_markers(own):
            marked = None if self._opened else of_trl(tokenizer)
            self.source = "trl" if marked else "rendering"
            tokenizer.chat_template = marked or own
        if lacks_bos(tokenizer, self.render(PROBE)):
            self._add("bos", BOS + tokenizer.chat_template)
        self.end_id, self.end_is_special = self._end_of_turn()
        if self.source != "markers" and not self.end_is_special and tokenizer.eos_token_id is not None:
            self._add("eos", tokenizer.chat_template + EOS)
            self.end_id, self.end_is_special = self._end_of_turn()
        self.template: str = tokenizer.chat_template
        self.digest = hashlib.sha256(self.template.encode()).hexdigest()
        self.control = Control(tokenizer, tokenizer.convert_ids_to_tokens(self.end_id))
        self.reading = self._reading()
        self._header: list[int] = []
        self.lone_system = lone_system(self.render)
        self._header = self._marked_header()
        self._set_padding(pad_token)

    @property
    def pad_id(self) -> int:
        return int(self.tokenizer.pad_token_id)

    @property
    def inference(self) -> str:
        """The model's own template for engines that only ask: without markers, which few of them know, and without what
        only training needs; a BOS that it leaves out is added."""
        return (BOS if "bos" in self.added else "") + without_markers(self._own)

    def facts(self) -> dict[str, str]:
        """What of the template is recorded beside an adapter."""
        facts = {"chat_template": self.digest, "end_of_turn": str(self.tokenizer.convert_ids_to_tokens(self.end_id))}
        return facts | {"assistant_from": self.source, "added": ", ".join(self.added)}

    def render(self, messages: Sequence[Message], *, generation_prompt: bool = False) -> str:
        """The text that the template makes of a conversation, in transformers' sandbox."""
        return str(self._render([messages], generation_prompt)[0])

    def prompts(self, conversations: Sequence[Sequence[Message]]) -> list[list[int]]:
        """Token ids of each conversation, ending where the model's answer begins."""
        ids: list[list[int]] = []
        with Progress(len(conversations), "tokenising prompts") as progress:
            for at in range(0, len(conversations), CHUNK):
                cleaned = [self.clean(c) for c in conversations[at : at + CHUNK]]
                ids += self._apply(cleaned, add_generation_prompt=True, return_dict=True)["input_ids"]
                progress.advance(len(cleaned))
        return ids

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of one conversation, ending where the model's answer begins."""
        encoded = self._apply([self.clean(messages)], add_generation_prompt=True, return_dict=True)
        return list(encoded["input_ids"][0])

    def examples(
        self,
        conversations: Sequence[Sequence[Message]],
        responses: Sequence[str | Message],
        train_on: Literal["all", "last"] = "all",
    ) -> list[Example]:
        """Each conversation with its response as a training example, up to and with the end-of-turn token.

        A response is words, or a turn that calls tools. `train_on` last leaves the assistant's earlier turns out of
        the mask.
        """
        out: list[Example] = []
        prompts = self.prompts(conversations)
        pairs = list(zip(conversations, responses, strict=True))
        with Progress(len(pairs), "tokenising responses") as progress:
            for at in range(0, len(pairs), CHUNK):
                full = [self._conversation(c, r) for c, r in pairs[at : at + CHUNK]]
                for ids, mask in zip(*self._masked(full), strict=True):
                    trained = [i for i, m in enumerate(mask) if m]
                    ends = [i for i in trained if ids[i] == self.end_id] or trained or [0]
                    ids, mask = ids[: ends[-1] + 1], mask[: ends[-1] + 1]
                    prompt = common_prefix(prompts[len(out)], ids)
                    if train_on == "last":
                        mask[:prompt] = [0] * prompt
                    out.append(Example(ids, mask, prompt))
                progress.advance(len(full))
        return out

    def read(self, drawn: Sequence[Sequence[int]]) -> list[tuple[str, str | None]]:
        """Responses in what was drawn after the generation prompt, without the end-of-turn token, and the reasoning
        before each; None where there is none. Neither has control tokens."""
        known = bool(self.reading and self.reading.closing)
        texts = self.tokenizer.batch_decode([list(d) for d in drawn], skip_special_tokens=not known)
        if self.reading is None:
            return [(str(t), None) for t in texts]
        split = [self.reading.split(str(t)) for t in texts]
        if not known:
            return [(response, None) for response, _ in split]
        return [(self.control.strip(said), self.control.strip(thought) or None) for said, thought in split]

    def clean(self, messages: Sequence[Message]) -> list[Message]:
        """The messages as the template takes them, with control tokens in their words broken up, so that data cannot
        end a turn or open one."""
        form = self.form if has_calls(messages) else None
        return [given(m, self.control.clean, form) for m in asked_as(self.lone_system, messages)]

    @cached_property
    def form(self) -> Form | None:
        """How the template takes tool calls."""
        return form_of(self.render)

    def lost(self, conversation: Sequence[Message], response: str | Message | None = None) -> str | None:
        """Why a conversation is to be set aside: what of its tools the template would leave out; else None.

        Without a response one is to be drawn, which must be told from its reasoning.
        """
        whole = [*conversation, response] if isinstance(response, dict) else conversation
        if why := lost(asked_as(self.lone_system, whole), self.render, lambda: self.form):
            return why
        if response is None and self._opened and conversation[-1]["role"] == "tool":
            asked = self.render(self.clean(conversation), generation_prompt=True)
            return (
                None if opens_block(asked) else "after the result of a tool the chat template opens no reasoning block"
            )
        return None

    def check(self) -> None:
        """What must hold of the template before training; each fails with its own StageError."""
        check_chat(self)

    def _add(self, what: str, template: str) -> None:
        self.tokenizer.chat_template = template
        self.added += (what,)

    def _conversation(self, conversation: Sequence[Message], response: str | Message) -> list[Message]:
        turn = response if isinstance(response, dict) else {"role": "assistant", "content": response}
        return self.clean([*conversation, turn])

    def _masked(self, conversations: list[list[Message]]) -> tuple[list[list[int]], list[list[int]]]:
        """Token ids of each conversation, and 1 for those that the model is to say.

        Where it calls tools this is known by rendering: markers may enclose its words alone.
        """
        called = [has_calls(c) for c in conversations]
        if any(called) and not all(called):
            parts = [iter(zip(*self._masked([c for c, x in zip(conversations, called, strict=True) if x == which]),
                              strict=True)) for which in (False, True)]  # fmt: skip
            both = [next(parts[x]) for x in called]
            return [ids for ids, _ in both], [mask for _, mask in both]
        if self.source == "rendering" or any(called):
            texts = self._render(conversations)
            spans = assistant_spans(self._render, conversations, texts)
            if self._opened:
                asked = self._render([c[:-1] for c in conversations], True)
                blocks = [CLOSED if opens_block(a) else "" for a in asked]  # none after the result of a tool, in some
                texts = [after_block(*row) for row in zip(texts, spans, asked, blocks, strict=True)]
            encoded = self.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
            ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
            ends, special = set(self.tokenizer.added_tokens_decoder), set(self.tokenizer.all_special_ids)
            special |= {i for i, t in self.tokenizer.added_tokens_decoder.items() if t.special}
            return ids, [token_mask(*row, ends, special) for row in zip(texts, ids, offsets, spans, strict=True)]
        encoded = self._apply(conversations, return_dict=True, return_assistant_tokens_mask=True)
        masks = encoded["assistant_masks"]
        for ids, mask in zip(encoded["input_ids"], masks, strict=True):
            without_prefix(ids, mask, self._header)
        return encoded["input_ids"], masks

    def _opens_block(self) -> bool:
        """Whether the generation prompt opens a reasoning block that the template leaves out of what was said."""
        asked = self.render(PROBE[:1], generation_prompt=True)
        return opens_block(asked) and not self.render(PROBE).startswith(asked)

    def _marked_header(self) -> list[int]:
        """The tokens of the generation prompt that the template's markers enclose: of its end, or all of them."""
        asked = self._tokens(self.render(PROBE[:1], generation_prompt=True))
        (ids,), (mask,) = self._masked([self._conversation(PROBE[:1], PROBE_RESPONSE)])
        first = (mask + [1]).index(1)
        given = common_prefix(asked, self._tokens(self.render(PROBE[:1])))
        return asked[first:] if given <= first and ids[: len(asked)] == asked else []

    def _reading(self) -> Reading | None:
        if self._opened:
            return Reading(CLOSED, closing=CLOSED, opened=True)
        return derive(lambda messages, asks: self.render(messages, generation_prompt=asks), PROBE[:1], PROBE[1])

    def _tokens(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _render(self, conversations: Sequence[Sequence[Message]], generation_prompt: bool = False) -> list[str]:
        listed = [list(c) for c in conversations]
        return list(self._apply(listed, tokenize=False, add_generation_prompt=generation_prompt)) if listed else []

    def _apply(self, conversations: list[list[Message]], **options: Any) -> Any:
        """What the tokenizer makes of conversations; each with the functions in its first turn, if it has some."""
        if any(c and "tools" in c[0] for c in conversations):
            return together([self._applied([c], options) for c in conversations])
        return self._applied(conversations, options)

    def _applied(self, conversations: list[list[Message]], options: dict[str, Any]) -> Any:
        functions = conversations[0][0].get("tools") if conversations else None
        if functions:
            (first, *rest), options = conversations[0], options | {"tools": functions}
            conversations = [[{k: v for k, v in first.items() if k != "tools"}, *rest]]
        try:
            return self.tokenizer.apply_chat_template(conversations, **options)
        except Exception as error:  # a template is a program, and can raise anything
            reason = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
            raise InputError(f"{self.name} cannot render a conversation: {reason}.") from error

    def _end_of_turn(self) -> tuple[int, bool]:
        """The token that follows the assistant's words, and whether it is an added token of its own."""
        text = self.render(PROBE)
        if PROBE_RESPONSE not in text:
            raise InputError(
                f"{self.name} drops the assistant's words, or changes them; set base.chat_template to one that writes "
                "them as they are."
            )
        encoded = self.tokenizer(text, add_special_tokens=False)
        end = text.rindex(PROBE_RESPONSE) + len(PROBE_RESPONSE)
        token = closing_token(text, end, encoded, set(self.tokenizer.added_tokens_decoder))
        if token is not None:
            return token, True
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
