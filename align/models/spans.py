"""Which tokens of a conversation are the assistant's, where the chat template does not say so itself.

A turn is rendered twice, the second time with other words: what differs is its words. Together with what the template
writes between the generation prompt and the words, and the token that ends the turn, they are what the model is to say.
"""

from collections.abc import Callable, Sequence
from os.path import commonprefix
from typing import Any

Message = dict[str, Any]
Render = Callable[[Sequence[Sequence[Message]], bool], list[str]]
Span = tuple[int, int]  # characters


def assistant_spans(
    render: Render, conversations: Sequence[Sequence[Message]], texts: Sequence[str]
) -> list[list[Span]]:
    """For each conversation, rendered as `texts`, the characters of every assistant turn that the model is to say.

    `render(conversations, generation_prompt)` is the template.
    """
    turns = [(c, i) for c, turns in enumerate(conversations) for i, m in enumerate(turns) if m["role"] == "assistant"]
    said = [(c, i) for c, i in turns if "tool_calls" not in conversations[c][i]]
    changed = iter(render([with_words(conversations[c], i, mark(texts[c])) for c, i in said], False))
    asked = iter(render([conversations[c][:i] for c, i in turns if i], True))
    found: list[list[Span]] = [[] for _ in texts]
    for c, i in turns:
        if "tool_calls" in conversations[c][i]:
            start, end = _call_span(render, conversations[c], i, texts[c])
        else:
            start, end = differing(texts[c], next(changed))
        before = next(asked) if i else ""
        if texts[c].startswith(before) and len(before) <= start:
            start = len(before) or start
        found[c].append((start, end))
    return found


def _call_span(render: Render, conversation: Sequence[Message], turn: int, text: str) -> Span:
    """The characters of a turn that calls tools: what differs from a turn with a word in place of words and calls.

    The conversation ends with the turn, as templates take results of tools only after a call; one that writes the turn
    otherwise in the middle is asked with what follows.
    """
    word = {"role": "assistant", "content": mark(text)}
    until, other = render([[*conversation[:turn], conversation[turn]], [*conversation[:turn], word]], False)
    start, end = differing(until, other)
    if text.startswith(until[:end]):
        return start, end
    (other,) = render([[*conversation[:turn], word, *conversation[turn + 1 :]]], False)
    return differing(text, other)


def after_block(text: str, spans: list[Span], asked: str, block: str) -> str:
    """The text with its last span after the generation prompt `asked` and `block`; the span moves with it."""
    start, end = spans[-1]
    spans[-1] = (len(asked), len(asked) + len(block) + end - start)
    return asked + block + text[start:]


def with_words(conversation: Sequence[Message], turn: int, words: str) -> list[Message]:
    """The conversation with other words in one turn."""
    return [m | {"content": words} if i == turn else m for i, m in enumerate(conversation)]


def mark(text: str) -> str:
    """A character for private use that is not in `text`."""
    return next(c for c in map(chr, range(0xE000, 0xF8FF)) if c not in text)


def differing(text: str, other: str) -> Span:
    """The characters of `text` that `other` has not at the same distance from the beginning or the end."""
    start = len(commonprefix([text, other]))
    return start, len(text) - len(commonprefix([text[start:][::-1], other[start:][::-1]]))


def token_mask(
    text: str, ids: Sequence[int], offsets: Sequence[Span], spans: Sequence[Span], ends: set[int], special: set[int]
) -> list[int]:
    """1 for the tokens of the spans, and for the token of `ends` that closes each, after blanks at most; else 0.

    A span that ends with one of `special` is closed: the end of tool calls may be another one than that of words.
    """
    mask, token = [0] * len(ids), 0
    for start, end in spans:
        while token < len(ids) and offsets[token][1] <= start:
            token += 1
        while token < len(ids) and offsets[token][0] < end:
            mask[token] = 1
            token += 1
        if token and mask[token - 1] and ids[token - 1] in special:
            continue
        closing = token
        while closing < len(ids) and ids[closing] not in ends and not text[slice(*offsets[closing])].strip():
            closing += 1
        if closing < len(ids) and ids[closing] in ends:
            mask[token : closing + 1] = [1] * (closing + 1 - token)
            token = closing + 1
    return mask


def closing_token(text: str, at: int, encoded: Any, ends: set[int]) -> int | None:
    """The token of `ends` that follows the words ending at character `at`, after blanks at most; else None."""
    rest = text[at:]
    at += len(rest) - len(rest.lstrip())
    token = encoded.char_to_token(at) if at < len(text) else None
    return encoded["input_ids"][token] if token is not None and encoded["input_ids"][token] in ends else None
