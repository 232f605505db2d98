"""Which drawn questions are kept: those that are new, whose SQL runs on the warehouse and gives something, and to which
the model that drew them has an answer with the same rows when it is asked again."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from align.asking.forms import Example
from align.grading.sandbox import Result, Sandbox
from align.grading.sql import SqlGrader, compare
from align.rules.languages import scripts
from align.rules.minhash import alike
from align.rules.shingles import all_units, grams, sets
from align.text import normalise

ALIKE, WORDS, CHARS = 0.7, 3, 4
"""Jaccard similarity of the n-grams of two questions from which they are alike; words of an n-gram, and characters in
text without reliable spaces: as the filter's near_duplicate has them."""
TOLERANCE: float = SqlGrader.model_fields["tolerance"].default

CUT, KNOWN, AGAIN, SCRIPT = "cut off", "an example", "drawn before", "in another script"
FAILS, EMPTY, OTHERWISE = "does not run", "gives no rows", "answered otherwise"
LIKE_EXAMPLE, LIKE_DRAWN, SPARE = "like an example", "like one drawn before", "more than wanted"
REASONS = (CUT, KNOWN, AGAIN, SCRIPT, FAILS, EMPTY, LIKE_EXAMPLE, LIKE_DRAWN, OTHERWISE, SPARE)
"""Why a question is dropped, in the order in which that is looked at."""


@dataclass
class Sifted:
    """What became of the questions that were drawn."""

    drawn: int = 0
    kept: list[Example] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    """How many for which of REASONS."""
    told: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The first question that was dropped for a reason, and what was seen of it."""

    def drop(self, reason: str, question: str = "", seen: str = "") -> None:
        """Count a question that goes."""
        self.dropped[reason] += 1
        self.told.setdefault(reason, (question, " ".join(seen.split())))


class Sieve:
    """Takes drawn questions batch by batch; `sifted` is what became of them so far.

    `answer` gives the SQL with which the model that drew them answers questions. That two answers agree is no proof,
    but a question whose two answers differ has a wrong one (self-consistency: Wang et al., 2023).
    """

    def __init__(self, examples: Sequence[Example], sandbox: Sandbox, answer: Callable[[Sequence[str]], list[str]]):
        self.sifted = Sifted()
        self._examples, self._sandbox, self._answer = list(examples), sandbox, answer
        self._known = {normalise(e.question): KNOWN for e in examples}
        self._scripts = set(_scripts(examples))

    def only(self, n: int) -> None:
        """Keep the first n."""
        for example in self.sifted.kept[n:]:
            self.sifted.drop(SPARE, example.question)
        del self.sifted.kept[n:]

    def add(self, found: Sequence[Example], cut: int = 0) -> None:
        """Sift some more questions, and as many as were cut off."""
        s = self.sifted
        s.drawn += len(found) + cut
        for _ in range(cut):
            s.drop(CUT)
        self._agreed(self._unlike(list(self._run(self._new(found)))))

    def _new(self, found: Sequence[Example]) -> list[Example]:
        """Those that nobody asked before, in a script of the examples."""
        new = []
        for example, script in zip(found, _scripts(found), strict=True):
            name = normalise(example.question)
            if reason := self._known.get(name, "" if name else CUT):
                self.sifted.drop(reason, example.question)
            elif script not in self._scripts:
                self.sifted.drop(SCRIPT, example.question)
            else:
                self._known[name] = AGAIN
                new.append(example)
        return new

    def _run(self, new: Sequence[Example]) -> Iterator[tuple[Example, Result]]:
        """Those whose SQL runs and gives anything but NULL, with what it gives."""
        for example, result in zip(new, self._sandbox.run((e.answer for e in new), order=True), strict=True):
            if result.status != "ok":
                self.sifted.drop(FAILS, example.question, f"{example.answer} {result.status}: {result.detail}")
            elif all(value is None for row in result.rows for value in row):
                self.sifted.drop(EMPTY, example.question, example.answer)
            else:
                yield example, result

    def _unlike(self, ran: Sequence[tuple[Example, Result]]) -> list[tuple[Example, Result]]:
        """Those that are not alike to an example, or to one that stays."""
        before = [*self._examples, *self.sifted.kept]
        every = [*before, *(example for example, _ in ran)]
        near = dict(_near(every, len(before)))
        for i, of in sorted(near.items()):
            reason = LIKE_EXAMPLE if of < len(self._examples) else LIKE_DRAWN
            self.sifted.drop(reason, every[i].question, every[of].question)
        return [pair for i, pair in enumerate(ran, len(before)) if i not in near]

    def _agreed(self, asked: Sequence[tuple[Example, Result]]) -> None:
        """Keep those to which another answer has the same rows."""
        again = self._answer([example.question for example, _ in asked])
        for (example, result), other, query in zip(asked, self._sandbox.run(again), again, strict=True):
            if compare(other, result, TOLERANCE).score == 1:
                self.sifted.kept.append(example)
            else:
                self.sifted.drop(OTHERWISE, example.question, f"{example.answer} and {query or 'nothing'}")


def _scripts(examples: Sequence[Example]) -> list[int]:
    """In which script most letters of each question are."""
    found = scripts(pa.array([e.question for e in examples], pa.string()))
    return [int(i) for i in found.argmax(1)]


def _near(examples: Sequence[Example], known: int) -> Iterator[tuple[int, int]]:
    """Positions from `known` on whose question is alike to one before that stays, and the position of that one."""
    units = all_units(pa.chunked_array([pa.array([e.question for e in examples], pa.string())]))
    found = sets(*grams(units, np.where(units.chars, CHARS, WORDS)))
    pairs, _ = alike(*found, np.arange(len(examples)), ALIKE, 0)
    gone: set[int] = set()
    for before, after in sorted(map(tuple, pairs.tolist()), key=lambda p: (p[1], p[0])):
        if after >= known and before not in gone and after not in gone:
            gone.add(after)
            yield after, before
