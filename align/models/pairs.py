"""Preference pairs as tokens, for reward, reference and dpo: one prompt, then the chosen and the rejected response."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from align.config import Metrics
from align.errors import StageError
from align.models import training
from align.models.control import broken
from align.models.example import Example
from align.models.reader import Reader
from align.text import taken


@dataclass(frozen=True)
class Pair:
    """Both conversations up to their end-of-turn tokens; `prompt` is the same in both."""

    pair_id: str
    chosen: Example
    rejected: Example
    held_out: bool

    @property
    def length(self) -> int:
        return max(len(self.chosen.ids), len(self.rejected.ids))


def encode(
    chat: Reader, table: Sequence[dict[str, Any]], config: training.Lengths, out: Path
) -> tuple[list[Pair], Metrics]:
    """The pairs of a PAIRS table as tokens, and how many were read and dropped, as metrics.

    Pairs with an empty or an identical response and pairs longer than max_length are dropped and counted
    (dropped.parquet). Raises StageError if too many are too long, or no pair is left.
    """
    table = [table[at] for at in taken([r["pair_id"] for r in table], config.limit, config.seed)]
    reasons = {r["pair_id"]: reason for r in table if (reason := _fault(r) or chat.lost(r["messages"], r["chosen"]))}
    sound = [r for r in table if r["pair_id"] not in reasons]
    conversations, better, worse = ([r[name] for r in sound] for name in ("messages", "chosen", "rejected"))
    chosen, rejected = chat.examples(conversations, better), chat.examples(conversations, worse)
    ids = [r["pair_id"] for r in sound]
    training.check_ends(chat, [e.ids[-1] for e in chosen], ids)
    training.check_ends(chat, [e.ids[-1] for e in rejected], ids)
    pairs = [_pair(r, c, d) for r, c, d in zip(sound, chosen, rejected, strict=True)]
    faulty = [(i, reason, None) for i, reason in reasons.items()]
    kept = training.within_length(ids, [p.length for p in pairs], config, "pairs", out, faulty)
    counts: Metrics = {
        "pairs.read": len(table),
        "pairs.too_long": len(pairs) - len(kept),
        "pairs.faulty": len(faulty),
        **broken(chat.control, ids, conversations, better, worse, out=out),
    }
    if not any(not pairs[i].held_out for i in kept):
        raise StageError(f"There are 0 pairs to train on ({len(table)} were read).")
    return [pairs[i] for i in kept], counts


def _pair(row: dict[str, Any], chosen: Example, rejected: Example) -> Pair:
    """Both responses start where their tokens, or the generation prompt's, begin to differ."""
    prompt = min(chosen.prompt, rejected.prompt)
    return Pair(row["pair_id"], replace(chosen, prompt=prompt), replace(rejected, prompt=prompt), bool(row["held_out"]))


def _fault(row: dict[str, Any]) -> str | None:
    if not (row["chosen"] or "").strip() or not (row["rejected"] or "").strip():
        return "empty response"
    if row["chosen"] == row["rejected"]:
        return "identical responses"
    return None
