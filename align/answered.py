"""What language models behind endpoints answered, kept between runs: money is not spent twice, nor beyond a cap."""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.endpoint import Endpoint, Question
from align.progress import track

log = logging.getLogger(__name__)


@dataclass
class Budget:
    """What may be asked of an endpoint, and what has been."""

    most_tokens: int
    """Read and written, after which nothing more is asked."""
    most_questions: int | None = None
    questions: int = 0
    tokens: int = 0

    @property
    def left(self) -> bool:
        """Whether more may be asked."""
        return self.tokens < self.most_tokens and (self.most_questions is None or self.questions < self.most_questions)


def ask_kept(
    endpoint: Endpoint, questions: Sequence[Question], kept: "Answers", budget: Budget, label: str
) -> tuple[list[str | None], Budget]:
    """The answer to each question; None past the budget. What is kept is not asked, and equal questions are once.

    Waves of `concurrency` requests make the budget exact to one wave, in the order of the questions. Raises StageError
    as the endpoint does.
    """
    todo = list({q.text: q for q in questions if q.text not in kept}.values())
    waves = [todo[i : i + endpoint.concurrency] for i in range(0, len(todo), endpoint.concurrency)]
    with endpoint.asking() as ask:
        for wave in track(waves, label):
            if not budget.left:
                break
            for question, answer in zip(wave, ask(wave), strict=True):
                kept[question.text] = answer.text
                budget.tokens += answer.tokens
                budget.questions += 1
    return [kept.get(q.text) for q in questions], budget


class Answers:
    """Answers by question, kept between runs in a directory, if there is one: money is not spent twice.

    One line of JSON per answer with a checksum, written as it comes. A line that a kill tore or a disk changed is not
    read; a file that cannot be read or written costs a warning.
    """

    def __init__(self, asks: list[Any], cache: Path | None, folder: str = "ratings"):
        self.known: dict[str, str] = {}
        self.file: Path | None = None
        self._warned = False
        if cache:
            self.file = cache / folder / (hashlib.sha256(repr(asks).encode()).hexdigest()[:24] + ".jsonl")
            try:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                lines = self.file.read_bytes().split(b"\n")
                os.utime(self.file)  # in use: what nobody reads any more may be removed
            except FileNotFoundError:
                lines = []
            except OSError as e:
                lines = self._warn(e)
            for line in lines:
                if found := _record(line):
                    self.known[found[0]] = found[1]

    def __contains__(self, question: str) -> bool:
        return self._key(question) in self.known

    def get(self, question: str) -> str | None:
        """The answer that was given to a question."""
        return self.known.get(self._key(question))

    def __setitem__(self, question: str, answer: str) -> None:
        key = self._key(question)
        self.known[key] = answer
        if self.file is not None:
            try:
                with self.file.open("a", encoding="utf-8") as f:
                    f.write("\n" + json.dumps([key, answer, _check(key, answer)]))
            except OSError as e:
                self._warn(e)

    def _key(self, question: str) -> str:
        return hashlib.sha256(question.encode()).hexdigest()[:32]

    def _warn(self, error: OSError) -> list[bytes]:
        if not self._warned:
            log.warning("answers are not kept in %s (%s): the next run asks again", self.file, error)
        self._warned = True
        return []


def _check(key: str, answer: str) -> str:
    return hashlib.sha256(json.dumps([key, answer]).encode()).hexdigest()[:16]


def _record(line: bytes) -> tuple[str, str] | None:
    """The key and the answer in a line; None if it is not as it was written."""
    try:
        key, answer, check = json.loads(line)
        return (key, answer) if isinstance(answer, str) and check == _check(key, answer) else None
    except (ValueError, TypeError, RecursionError):
        return None
