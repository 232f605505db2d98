"""What must hold of a chat template before anything is trained with it, tried out on a short conversation."""

from typing import TYPE_CHECKING

from align.errors import StageError
from align.text import quote

if TYPE_CHECKING:
    from align.models.chat import Chat

PROBE_PROMPT, PROBE_RESPONSE = "Which way is north?", "That way, up."
PROBE = [{"role": "user", "content": PROBE_PROMPT}, {"role": "assistant", "content": PROBE_RESPONSE}]


def check_chat(chat: "Chat") -> None:
    """StageError, each with its own sentence, unless the response, its end and nothing else is trained on, and what
    is drawn after the generation prompt reads as the response."""
    if (times := chat.render(PROBE).count(PROBE_RESPONSE)) != 1:
        raise StageError(
            f"The chat template writes the assistant's words {times} times; set base.chat_template to one that writes "
            "them once."
        )
    (example,) = chat.examples([PROBE[:1]], [PROBE_RESPONSE])
    ids = example.ids
    trained = [i for i, m in zip(ids, example.mask, strict=True) if m]
    if not trained:
        raise StageError(
            "No token would be trained on: the chat template's {% generation %} markers enclose nothing; set "
            "base.chat_template to one whose markers enclose the assistant's words, or that has none."
        )
    words = chat.tokenizer.decode(trained)
    if PROBE_PROMPT in words:
        raise StageError(
            "The prompt would be trained on: the chat template's {% generation %} markers enclose the user's words."
        )
    if not chat.end_is_special or chat.end_id not in trained:
        raise StageError(
            f"The model would never learn to stop: the last trained token is "
            f"{chat.tokenizer.decode([trained[-1]])!r}, not an end-of-turn token; put it inside "
            "{% generation %} in base.chat_template."
        )
    if chat.end_id == chat.pad_id:
        raise StageError(
            f"The end-of-turn token {chat.tokenizer.pad_token!r} is also the padding token; set base.pad_token."
        )
    bos = chat.tokenizer.bos_token_id
    if bos is not None and ids[:2] == [bos, bos]:
        raise StageError("The chat template begins a conversation with the BOS token twice.")
    _check_prompt(chat, ids)
    (said, _), *_ = chat.read([ids[example.prompt : -1]])
    if said != PROBE_RESPONSE:
        raise StageError(
            f"A response would not be read back: {quote(PROBE_RESPONSE)} is trained on as "
            f"{quote(chat.tokenizer.decode(ids[example.prompt :]))} and would be graded as {quote(said)}; let "
            "base.chat_template write nothing but the response between the generation prompt and the end of the turn."
        )


def _check_prompt(chat: "Chat", ids: list[int]) -> None:
    asked = chat.prompts([PROBE[:1]])[0]
    if ids[: len(asked)] == asked:
        return
    text, prompt = chat.tokenizer.decode(ids), chat.tokenizer.decode(asked)
    if chat.reading is None:
        raise StageError(
            f"The prompt that the model answers, which ends with {quote(prompt[-40:])}, is not the beginning of what "
            f"it is trained on, {quote(text[-100:])}; let base.chat_template write both alike."
        )
    raise StageError(
        "The prompt that the model answers is not the beginning of what it is trained on: end the chat "
        "template's generation prompt on a token boundary, such as a line break or a special token."
    )
