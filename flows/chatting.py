"""Talking to policies: each keeps its own conversation, and what they say is shown while they say it."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

from align.models.stream import stream
from align.text import printable
from flows import show

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from align.models.chat import Message
    from align.models.generate import Sampler

RESET, QUIT = "/reset", "/quit"
WIDE = 80  # columns from which on two answers fit side by side
_EVERY = 0.08  # seconds between two pictures of them


class Talk:
    """A policy and the conversation with it."""

    def __init__(self, name: str, policy: "Sampler", system: str | None = None, max_new_tokens: int = 256):
        self.name, self.policy, self.most = name, policy, max_new_tokens
        self._first: list[Message] = [{"role": "system", "content": system}] if system else []
        self.messages = list(self._first)

    def reset(self) -> None:
        """Begin a new conversation."""
        self.messages = list(self._first)

    def fits(self, text: str) -> bool:
        """Whether the model's context has room for an answer."""
        return len(self.policy.chat.prompt(self._asked(text))) < self.policy.context

    def ask(self, text: str) -> Iterator[str]:
        """The answer so far, as it grows. Question and answer are part of the conversation once the answer is whole."""
        said = ""
        for said in stream(self.policy, self._asked(text), self.most):
            yield said
        self.messages = [*self._asked(text), {"role": "assistant", "content": said}]

    def _asked(self, text: str) -> "list[Message]":
        return [*self.messages, {"role": "user", "content": text}]


def converse(talks: Sequence[Talk], read: Callable[[], str]) -> None:
    """Ask what `read` gives until it is empty or /quit; /reset begins a new conversation."""
    from rich.console import Console

    console = Console() if sys.stdout.isatty() else None
    while (line := read()) and line != QUIT:
        if line == RESET:
            for talk in talks:
                talk.reset()
            show.say("A new conversation.", sys.stderr)
        elif full := [talk.name for talk in talks if not talk.fits(line)]:
            show.say(f"No room for this in the context of {', '.join(full)}; {RESET} begins a new one.", sys.stderr)
        elif len(talks) > 1 and console and console.width >= WIDE:
            side_by_side(talks, line, console)
        else:
            for talk in talks:
                _in_turn(talk, line, named=len(talks) > 1)


def _in_turn(talk: Talk, line: str, *, named: bool) -> None:
    """Show an answer as it comes."""
    show.piece(f"{talk.name}: " if named else "")
    shown = ""
    for text in talk.ask(line):
        if not text.startswith(shown):  # what was taken for words was the beginning of something else
            show.piece("\n")
            shown = ""
        show.piece(text[len(shown) :])
        shown = text
    show.piece("\n")


def side_by_side(talks: Sequence[Talk], line: str, console: "Console") -> None:
    """Show the answers of all beside each other, as they come."""
    from rich.live import Live

    said = ["" for _ in talks]
    pictured = 0.0
    with Live(_columns(talks, said), console=console, auto_refresh=False) as live:
        for texts in zip_longest(*(talk.ask(line) for talk in talks)):
            said = [before if text is None else text for before, text in zip(said, texts, strict=True)]
            if time.monotonic() - pictured > _EVERY:
                live.update(_columns(talks, said), refresh=True)
                pictured = time.monotonic()
        live.update(_columns(talks, said), refresh=True)


def _columns(talks: Sequence[Talk], said: Sequence[str]) -> "RenderableType":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=box.SIMPLE_HEAD, expand=True)
    for talk in talks:
        grid.add_column(Text(printable(talk.name)), ratio=1, overflow="fold")
    grid.add_row(*(Text(printable(text)) for text in said))
    return grid
