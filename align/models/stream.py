"""A greedy response as it grows, token by token: what `align chat` shows while it is drawn."""

from collections.abc import Iterator, Sequence

from align.errors import InputError
from align.models.chat import Message
from align.models.generate import Sampler


def stream(policy: Sampler, messages: Sequence[Message], max_new_tokens: int) -> Iterator[str]:
    """The response so far, each time it has grown, and at last the whole of it; it is what `Sampler.draw` gives at
    temperature 0. Reasoning, control tokens and unfinished letters are left out.

    Raises InputError where the conversation leaves no room in the model's context.
    """
    ids = policy.chat.prompt(messages)
    room = min(max_new_tokens, policy.context - len(ids))
    if room < 1:
        raise InputError(f"The conversation fills the model's {policy.context} tokens of context.")
    drawn: list[int] = []
    shown = ""
    for token in _tokens(policy, ids):
        ended = token in policy.stop
        drawn += [] if ended else [token]
        if ended or len(drawn) == room:
            break
        text = "" if _begins(policy, drawn) else policy.chat.read([drawn])[0][0]
        if len(text) > len(shown) and not text.endswith("\ufffd"):
            shown = text
            yield text
    yield policy.chat.read([drawn])[0][0]


def _begins(policy: Sampler, drawn: list[int]) -> bool:
    """Whether these tokens may still be the beginning of what the template has before a response."""
    reading = policy.chat.reading
    text = str(policy.chat.tokenizer.decode(drawn)) if reading and len(drawn) < 16 else ""
    return bool(reading and text and any(s.startswith(text) for s in (reading.lead, reading.opening)))


def _tokens(policy: Sampler, ids: list[int]) -> Iterator[int]:
    import torch
    from transformers.cache_utils import DynamicCache

    model = policy.model
    cache = DynamicCache(config=model.config)
    todo = ids
    while True:
        with torch.inference_mode():  # not over the yield: what is done between two tokens is the caller's
            read = torch.tensor([todo], device=model.device)
            logits = model(input_ids=read, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[0, -1]
            token = int(logits.float().argmax())
        yield token
        todo = [token]
