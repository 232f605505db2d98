"""Text identity: normalisation, row ids, and the split that a prompt belongs to."""

import hashlib
import re
import unicodedata

SPLITS = ("sft", "preference", "rejection", "evaluation")

_NOT_WORD = re.compile(r"[^\w]+", re.UNICODE)


def normalise(text: str) -> str:
    """Casefolded NFKC text whose punctuation and white space are single spaces: what 'the same prompt' means."""
    return _NOT_WORD.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def digest(*parts: str, length: int = 16) -> str:
    """A hex id of `length` digits over the parts, in order; parts cannot run into each other."""
    h = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        h.update(len(data).to_bytes(8, "big") + data)
    return h.hexdigest()[:length]


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
