"""How graded responses of one prompt are combined into preference pairs, and which of those are left out."""

import json
from collections.abc import Iterator, Mapping, Sequence
from math import lcm
from typing import Any, Literal
from unicodedata import normalize

import numpy as np

from align.text import digest, normalise

Pair = dict[str, Any]
Strategy = Literal["best_vs_worst", "best_vs_random", "all"]


def pair_of(
    row: Mapping[str, Any],
    chosen: Mapping[str, Any],
    rejected: Mapping[str, Any],
    labelled_by: str,
    margin: float | None,
    held_out: bool,
) -> Pair:
    """A pair (PAIRS) of two responses to a row, each with text and, where it was drawn, sample_id."""
    return {
        "pair_id": digest(row["row_id"], chosen["text"], rejected["text"]), "row_id": row["row_id"],
        "chosen_id": chosen["sample_id"], "rejected_id": rejected["sample_id"], "messages": row["messages"],
        "chosen": chosen["text"], "rejected": rejected["text"], "margin": margin, "labelled_by": labelled_by,
        "held_out": held_out, "source": row.get("source"), "category": category_of(row),
    }  # fmt: skip


def category_of(row: Mapping[str, Any]) -> str | None:
    """What a row's column category, or subset (RewardBench), says; None where it has neither."""
    try:
        meta = json.loads(row.get("meta") or "{}")
    except ValueError:
        return None
    said = next((meta[k] for k in ("category", "subset") if isinstance(meta, dict) and k in meta), None)
    return said if isinstance(said, str) and said.strip() else None


def is_held_out(row: Mapping[str, Any], share: float, seed: int) -> bool:
    """Whether a row's prompt is in the share, by hash, whose pairs measure instead of training."""
    return int(digest(str(seed), "held out", normalise(row["prompt"])), 16) / 16**16 < share


def combine(
    strategy: Strategy,
    min_margin: float,
    best: Sequence[tuple[Any, float]],
    worst: Sequence[tuple[Any, float]],
    rng: np.random.Generator,
) -> Iterator[tuple[Any, Any, float]]:
    """(chosen, rejected, margin) of responses with their scores, each combination once, used as evenly as possible."""
    best, worst = [best[i] for i in rng.permutation(len(best))], [worst[i] for i in rng.permutation(len(worst))]
    if not best or not worst:
        return
    top, bottom = max(score for _, score in best), min(score for _, score in worst)
    if strategy != "all":
        best = [r for r in best if r[1] == top]
    if strategy == "best_vs_worst":
        worst = [r for r in worst if r[1] == bottom]
    round_trip = lcm(len(best), len(worst))  # walking both lists in step, shifted by one after every round
    order = [(best[i % len(best)], worst[(i + i // round_trip) % len(worst)]) for i in range(len(best) * len(worst))]
    found = [(chosen, rejected, cs - rs) for (chosen, cs), (rejected, rs) in order if cs - rs > min_margin]
    yield from sorted(found, key=lambda p: -p[2]) if strategy == "all" else found


def overruled(made: Sequence[Pair], imported: Sequence[Pair]) -> tuple[list[Pair], int]:
    """The pairs of samples without those of two responses between which an imported pair decides, so that nothing is
    trained on both ways; and how many went."""
    decided = {_contest(p) for p in imported}
    left = [p for p in made if _contest(p) not in decided]
    return left, len(made) - len(left)


def _contest(pair: Pair) -> tuple[tuple[tuple[str, str], ...], frozenset[str]]:
    """The turns and the two responses, as ingest would have them."""
    turns = tuple((m["role"], normalize("NFC", m["content"])) for m in pair["messages"])
    return turns, frozenset(normalize("NFC", pair[side].strip()) for side in ("chosen", "rejected"))


def sift(
    made: Sequence[Pair], max_similarity: float, balance_length: bool, seed: int
) -> tuple[list[Pair], dict[str, int]]:
    """The pairs without those that are nearly identical and, of those to train on, balanced by length; and how many
    went for which reason."""
    counts: dict[str, int] = {}
    left = list(made)
    if max_similarity < 1:
        left = [p for p in made if similarity(p["chosen"], p["rejected"]) <= max_similarity]
        counts["dropped.similar"] = len(made) - len(left)
    if balance_length:
        longer, shorter = (
            sorted((p for p in left if not p["held_out"] and sign * (len(p["chosen"]) - len(p["rejected"])) > 0),
                   key=lambda p: digest(str(seed), p["pair_id"]))
            for sign in (1, -1)
        )  # fmt: skip
        few = min(len(longer), len(shorter))
        gone = {p["pair_id"] for p in [*longer[few:], *shorter[few:]]}
        left = [p for p in left if p["pair_id"] not in gone]
        counts["dropped.length"] = len(gone)
    return left, counts


def similarity(a: str, b: str) -> float:
    """Share of the word triples of two texts that are in both (Jaccard); of texts of fewer words, of their words."""
    size = min(3, len(a.split()), len(b.split())) or 1
    first, second = ({tuple(w[i : i + size]) for i in range(len(w) - size + 1)} for w in (a.split(), b.split()))
    return len(first & second) / (len(first | second) or 1)


def about_lengths(made: Sequence[Pair], tokens: Mapping[str, int]) -> dict[str, float]:
    """How chosen and rejected responses differ in length: what a reward model must not learn instead of quality."""
    metrics = {
        f"{side}.characters.mean": sum(len(p[side]) for p in made) / len(made) for side in ("chosen", "rejected")
    }
    metrics["chosen.longer.share"] = sum(len(p["chosen"]) > len(p["rejected"]) for p in made) / len(made)
    both = [p for p in made if p["chosen_id"] in tokens and p["rejected_id"] in tokens]
    for side in ("chosen", "rejected") if both else ():
        metrics[f"{side}.tokens.mean"] = sum(tokens[p[f"{side}_id"]] for p in both) / len(both)
    return metrics


def nothing(origin: str, judged: bool, counts: Mapping[str, int], held_out: int) -> str:
    """Why there is no pair to train on, and what to do."""
    if held_out:
        return f"All {held_out} pairs are held out, none is left to train on; lower pairs.held_out or add prompts."
    told = []
    if judged and origin != "imported":
        told.append(f"of {counts['prompts']} prompts the judge decided no pair (it saw {counts['judge.tie']} ties)")
    elif origin != "imported":
        told.append(
            f"of {counts['prompts']} prompts {counts['prompts.all_correct']} have only correct responses, "
            f"{counts['prompts.all_wrong']} only wrong ones, {counts['prompts.ungraded']} none that was graded, and "
            f"{counts['prompts.no_margin']} none that may be paired "
            f"({counts['truncated']} of {counts['samples']} samples are truncated)"
        )
    if origin != "samples":
        told.append(
            f"of {counts['imported.read']} preference rows {counts['imported.empty']} are empty and "
            f"{counts['imported.identical']} prefer nothing, and {counts['imported.labels']} are labels of single "
            "responses, from which dpo learns with loss_type kto, but no reward model"
        )
    if dropped := counts["dropped.similar"] + counts["dropped.length"]:
        told.append(f"{dropped} pairs were dropped by max_similarity and balance_length")
    if origin == "imported":
        advice = "add a source with use: preferences"
    elif counts["ungraded"] == counts["samples"] > 0:
        advice = "set pairs.grader"
    else:
        advice = "change sample.temperature, raise sample.n, or train the policy further before sampling"
    return f"0 pairs: {'; '.join(told)}. To get some, {advice}."
