"""Grades of what a policy did not write but finds likely: the options of a question, a reference answer."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from align.config import Metrics
from align.grading.choice import LETTERS, options_of
from align.grading.grade import Grade, correct, item_of, wrong
from align.stats import item_means, mean_interval

Row = Mapping[str, Any]


def grade_option(row: Row, chosen: str, letters: bool) -> Grade:
    """The grade of the option that was chosen for a row (ROWS), by its text or its letter."""
    item = item_of(dict(row), chosen)
    options = options_of(item.row_id, item.reference, item.meta)
    texts = LETTERS[: len(options.texts)] if letters else options.texts
    at, right = texts.index(chosen), options.right
    if texts[right] == chosen:
        return correct(LETTERS[right])
    return wrong(f"{LETTERS[at]} instead of {LETTERS[right]}")


def grade_expected(text: str, logp: float, n_tokens: int) -> Grade:
    """How likely a reference was found: exp(log-probability / bytes), the geometric mean probability of its bytes.

    It lies in (0, 1] and higher is better, as every other score; by byte, so that models with other tokenizers compare.
    Two to the power of minus the bits per byte (Gao et al., 2020, The Pile). The perplexity per token is in the detail.
    """
    score = math.exp(min(0.0, logp / max(1, len(text.encode()))))
    return Grade(score, "scored", f"perplexity {perplexity(logp, n_tokens):.4g} over {n_tokens} tokens")


def perplexity(logp: float, n_tokens: int) -> float:
    """Per token, of a text of that log-probability in nats; infinite where no float holds it."""
    try:
        return math.exp(-logp / max(1, n_tokens))
    except OverflowError:
        return math.inf


def about_options(answers: Iterable[Row], at: str) -> Metrics:
    """The accuracy of the likeliest options whatever their length, with its 95 % interval, as metrics."""
    scores: dict[str, Sequence[float | None]] = {a["row_id"]: [a["score_raw"]] for a in answers}
    means = list(item_means(scores).values())
    if not means:
        return {}
    found = mean_interval(means)
    return {
        f"accuracy_raw.{at}": found.value,
        f"accuracy_raw.{at}.low": found.low,
        f"accuracy_raw.{at}.high": found.high,
    }


def about_expected(answers: Iterable[Row], at: str) -> Metrics:
    """Perplexity per token, mean negative log-likelihood per token in nats, and bits per byte, over all references."""
    known = [a for a in answers if a["logp"] is not None]
    if not known:
        return {}
    logp, tokens = math.fsum(a["logp"] for a in known), sum(a["n_tokens"] for a in known)
    size = sum(len(a["response"].encode()) for a in known)
    found = {"nll": -logp / tokens, "bits_per_byte": -logp / size / math.log(2)}
    if math.isfinite(whole := perplexity(logp, tokens)):
        found["perplexity"] = whole
    return {f"{name}.{at}": value for name, value in found.items()}
