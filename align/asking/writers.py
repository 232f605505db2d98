"""Who writes questions: a policy that goes on after examples, or a model behind an endpoint that is asked to."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from align.asking.forms import ANSWERED, MARK, WANTED, Example, query_of, shown
from align.endpoint import Endpoint, Question, fill
from align.errors import InputError
from align.models.base import BaseConfig

SHOTS = 8  # examples that are shown at a time
AT_A_TIME = 10  # questions that an endpoint is asked for at a time


class Writer(Protocol):
    """Writes questions with their SQL, and SQL for questions. Each text depends on the seed and its own number or
    question, and no other."""

    name: str
    """What rows say they were drawn by."""
    at_a_time: int
    """Questions that a text may hold."""

    def write(self, first: int, n: int) -> list[str]:
        """Texts `first` to first + n - 1, to be read with forms.read."""
        ...

    def answer(self, questions: Sequence[str]) -> list[str]:
        """The likeliest SQL for each question, with other examples before it; "" where there is none."""
        ...


class Policy:
    """Base plus adapter, which goes on after a schema and some examples. Other examples are shown each time."""

    at_a_time = 1

    def __init__(
        self, base: BaseConfig, adapter: Path | None, examples: Sequence[Example], schema: str, *,
        name: str, temperature: float, seed: int, max_new_tokens: int,
    ):  # fmt: skip
        from align.models.generate import Sampler

        self.name, self._examples, self._schema = name, examples, schema
        self._sampler = Sampler(base, adapter)
        self._temperature, self._seed, self._most = temperature, seed, max_new_tokens

    def write(self, first: int, n: int) -> list[str]:
        """See Writer. Raises InputError where the model's context has no room for the schema and an example."""
        numbers = range(first, first + n)
        begun = {f"question {i}": MARK.rstrip() for i in numbers}  # white space is part of the word that follows
        return [MARK + text for text in self._go_on(begun, self._temperature)]

    def answer(self, questions: Sequence[str]) -> list[str]:
        """See Writer."""
        begun = {question: f"{MARK}{question}\n" for question in questions}
        return [query_of(q, text) for q, text in zip(questions, self._go_on(begun, 0.0), strict=True)]

    def _go_on(self, begun: dict[str, str], temperature: float) -> list[str]:
        """What the model writes after each beginning, by its name."""
        from align.models.engine import Prompt, Sampling

        sampling = Sampling(n=1, temperature=temperature, max_new_tokens=self._most, seed=self._seed)
        prompts = [Prompt(name, []) for name in begun]
        encoded = [self._encoded(name, text) for name, text in begun.items()]
        texts = [""] * len(prompts)
        for ended in self._sampler.tokens(prompts, encoded, range(len(prompts)), sampling):
            for d in ended:
                texts[d.prompt] = self._sampler.chat.tokenizer.decode(d.content, skip_special_tokens=True)
        return texts

    def _encoded(self, name: str, text: str) -> list[int]:
        """The tokens of a beginning, after as many examples as there is room for."""
        some = chosen(self._examples, self._seed, name)
        room = self._sampler.context - self._most
        for shots in range(len(some), 0, -1):
            whole = f"{shown(some[:shots], self._schema)}\n\n{text}"
            ids = list(self._sampler.chat.tokenizer(whole)["input_ids"])
            if len(ids) <= room:
                return ids
        raise InputError(
            f"The schema and an example are {len(ids)} tokens, and {self.name} reads {max(room, 0)} beside what it "
            "writes; name a shorter schema with --schema (none leaves it out), or a model with more room."
        )


class Asked:
    """A model behind an endpoint, which is asked for some questions at a time. Other examples are shown each time."""

    at_a_time = AT_A_TIME

    def __init__(self, endpoint: Endpoint, examples: Sequence[Example], schema: str, seed: int):
        self.name = endpoint.model
        self._endpoint, self._examples, self._schema, self._seed = endpoint, examples, schema, seed

    def write(self, first: int, n: int) -> list[str]:
        """See Writer. Raises StageError where the endpoint refuses or keeps failing."""
        names = [f"request {i}" for i in range(first, first + n)]
        return self._ask([Question(name, fill(WANTED, n=str(AT_A_TIME), shown=self._shown(name))) for name in names])

    def answer(self, questions: Sequence[str]) -> list[str]:
        """See Writer."""
        asked = [Question(q, fill(ANSWERED, question=q, shown=self._shown(q))) for q in questions]
        return [query_of(q, text) for q, text in zip(questions, self._ask(asked), strict=True)]

    def _ask(self, questions: Sequence[Question]) -> list[str]:
        with self._endpoint.asking() as ask:
            return [answer.text for answer in ask(questions)]

    def _shown(self, name: str) -> str:
        return shown(chosen(self._examples, self._seed, name), self._schema)


def chosen(examples: Sequence[Example], seed: int, name: str) -> list[Example]:
    """The examples that are shown with something of that name."""
    return random.Random(f"{seed} {name}").sample(list(examples), min(SHOTS, len(examples)))
