"""Drawing through servers (models.servers): the merged policy is written down, served, checked and asked.

Before the first draw the servers answer some prompts greedily, and so does the policy itself: answers and, where the
servers tell them, log-probabilities must be the same up to rounding. Another template, another stop token or other
weights would be graded as if they were the policy's (Yao et al., 2025, on engines that differ from what is trained).
"""

import itertools
import os
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from align.errors import StageError
from align.models.base import BaseConfig, load_chat
from align.models.draws import key
from align.models.engine import Done, Prompt, Sample, Sampling, nothing, sample_of, with_room
from align.models.generate import Sampler
from align.models.memory_inference import release
from align.models.plain import write
from align.models.servers import Server, Servers
from align.models.tools import for_api
from align.progress import Progress
from align.redact import redact

PROBES, PROBE_TOKENS = 16, 64  # answers that are compared, and their longest
ALIKE = 0.5  # share of the tokens of both that must agree before they part: one that differs changes all after it


class Served:
    """A policy behind servers, ready to draw from."""

    def __init__(self, base: BaseConfig, adapter: Path | None, config: Server):
        self._base, self._adapter, self._config = base, adapter, config
        self.chat = load_chat(base)
        self.context = 0
        self._open = ExitStack()
        self._servers: Servers | None = None

    def close(self) -> None:
        """End the servers that were started."""
        self._open.close()
        self._servers = None

    def draw(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        *,
        first: int = 0,
        label: str = "sampling",
        too_long: list[str] | None = None,
        done: Done = nothing,
    ) -> list[Sample]:
        """Samples `first` to n - 1 of every prompt, in the order of the prompts; see Engine.draw.

        Raises StageError where the servers do not serve the policy, or a request keeps failing.
        """
        servers = self._servers or self._start(prompts)
        lengths = [len(ids) for ids in self.chat.prompts([p.messages for p in prompts])]
        fits = with_room(prompts, lengths, self.context, too_long)
        todo = [
            (i, index, min(sampling.max_new_tokens, self.context - lengths[i]))
            for i in fits for index in range(first, sampling.n)
        ]  # fmt: skip
        drawn: dict[tuple[int, int], Sample] = {}
        with Asking(servers, self.chat) as asking, Progress(len(todo), label) as progress:
            asked: dict[Future[Said], tuple[int, int]] = {
                asking.submit(prompts[i], sampling, index, room): (i, index) for i, index, room in todo
            }
            for future in as_completed(asked):
                i, index = asked[future]
                said = future.result()
                drawn[i, index] = sample_of(prompts[i].row_id, index, said.text, said.reason, said.tokens, said.thought,
                                            said.certain)  # fmt: skip
                done([drawn[i, index]])
                progress.advance(1)
        return [drawn[i, index] for i, index, _ in todo]

    def log_probabilities(self, prompts: Sequence[Prompt], texts: Sequence[str], batch_size: int = 64) -> list[float]:
        """Summed log-probability in nats of each text and the end of its turn, by the policy's own weights."""
        return Sampler(self._base, self._adapter).log_probabilities(prompts, texts, batch_size)

    def _start(self, prompts: Sequence[Prompt]) -> Servers:
        sampler = Sampler(self._base, self._adapter)
        self.context = sampler.context
        room = [p for p in prompts if len(self.chat.prompts([p.messages])[0]) + PROBE_TOKENS < self.context]
        probes = room[:: max(1, len(room) // PROBES)][:PROBES]
        greedy = Sampling(n=1, temperature=0, max_new_tokens=PROBE_TOKENS)
        ours = sampler.draw(probes, greedy, label="what the policy says")
        certain = sampler.log_probabilities(probes, [s.text for s in ours])
        folder = None
        if not self._config.base_url:
            folder = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="served"))) / "model"
            plain = sampler.model.generation_config  # what a request leaves out
            plain.do_sample, plain.temperature, plain.top_k, plain.top_p = True, 1.0, 0, 1.0
            write(sampler.model, self.chat, folder)
        del sampler
        release()  # the servers want the devices
        servers = self._open.enter_context(Servers(self._config, folder))
        with Asking(servers, self.chat) as asking:
            told = [asking.submit(p, greedy, 0, PROBE_TOKENS) for p in probes]
            theirs = [future.result() for future in told]
        compare(self.chat, ours, certain, theirs, self._config.tolerance)
        self._servers = servers
        return servers


class Said:
    """What a server answered."""

    def __init__(self, text: str, thought: str | None, reason: str, tokens: int, certain: float | None):
        self.text, self.thought, self.reason, self.tokens = text, thought, reason, tokens
        self.certain = certain
        """Summed log-probability of what was drawn, where the server tells it."""


class Asking:
    """Requests to several servers at once, each prompt to the next of them; a server that ended is started again."""

    def __init__(self, servers: Servers, chat: Any):
        self.servers, self.chat, self.config = servers, chat, servers.config
        self._turn, self._lock = itertools.count(), threading.Lock()
        self._threads = ThreadPoolExecutor(self.config.concurrency * len(servers.urls))
        self._clients: dict[str, Any] = {}

    def __enter__(self) -> "Asking":
        return self

    def __exit__(self, *raised: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for client in self._clients.values():
            client.close()

    def submit(self, prompt: Prompt, sampling: Sampling, index: int, room: int) -> "Future[Said]":
        """Ask for sample `index` of a prompt, of at most `room` tokens."""
        return self._threads.submit(self._ask, prompt, sampling, index, room)

    def _client(self, url: str) -> Any:
        from openai import OpenAI

        with self._lock:
            if url not in self._clients:
                key = os.environ.get(self.config.api_key_env) or "none"
                tries = self.config.attempts - 1
                self._clients[url] = OpenAI(base_url=url, api_key=key, timeout=self.config.timeout, max_retries=tries)
            return self._clients[url]

    def _ask(self, prompt: Prompt, sampling: Sampling, index: int, room: int) -> Said:
        from openai import APIConnectionError, OpenAIError

        at = next(self._turn) % len(self.servers.urls)
        messages, more = for_api(self.chat.clean(prompt.messages))
        more["logprobs"] = True
        if self.config.kind == "vllm":
            more["extra_body"] = {"skip_special_tokens": False, "spaces_between_special_tokens": False}
        for attempt in itertools.count(1):
            try:
                reply = self._client(self.servers.urls[at]).chat.completions.create(
                    model=self.servers.name, messages=messages, max_tokens=room,
                    temperature=sampling.temperature, top_p=sampling.top_p,
                    seed=key(sampling.seed, prompt.row_id, index) % 2**31, **more,
                )  # fmt: skip
                return self._read(prompt, reply)
            except APIConnectionError as error:
                if not self.servers.revive(at) and attempt > 1:
                    raise self._failed(prompt, error) from error
            except (OpenAIError, LookupError, AttributeError, TypeError) as error:
                raise self._failed(prompt, error) from error
        raise AssertionError

    def _read(self, prompt: Prompt, reply: Any) -> Said:
        choice = reply.choices[0]
        reason = {"stop": "stop", "length": "truncated"}[choice.finish_reason]
        ids = self.chat.tokenizer(choice.message.content or "", add_special_tokens=False)["input_ids"]
        if ids and ids[-1] == self.chat.end_id:
            ids = ids[:-1]
        ((text, thought),) = self.chat.read([ids])
        used = reply.usage.completion_tokens if reply.usage else len(ids) + (reason == "stop")
        told = choice.logprobs.content if getattr(choice, "logprobs", None) else None
        return Said(text, thought, reason, int(used), sum(t.logprob for t in told) if told else None)

    def _failed(self, prompt: Prompt, error: Exception) -> StageError:
        reason = redact(" ".join(f"{type(error).__name__}: {error}".split()))[:300]
        return StageError(f"The server of the engine failed for row {prompt.row_id}: {reason}")


def compare(chat: Any, ours: Sequence[Sample], certain: Sequence[float], theirs: Sequence[Any], most: float) -> None:
    """StageError unless the servers' greedy answers are the policy's: `ours` with log-probabilities `certain`.

    They part where two tokens are nearly as likely and roundings differ, so only a share of the tokens has to agree.
    Where a server tells log-probabilities, those of equal answers may differ by `most` nats per token.
    """
    agree = total = 0
    for our, their, known in zip(ours, theirs, certain, strict=True):
        a, b = (chat.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (our.text, their.text))
        agree += next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
        total += max(len(a), len(b))
        same = our.text == their.text and our.finish_reason == their.reason == "stop" and our.reasoning is None
        if same and their.certain is not None:
            apart = abs(known - their.certain) / our.n_tokens
            if apart > most:
                raise StageError(
                    f"The server does not serve the policy as it is graded: of row {our.row_id} it gives the same "
                    f"answer a log-probability that differs by {apart:.2g} nats a token, more than engine.tolerance."
                )
    if agree < ALIKE * total:
        told = next((o, t) for o, t in zip(ours, theirs, strict=True) if o.text != t.text)
        raise StageError(
            f"The server does not serve the policy as it is graded: its greedy answers agree in {agree} of {total} "
            f"tokens; to row {told[0].row_id} it says {told[1].text[:60]!r} instead of {told[0].text[:60]!r}. Has it "
            "the same weights, chat template and stop token?"
        )
