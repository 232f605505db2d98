"""Text identity: normalisation, row ids, and the split that a prompt belongs to."""

import hashlib
import heapq
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

SPLITS = ("sft", "preference", "rejection", "evaluation")

# Control characters but tab and line feed, lone surrogates, and what turns the direction of writing.
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_NOT_WORD = re.compile(r"[^\w]+", re.UNICODE)


def normalise(text: str) -> str:
    """Casefolded NFKC text whose punctuation and white space are single spaces: what 'the same prompt' means."""
    return _NOT_WORD.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def question_of(messages: Sequence[Mapping[str, str]]) -> list[str]:
    """What a conversation asks, as parts that are equal where it is the same: its normalised words, and its tools."""
    tools = [f"{k}:{v}" for m in messages for k, v in m.items() if k not in ("role", "content")]
    return [*(normalise(m["content"]) for m in messages), *tools]


def printable(text: str) -> str:
    """The text with what would command a terminal instead of being read there written out: \\x1b, \\u202e."""
    return UNPRINTABLE.sub(lambda found: ascii(found.group())[1:-1], text)


def quote(text: object, most: int = 80) -> str:
    """What somebody wrote, text in quotes, and not too long, whatever it holds."""
    shown = repr(text) if isinstance(text, str) else str(text)
    return shown if len(shown) <= most else f"{shown[: most - 3]}..."


def short(text: object, most: int = 120) -> str:
    """A path or a setting in a message, not too long."""
    shown = str(text)
    return shown if len(shown) <= most else f"{shown[: most - 3]}..."


def digest(*parts: str, length: int = 16) -> str:
    """A hex id of `length` digits over the parts, in order; parts cannot run into each other."""
    h = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        h.update(len(data).to_bytes(8, "big") + data)
    return h.hexdigest()[:length]


def taken(ids: Iterable[str], limit: int | None, seed: int) -> list[int]:
    """Positions, in order, of the ids that a limit takes: those whose hashes with the seed are lowest.

    A larger limit keeps what a smaller one chose, and no source is preferred for standing first. None takes all.
    """
    if limit is None:
        return [at for at, _ in enumerate(ids)]
    # a word of its own in the hash: where a source was thinned out by hash before, its rows must not come first here
    return sorted(
        at for _, at in heapq.nsmallest(limit, ((digest(str(seed), "limit", i), at) for at, i in enumerate(ids)))
    )


def split_of(prompt: str, fractions: dict[str, float], seed: int) -> str:
    """The split of a prompt: a function of its normalised text alone, so that copies never straddle two splits.

    `fractions` maps split names to shares that sum to 1; the order of the mapping matters.
    """
    u = int(digest(str(seed), normalise(prompt)), 16) / 16**16
    for name, share in fractions.items():
        u -= share
        if u < 0:
            return name
    return list(fractions)[-1]
