"""The labels file: a line of JSON for each pair that somebody judged, with everybody's verdicts on it.

`chosen` and `rejected` of a line are what more than half of its judges prefer, so that a preference source reads the
file as it is: each pair once at most, and never a verdict that was taken back. Where there is no such majority both
are null, and ingest sets the line aside. The file is replaced as a whole, under a lock: readers never see half of it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from align import whole
from align.config import Config
from align.errors import InputError
from align.labelling.contests import Asked, Place
from align.text import short

Winner = Literal["first", "second", "tie", "skip"]
Turns = list[dict[str, str]]
_BEGINNING = b'{"pair_id":'


class Verdict(Config):
    """What one person said of a pair."""

    by: str
    """The annotator."""
    winner: Winner
    """The better response; tie: neither is; skip: no verdict, and the pair is not asked again."""
    left: Place
    """The response that stood on the left."""
    at: str
    """When, in UTC."""


class Judged(Config):
    """One line of the file."""

    pair_id: str
    row_id: str
    """The row of the run whose prompt was answered."""
    prompt: Turns
    """The turns before the response."""
    chosen: Turns | None
    """The assistant's turn that most prefer; null where no side has more than half of the verdicts."""
    rejected: Turns | None
    """The other one."""
    responses: tuple[str, str]
    """The first and the second."""
    sample_ids: tuple[str, str]
    verdicts: tuple[Verdict, ...]
    """At most one of each annotator."""


def judged(pair: Asked | Judged, verdicts: Iterable[Verdict]) -> Judged:
    """The line of a pair with these verdicts, of which the last of each annotator counts."""
    last = {v.by: v for v in verdicts}
    said = Counter(v.winner for v in last.values() if v.winner != "skip")
    sides: list[Turns | None] = [[{"role": "assistant", "content": text}] for text in pair.responses]
    chosen = rejected = None
    if 2 * said["first"] > said.total():
        chosen, rejected = sides
    elif 2 * said["second"] > said.total():
        rejected, chosen = sides
    return Judged(
        pair_id=pair.pair_id, row_id=pair.row_id, prompt=pair.prompt, chosen=chosen, rejected=rejected,
        responses=pair.responses, sample_ids=pair.sample_ids, verdicts=tuple(last.values()),
    )  # fmt: skip


class Labels:
    """A labels file that any number of processes write to."""

    def __init__(self, path: Path):
        """Opens the file, which need not exist, and mends it where it was joined from several, edited or cut off.

        Raises InputError where it is no labels file, which is then left as it is, or cannot be written.
        """
        if path.suffix != ".jsonl":
            raise InputError(f"{short(path)}: a labels file is JSON lines; name one that ends with .jsonl.")
        self.path = path.resolve()
        self.name = short(path)
        self.cut_off = False
        """Whether the last line was cut off when the file was opened; what was left of it is gone."""
        try:
            with self._locked():
                for left in self.path.parent.iterdir():  # of writers that were killed: the lock is ours
                    if whole.is_draft(left) and left.name.startswith(f".{self.path.name}."):
                        left.unlink(missing_ok=True)
                raw = self._raw()
                found, self.cut_off = self._parsed(raw)
                if raw != _lines(found):
                    whole.write(self.path, _lines(found), durable=True)
        except OSError as error:
            reason = error.strerror
            raise InputError(f"{self.name} cannot be written ({reason}); name another file with --to.") from None

    def read(self) -> dict[str, Judged]:
        """The lines by pair. A last line that was cut off is passed over; raises InputError for any other flaw."""
        return self._parsed(self._raw())[0]

    def _parsed(self, raw: bytes) -> tuple[dict[str, Judged], bool]:
        """The lines by pair, and whether the last one was cut off."""
        found: dict[str, Judged] = {}
        *ended, last = raw.split(b"\n")
        for number, line in enumerate([*ended, last] if last else ended, 1):
            try:
                new = Judged.model_validate_json(line)
            except ValidationError as error:
                if number > len(ended) and line.startswith(_BEGINNING[: len(line)]):
                    return found, True
                reason = short(error.errors()[0]["msg"])
                raise InputError(
                    f"{self.name}:{number} is no line of a labels file ({reason}); name another file with --to."
                ) from None
            known = found.get(new.pair_id)
            verdicts = sorted([*known.verdicts, *new.verdicts], key=lambda v: v.at) if known else new.verdicts
            found[new.pair_id] = judged(new, verdicts)
        return found, False

    def put(self, pair: Asked, by: str, winner: Winner, left: Place) -> None:
        """Add a verdict, in place of an earlier one by the same person. It is on the disk when this returns."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        verdict = Verdict(by=by, winner=winner, left=left, at=at)

        def change(found: dict[str, Judged]) -> None:
            known = found.get(pair.pair_id)
            found[pair.pair_id] = judged(pair, [*(known.verdicts if known else ()), verdict])

        self._change(change)

    def take_back(self, pair_id: str, by: str) -> None:
        """Remove somebody's verdict on a pair, and the line where nobody else judged it."""

        def change(found: dict[str, Judged]) -> None:
            if known := found.pop(pair_id, None):
                others = [v for v in known.verdicts if v.by != by]
                if others:
                    found[pair_id] = judged(known, others)

        self._change(change)

    def _change(self, change: Callable[[dict[str, Judged]], None]) -> None:
        with self._locked():
            found = self.read()
            change(found)
            whole.write(self.path, _lines(found), durable=True)

    def _locked(self) -> AbstractContextManager[None]:
        return whole.locked(self.path.with_name(f".{self.path.name}.lock"))

    def _raw(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""


def _lines(found: Mapping[str, Judged]) -> bytes:
    return b"".join(line.model_dump_json().encode() + b"\n" for line in found.values())
