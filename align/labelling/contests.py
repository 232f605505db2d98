"""Which pairs of samples people are asked about, in which order, and which response stands on the left."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from align.errors import InputError
from align.grading.judged import asked, contests
from align.text import digest

Place = Literal["first", "second"]


@dataclass(frozen=True)
class Asked:
    """Two responses to one prompt."""

    pair_id: str
    """A hash of the prompt's row and the two texts: the same in every run that drew them."""
    row_id: str
    prompt: list[dict[str, str]]
    """The turns before the response."""
    responses: tuple[str, str]
    """In the order of their letters, so that `first` means the same one in every file."""
    sample_ids: tuple[str, str]


def pairs(rows: Path, samples: Path, n: int, seed: int) -> list[Asked]:
    """A pair of complete SAMPLES that differ for each prompt in `rows` (ROWS); of these `n`, in an order by hash.

    The order is everybody's, so that what several people judged first are the same pairs, and a larger `n` adds to it.
    Raises InputError where there is no pair.
    """
    drawn, known = asked(rows, samples)
    found = []
    for a, b, contest in contests([s for s in drawn if "\0" not in s["text"]], known, 1, seed):
        a, b = sorted((a, b), key=lambda sample: str(sample["text"]))
        pair_id = digest("label", contest.row_id, a["text"], b["text"])
        turns = [{"role": m["role"], "content": m["content"]} for m in known[contest.row_id]["messages"]]
        found.append(Asked(pair_id, contest.row_id, turns, (a["text"], b["text"]), (a["sample_id"], b["sample_id"])))
    if not found:
        raise InputError(
            "No prompt of the run has two complete samples that differ; raise sample.n or sample.temperature."
        )
    return sorted(found, key=lambda pair: digest(str(seed), "order", pair.pair_id))[:n]


def left_of(pair_id: str, by: str, seed: int) -> Place:
    """Which response an annotator sees on the left: by hash, so that it stays there when the page is loaded again."""
    return "first" if int(digest(str(seed), "side", by, pair_id), 16) % 2 else "second"
