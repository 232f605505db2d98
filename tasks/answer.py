"""What one policy answers to the evaluation items: what it writes, greedily and by sampling, and what it finds likely.
Nothing is graded here."""

from pathlib import Path
from typing import Any

from align import tables
from align.answering import chosen, expected, written
from align.config import Metrics
from align.errors import StageError
from align.grading.suites import OTHERS, Asked, Items, items
from align.models.base import BaseConfig, load_chat
from align.models.benchmarks import Benchmarks, benchmarked
from align.models.control import broken
from align.models.engine import Policy, Sampling
from align.models.lone import about_lone
from align.models.trained import is_reward_model


class AnswerConfig(Sampling):
    """Settings of answer: those of evaluate that decide what is drawn."""

    suites: dict[str, Asked]
    """What is asked of each suite."""
    n: int
    """Samples per item besides the greedy response."""
    benchmarks: Benchmarks = Benchmarks()
    """Tasks of lm-evaluation-harness."""


def answer(
    config: AnswerConfig,
    out: Path,
    *,
    base: BaseConfig,
    rows: Path,
    adapter: Path | None = None,
    cache: Path | None = None,
) -> Metrics:
    """Draw the answers of `base`, with `adapter` (a training stage's artifact), to the evaluation items of `rows`.

    Writes answers.parquet, with a row for every item and draw, also where a prompt leaves no room to answer, and of
    multiple-choice suites options.parquet. Draws are kept per item in the directory `cache`. Raises StageError if there
    is no item, an item has not what its suite's kind needs, or the adapter is a reward model.
    """  # fmt: skip
    config.check()
    limits, public = {name: asked.limit for name, asked in config.suites.items()}, bool(config.benchmarks.tasks)
    suites, counted = items(limits, rows, config.seed, may_be_none=public)
    told = {suite: config.suites.get(suite) or config.suites[OTHERS] for suite in suites}
    _check_policy(adapter)
    conversations = {i: row["messages"] for some in suites.values() for i, row in some.items()}
    chat = load_chat(base)
    lost = {i: why for i, messages in conversations.items() if (why := chat.lost(messages))}
    modes = [("greedy", config.greedy()), *([("sampled", config.sampling)] if config.n else [])]

    def of(kind: str) -> Items:
        return {suite: some for suite, some in suites.items() if told[suite].kind == kind}

    answers: list[dict[str, Any]] = []
    with Policy(base, adapter, cache) as policy:
        scored, options = chosen(policy, config.greedy(), chat, of("multiple_choice"), told)
        scored += expected(policy, config.greedy(), chat, of("perplexity"), lost)
        if public:
            plain = config.greedy().model_copy(update={"engine": "transformers"})
            scored += benchmarked(config.benchmarks, policy, plain)
        if config.drawn_by != "transformers":
            policy.close()  # the servers want the device
        for mode, sampling in modes:
            turns = {suite: told[suite].turns for suite in of("generate")}
            answers += written(policy, sampling, mode, of("generate"), turns, lost) if turns else ()
            answers += ({**row, "mode": mode} for row in scored)
    tables.write(out / "answers.parquet", answers, tables.ANSWERS)
    if of("multiple_choice"):
        tables.write(out / "options.parquet", options, tables.OPTIONS)
    given = [a for a in answers if a["response"] is not None]
    return {
        **counted,
        "answers": len(answers),
        "answers.truncated": sum(a.get("finish_reason") == "truncated" for a in given),
        "answers.no_room": sum(a["response"] is None and a["row_id"] not in lost for a in answers),
        **({"items.faulty": len(lost), "items.faulty.reason": next(iter(lost.values()))} if lost else {}),
        "answers.reasoning": sum(a.get("reasoning") is not None for a in given),
        **broken(chat.control, list(conversations), list(conversations.values()), out=out),
        **about_lone(chat.lone_system, list(conversations.values())),
        "tokens": sum(a["n_tokens"] for a in given),
    }


def _check_policy(adapter: Path | None) -> None:
    """StageError if the adapter scores texts instead of writing them."""
    if adapter and is_reward_model(adapter):
        raise StageError(f"{adapter.name} is a reward model; only policies are evaluated.")
