"""One person on the way through the pairs: which is next, what a choice means, and back."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from align.errors import InputError
from align.labelling.contests import Asked, Place, left_of
from align.labelling.labels import Judged, Labels, Winner
from align.text import quote


@dataclass(frozen=True)
class View:
    """What a person sees: a pair, or that all are judged."""

    pair: Asked | None
    left: Place | None
    judged: int
    """How many of the pairs this person has judged or skipped."""
    of: int

    @property
    def texts(self) -> list[str]:
        """The responses as they stand, left and right."""
        if self.pair is None:
            return []
        return list(self.pair.responses if self.left == "first" else self.pair.responses[::-1])


class Session:
    """The pairs as they are asked of one person, whose verdicts go to the labels file."""

    def __init__(self, labels: Labels, asked: Sequence[Asked], by: str, seed: int):
        self.labels, self.by, self.seed = labels, by, seed
        self.asked = {pair.pair_id: pair for pair in asked}

    def view(self) -> View:
        """The first pair on which this person has said nothing."""
        done = self._done(self.labels.read())
        pair = next((p for p in self.asked.values() if p.pair_id not in done), None)
        left = left_of(pair.pair_id, self.by, self.seed) if pair else None
        return View(pair, left, len(done), len(self.asked))

    def choose(self, pair_id: str, choice: str) -> None:
        """Take `left`, `right`, `tie` or `skip` as the verdict on a pair. KeyError for another choice or pair."""
        pair = self.asked[pair_id]
        left = left_of(pair_id, self.by, self.seed)
        right: Place = "second" if left == "first" else "first"
        winners: dict[str, Winner] = {"left": left, "right": right, "tie": "tie", "skip": "skip"}
        self.labels.put(pair, self.by, winners[choice], left)

    def back(self, pair_id: str) -> None:
        """Take back the verdict on the pair before `pair_id`, which is then the next; all are before "".

        Asking twice takes back one verdict, not two. Nothing happens where there is none.
        """
        ids = list(self.asked)
        before = ids[: ids.index(pair_id)] if pair_id in self.asked else ids
        done = self._done(self.labels.read())
        if last := next((i for i in reversed(before) if i in done), None):
            self.labels.take_back(last, self.by)

    def _done(self, found: Mapping[str, Judged]) -> set[str]:
        """The pairs on which this person said something."""
        return {i for i in self.asked if i in found and any(v.by == self.by for v in found[i].verdicts)}


def name(text: str) -> str:
    """An annotator's name as it is kept. Raises InputError for what is none."""
    found = unicodedata.normalize("NFC", text)
    if not re.fullmatch(r"\w[\w.-]{0,63}", found):
        raise InputError(
            f"--as {quote(text)}: a name is up to 64 letters, digits, _, - and ., and does not begin with - or a point."
        )
    return found
