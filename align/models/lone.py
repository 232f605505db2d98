"""Conversations that begin with a system message and have no user: the system message is the task.

A chat template that writes it is given it as it is. Where a template raises, or leaves out its words, it is asked as
the user's turn.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from align.config import Metrics
from align.errors import InputError

Message = dict[str, Any]
LoneSystem = Literal["system", "user"]
"""The role in which a lone system message is rendered."""
_PROBE = [{"role": "system", "content": "Name the north."}, {"role": "assistant", "content": "Up."}]


def is_lone(messages: Sequence[Message]) -> bool:
    """Whether a conversation begins with a system message and has no user."""
    return bool(messages) and messages[0]["role"] == "system" and all(m["role"] != "user" for m in messages)


def lone_system(render: Callable[..., str]) -> LoneSystem:
    """The role that the template `render(messages, generation_prompt=)` wants a lone system message in."""
    try:
        texts = [render(_PROBE[:1], generation_prompt=True), render(_PROBE)]
    except InputError:
        return "user"
    return "system" if all(text.count(_PROBE[0]["content"]) == 1 for text in texts) else "user"


def asked_as(role: LoneSystem, messages: Sequence[Message]) -> Sequence[Message]:
    """The messages, a lone system message in the role that the template wants."""
    return [{**messages[0], "role": role}, *messages[1:]] if is_lone(messages) else messages


def about_lone(role: LoneSystem, conversations: Sequence[Sequence[Message]]) -> Metrics:
    """How many conversations have a lone system message, and in which role it is asked; nothing where none has."""
    n = sum(map(is_lone, conversations))
    return {"system_only": n, "system_only.asked_as": role} if n else {}
