"""What one policy answers to the evaluation items, greedily and by sampling. Nothing is graded here."""

from pathlib import Path
from typing import Any

from align import tables
from align.config import Metrics
from align.errors import StageError
from align.grading.suites import items
from align.models.base import BaseConfig, load_chat
from align.models.control import broken
from align.models.engine import Policy, Prompt, Sampling
from align.models.lone import about_lone
from align.models.trained import is_reward_model


class AnswerConfig(Sampling):
    """Settings of answer: those of evaluate that decide what is drawn."""

    suites: dict[str, int | None]
    """Items asked of each suite; null: all."""
    n: int
    """Samples per item besides the greedy response."""


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

    Writes answers.parquet, with a row for every item and draw, also where a prompt leaves no room to answer. Draws are
    kept per item in the directory `cache`. Raises StageError if there is no item, or the adapter is a reward model.
    """  # fmt: skip
    config.check()
    suites, counted = items(config.suites, rows, config.seed)
    _check_policy(adapter)
    prompts = [Prompt(i, row["messages"]) for asked in suites.values() for i, row in asked.items()]
    chat = load_chat(base)
    lost = {p.row_id: why for p in prompts if (why := chat.lost(p.messages))}
    modes = [("greedy", config.greedy()), *([("sampled", config.sampling)] if config.n else [])]
    answers: list[dict[str, Any]] = []
    with Policy(base, adapter, cache) as policy:
        for mode, sampling in modes:
            drawn = policy.draw(
                [p for p in prompts if p.row_id not in lost], sampling, label=f"answering ({mode})", too_long=[]
            )
            answered = {(s.row_id, s.sample_index): s for s in drawn}
            answers += [
                {
                    "suite": suite, "row_id": i, "mode": mode, "sample_index": k, "response": s and s.text,
                    "finish_reason": s and s.finish_reason, "n_tokens": s and s.n_tokens,
                    "reasoning": s and s.reasoning,
                }
                for suite, asked in suites.items() for i in asked for k in range(sampling.n)
                for s in [answered.get((i, k))]
            ]  # fmt: skip
    tables.write(out / "answers.parquet", answers, tables.ANSWERS)
    given = [a for a in answers if a["response"] is not None]
    return {
        **counted,
        "answers": len(answers),
        "answers.truncated": sum(a["finish_reason"] == "truncated" for a in given),
        "answers.no_room": sum(a["response"] is None and a["row_id"] not in lost for a in answers),
        **({"items.faulty": len(lost), "items.faulty.reason": next(iter(lost.values()))} if lost else {}),
        "answers.reasoning": sum(a["reasoning"] is not None for a in given),
        **broken(chat.control, [p.row_id for p in prompts], [p.messages for p in prompts], out=out),
        **about_lone(chat.lone_system, [p.messages for p in prompts]),
        "tokens": sum(a["n_tokens"] for a in given),
    }


def _check_policy(adapter: Path | None) -> None:
    """StageError if the adapter scores texts instead of writing them."""
    if adapter and is_reward_model(adapter):
        raise StageError(f"{adapter.name} is a reward model; only policies are evaluated.")
