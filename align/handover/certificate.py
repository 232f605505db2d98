"""Whether an export is the policy that was graded: loaded by others, it answers evaluation items and is graded again.

What loads it is a process of plain transformers (plain_worker.py) and, where one is installed, a server with OpenAI's
chat completions. Differences are paired with the answers that were graded, item by item.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from align.errors import StageError
from align.handover import plain_worker
from align.models.chat import Chat, Example, Message, common_prefix
from align.models.served import PROBE_TOKENS
from align.paired import paired_difference
from align.parent import end_with_parent
from align.progress import Progress
from align.text import short, taken

SCORED = 32  # answers whose log-probabilities are compared


@dataclass(frozen=True)
class Held:
    """An evaluation item and the greedy answer to it that was graded."""

    suite: str
    row_id: str
    messages: list[Message]
    response: str
    score: float | None

    @property
    def name(self) -> str:
        """What tells it from the items of all suites."""
        return f"{self.suite}/{self.row_id}"


Grade = Callable[[Sequence[Held], Sequence[str]], list[float | None]]
"""The scores that the run's graders give to other answers to the items; None where ungraded."""


def choose(held: Sequence[Held], n: int, seed: int = 0) -> list[Held]:
    """At most `n` items, chosen by hash."""
    return [held[at] for at in taken([h.name for h in held], n, seed)]


class Certificate:
    """What is known of the policy before it is exported, and what others make of the export.

    `held` are the items; `look` is called with the policy as it was graded.
    """

    def __init__(self, held: Sequence[Held], grade: Grade, max_new_tokens: int):
        self.held, self.grade, self.max_new_tokens = list(held), grade, max_new_tokens
        self._examples: list[Example] = []
        self._certain: list[list[float]] = []
        self._prompts: list[list[int]] = []
        self._context = 0
        self._chat: Chat
        self.dtype = ""

    def look(self, model: Any, chat: Chat) -> None:
        """Keep the log-probabilities that the graded policy gives its answers, and how it was asked."""
        self._chat, self.dtype = chat, str(model.dtype).removeprefix("torch.")
        self._context = int(getattr(model.config.get_text_config(), "max_position_embeddings", 0) or 1 << 30)
        self._prompts = chat.prompts([h.messages for h in self.held])
        scored = self.held[:SCORED]
        self._examples = chat.examples([h.messages for h in scored], [h.response for h in scored])
        self._certain = [log_probabilities(model, example) for example in self._examples]

    def plain(self, folder: Path, form: str) -> dict[str, Any]:
        """What plain transformers makes of the directory. StageError where it cannot load it, or fails."""
        about, prompts, answers, scored = self._ask(folder, form)
        said = [self._chat.read([answers[i]["ids"]])[0][0] for i in range(len(self.held))]
        return {
            **about,
            "prompts_alike": sum(a == b for a, b in zip(prompts, self._prompts, strict=True)),
            "ended": sum(a["stopped"] for a in answers.values()),
            **self.compare(said),
            "drift": drift(self._certain, scored),
        }

    def compare(self, said: Sequence[str]) -> dict[str, Any]:
        """Other answers to the items beside those that were graded."""
        scores = self.grade(self.held, said)
        ours = {h.name: h.score for h in self.held if h.score is not None}
        theirs = {h.name: s for h, s in zip(self.held, scores, strict=True) if s is not None}
        both = sorted(ours.keys() & theirs.keys())
        found: dict[str, Any] = {
            "items": len(self.held),
            "same_text": sum(h.response == s for h, s in zip(self.held, said, strict=True)) / len(self.held),
            "same_tokens": self._alike(said),
            "graded": len(both),
        }
        if both:
            d = paired_difference(theirs, ours)
            found |= {
                "mean_exported": sum(theirs[i] for i in both) / len(both),
                "mean_graded": sum(ours[i] for i in both) / len(both),
                "difference": d.value, "low": d.low, "high": d.high, "differ": d.differ, "p_exact": d.p,
                "verdict": d.verdict,
            }  # fmt: skip
        return found

    def _alike(self, said: Sequence[str]) -> float:
        """The share of the first PROBE_TOKENS of all answers that is the same before they part."""
        same = total = 0
        for held, text in zip(self.held, said, strict=True):
            a, b = (self._chat.tokenizer(t, add_special_tokens=False)["input_ids"] for t in (held.response, text))
            same += common_prefix(a[:PROBE_TOKENS], b[:PROBE_TOKENS])
            total += min(PROBE_TOKENS, max(len(a), len(b)))
        return same / total if total else 1.0

    def room(self, at: int) -> int:
        """The most tokens of an answer to item `at`."""
        return max(1, min(self.max_new_tokens, self._context - len(self._prompts[at])))

    @property
    def chat(self) -> Chat:
        return self._chat

    def _ask(self, folder: Path, form: str) -> tuple[dict[str, Any], list[Any], dict[int, Any], list[Any]]:
        request = {
            "model": str(folder.resolve()), "form": form, "dtype": self.dtype, "max_new_tokens": self.max_new_tokens,
            "asked": [{"messages": h.messages, "room": self.room(i)} for i, h in enumerate(self.held)],
            "scored": [{"ids": e.ids, "prompt": e.prompt} for e in self._examples],
        }  # fmt: skip
        about: dict[str, Any] = {}
        prompts: list[Any] = []
        answers: dict[int, Any] = {}
        scored: list[Any] = []
        with TemporaryFile() as words, Progress(len(self.held), "answers of the export") as progress:
            words.write(json.dumps(request).encode())
            words.seek(0)
            with TemporaryFile() as log:
                child = subprocess.Popen(
                    [sys.executable, "-I", plain_worker.__file__],
                    stdin=words, stdout=subprocess.PIPE, stderr=log, preexec_fn=end_with_parent,  # noqa: PLW1509
                )  # fmt: skip
                try:
                    assert child.stdout is not None
                    for line in child.stdout:
                        told = json.loads(line)
                        value = told["value"]
                        if told["kind"] == "about":
                            about = value
                        elif told["kind"] == "prompt":
                            prompts.append(value)
                        elif told["kind"] == "answer":
                            answers[value["at"]] = value
                            progress.advance()
                        else:
                            scored.append(value)
                    status = child.wait()
                finally:
                    child.kill()
                    child.wait()
                log.seek(0)
                said = [line.strip() for line in log.read().decode(errors="replace").split("\n") if line.strip()]
        if status:
            last = short(said[-1] if said else "it said nothing", 300)
            raise StageError(f"Plain transformers could not use the export (status {status}): {last}")
        return about, prompts, answers, scored


def log_probabilities(model: Any, example: Example) -> list[float]:
    """The log-probability in nats of each token of a response, the end-of-turn token among them."""
    import torch

    ids = torch.tensor([example.ids], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float().log_softmax(-1)
    found: list[float] = logits.gather(1, ids[0, 1:, None])[example.prompt - 1 :, 0].tolist()
    return found


def drift(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> dict[str, Any]:
    """How far the log-probabilities of the same tokens are apart, in nats a token."""
    apart = [abs(a - b) for one, other in zip(ours, theirs, strict=True) for a, b in zip(one, other, strict=True)]
    if not apart:
        return {"answers": 0, "tokens": 0, "max": None, "mean": None}
    return {"answers": len(ours), "tokens": len(apart), "max": max(apart), "mean": sum(apart) / len(apart)}
