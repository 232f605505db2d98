"""Preference pairs as tokens, for reward and dpo: the same prompt, then the chosen and the rejected response."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.lib import training
from tasks.lib.chat import Chat
from tasks.lib.errors import StageError
from tasks.lib.training import Training


@dataclass(frozen=True)
class Pair:
    """Token ids of both conversations, each up to its end-of-turn token; the first `prompt` tokens are shared."""

    pair_id: str
    prompt: int
    chosen: list[int]
    rejected: list[int]
    held_out: bool

    @property
    def length(self) -> int:
        return max(len(self.chosen), len(self.rejected))


def encode(
    chat: Chat, table: Sequence[dict[str, Any]], config: Training, out: Path
) -> tuple[list[Pair], dict[str, int]]:
    """The pairs of a PAIRS table as tokens, and how many were read and dropped, as metrics.

    Pairs with an empty or an identical response and pairs longer than max_length are dropped and counted
    (dropped.parquet). Raises StageError if too many are too long, or no pair is left.
    """
    table = table[: config.limit]
    reasons = {r["pair_id"]: reason for r in table if (reason := _fault(r))}
    sound = [r for r in table if r["pair_id"] not in reasons]
    chosen = chat.examples([r["messages"] for r in sound], [r["chosen"] for r in sound])
    rejected = chat.examples([r["messages"] for r in sound], [r["rejected"] for r in sound])
    ids = [r["pair_id"] for r in sound]
    training.check_ends(chat, [e.ids[-1] for e in chosen], ids)
    training.check_ends(chat, [e.ids[-1] for e in rejected], ids)
    pairs = [
        Pair(r["pair_id"], min(c.prompt, d.prompt), c.ids, d.ids, bool(r["held_out"]))
        for r, c, d in zip(sound, chosen, rejected, strict=True)
    ]
    faulty = [(i, reason, None) for i, reason in reasons.items()]
    kept = training.within_length(ids, [p.length for p in pairs], config, "pairs", out, faulty)
    counts = {
        "pairs.read": len(table),
        "pairs.too_long": len(pairs) - len(kept),
        "pairs.faulty": len(faulty),
    }
    if not any(not pairs[i].held_out for i in kept):
        raise StageError(f"There are 0 pairs to train on ({len(table)} were read).")
    return [pairs[i] for i in kept], counts


def _fault(row: dict[str, Any]) -> str | None:
    if not (row["chosen"] or "").strip() or not (row["rejected"] or "").strip():
        return "empty response"
    if row["chosen"] == row["rejected"]:
        return "identical responses"
    return None
