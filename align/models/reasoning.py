"""From what a policy draws to its response: a template may have it write a reasoning block, or a header, first."""

from collections.abc import Callable
from dataclasses import dataclass
from os.path import commonprefix
from typing import Any

CLOSED = "\n</think>\n\n"  # ends, with nothing in it, a block that a generation prompt opened with <think>
THOUGHT = "North is where the needle points."


def opens_block(asked: str) -> bool:
    """Whether a generation prompt opens a reasoning block."""
    return asked.rstrip().endswith("<think>")


@dataclass(frozen=True)
class Reading:
    """What stands between the generation prompt and a response, as the template writes it."""

    lead: str
    """Before a response without reasoning."""
    opening: str = ""
    """Before the reasoning."""
    closing: str = ""
    """Between the reasoning and the response; "" if the template has no reasoning."""
    opened: bool = False
    """Whether the generation prompt has opened the block already."""

    @property
    def _last(self) -> str:
        """The end of `closing` that a lead has as well: only the response follows it."""
        return _common_suffix(self.lead, self.closing).strip() or self.closing.strip()

    @property
    def _first(self) -> str:
        """The beginning of `opening` that a lead has as well: no response begins with it."""
        return commonprefix([self.lead.strip(), self.opening.strip()]) or self.opening.strip()

    def split(self, drawn: str) -> tuple[str, str]:
        """The response in `drawn`, and the reasoning before it; "" where there is none. A block that is not closed, as
        of a draw that a limit ended, leaves "" as the response."""
        if not self.closing:
            return drawn.removeprefix(self.lead), ""
        before, closed, after = drawn.rpartition(self._last)
        if closed:
            before = before.strip().removeprefix(self.opening.strip())
            response = after.lstrip() if self.closing[-1].isspace() else after
            return response, before.removesuffix(self.closing.strip().removesuffix(self._last)).strip()
        if self.opened or drawn.lstrip().startswith(self._first):
            return "", drawn.strip().removeprefix(self.opening.strip()).strip()
        return drawn, ""


def derive(render: Callable[[list[dict[str, str]], bool], str], ask: Any, answer: dict[str, str]) -> Reading | None:
    """How the template is read, by what it makes of `answer` to `ask` with and without reasoning.

    `render(messages, generation_prompt)` is the template. None if the generation prompt is not the beginning of what it
    makes, or the answer's words are not in it.
    """
    asked, words = render(ask, True), answer["content"]
    plain = render([*ask, answer], False)
    if not plain.startswith(asked) or words not in plain[len(asked) :]:
        return None
    lead = plain[len(asked) : plain.rindex(words)]
    try:
        named = {name: THOUGHT for name in ("reasoning_content", "reasoning", "thinking")}
        thought = render([*ask, answer | named], False)
    except Exception:  # a template may refuse what it does not know
        return Reading(lead)
    if thought.count(THOUGHT) != 1 or not thought.startswith(asked) or words not in thought:
        return Reading(lead)
    opening, _, rest = thought[len(asked) :].partition(THOUGHT)
    return Reading(lead, opening, rest[: rest.rindex(words)])


def _common_suffix(a: str, b: str) -> str:
    return commonprefix([a[::-1], b[::-1]])[::-1]
