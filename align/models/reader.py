"""What reward models and pairs need of whatever makes tokens of conversations."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from align.models.control import Control, Message

if TYPE_CHECKING:
    from align.models.example import Example


class Reader(Protocol):
    """A chat template (models.chat), or an encoder's tokenizer (models.encoder)."""

    tokenizer: Any
    control: Control
    end_id: int
    """The token that a conversation ends with."""
    room: int
    """Tokens that the model can read at most."""

    @property
    def pad_id(self) -> int: ...
    def facts(self) -> dict[str, str]: ...
    def check(self) -> None: ...
    def lost(self, conversation: Sequence[Message], response: str) -> str | None: ...
    def examples(self, conversations: Sequence[Sequence[Message]], responses: Sequence[str]) -> "list[Example]": ...
