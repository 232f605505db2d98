"""A language model behind any OpenAI-compatible endpoint: where it is, how it is asked, and how it fails."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from align.config import Config, Seed
from align.errors import StageError
from align.redact import check_url, hide, redact, remember

if TYPE_CHECKING:
    from openai import OpenAI


@dataclass(frozen=True)
class Question:
    """What is asked about a row."""

    row_id: str
    text: str


@dataclass(frozen=True)
class Answer:
    """What came back, without the key, and the tokens read and written for it."""

    text: str
    tokens: int


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message


class _Usage(BaseModel):
    total_tokens: int | None = None


class _Reply(BaseModel):
    """The part of a chat completion that is used: the client's own types hold whatever an endpoint sends."""

    choices: list[_Choice]
    usage: _Usage | None = None


Ask = Callable[[Sequence[Question]], Iterator[Answer]]


class Endpoint(Config):
    """The settings that whatever asks a model shares. The key itself is never part of them, nor of an answer."""

    failure: ClassVar[str] = "{model} at {base_url} failed for row {row_id}"

    base_url: str
    """The endpoint, such as http://localhost:8000/v1."""
    model: str
    """The model's name at the endpoint."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; endpoints of one's own usually need none."""
    max_tokens: int = Field(default=1024, ge=1)
    """Longest answer, in tokens."""
    concurrency: int = Field(default=8, ge=1)
    """Requests in flight."""
    attempts: int = Field(default=5, ge=1)
    """Tries per request, with exponential backoff, for errors that may pass (429, 5xx, connection, timeout)."""
    timeout: float = Field(default=120.0, gt=0)
    """Seconds that one request may take."""
    seed: Seed = 0
    """Seed for endpoints that take one; the temperature is 0."""

    @model_validator(mode="after")
    def _safe(self) -> "Endpoint":
        check_url("base_url", self.base_url)
        remember(self.api_key_env)
        return self

    @contextmanager
    def asking(self) -> Iterator[Ask]:
        """A function that asks questions, `concurrency` at once, and yields the answers in their order.

        It raises StageError naming the row for which the endpoint refused or kept failing; leaving by an exception
        asks nothing more.
        """
        from openai import OpenAI

        key = os.environ.get(self.api_key_env) or "none"
        with (
            OpenAI(base_url=self.base_url, api_key=key, timeout=self.timeout, max_retries=self.attempts - 1) as client,
            ThreadPoolExecutor(self.concurrency) as threads,
        ):
            try:
                yield lambda questions: threads.map(lambda question: self._ask(client, question), questions)
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                raise

    def _ask(self, client: "OpenAI", question: Question) -> Answer:
        from openai import OpenAIError

        try:
            body = client.chat.completions.with_raw_response.create(
                model=self.model, messages=[{"role": "user", "content": question.text}],
                temperature=0, max_tokens=self.max_tokens, seed=self.seed,
            ).content  # fmt: skip
        except OpenAIError as error:
            raise self._failed(question, str(error)) from error
        try:
            reply = _Reply.model_validate_json(body)
        except ValidationError as error:
            shown = body[:200].decode(errors="replace")
            raise self._failed(question, f"what came back is no chat completion: {shown}") from error
        text = (reply.choices[0].message.content or "") if reply.choices else ""
        text = hide(text, os.environ.get(self.api_key_env, ""))  # of one that repeats its header
        used = reply.usage.total_tokens if reply.usage else None
        guess = (len(question.text) + len(text)) // 3  # where an endpoint does not say what it used
        return Answer(text, guess if used is None else used)

    def _failed(self, question: Question, reason: str) -> StageError:
        where = self.failure.format(model=self.model, base_url=self.base_url, row_id=question.row_id)
        return StageError(f"{where}: {redact(' '.join(reason.split()))[:300]}")


def fill(template: str, **values: str) -> str:
    """The template with its placeholders filled in one pass: text that is put in is never searched for placeholders."""
    return re.sub(rf"\{{({'|'.join(values)})\}}", lambda m: values[m.group(1)], template)
