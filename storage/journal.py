"""The journal of a bucket: what was recorded, in order, so that what is new is found without listing everything.

Entry n is whoever put an object of that number first, and nobody puts n before n - 1 is there: readers ask for what
follows the last number that they know, and miss nothing, whatever clocks say. Entries hold the records themselves. Of
many entries Parquet segments are made, which hold the rows of the index's tables (storage/index.py) up to a number, so
that a machine that sees the store for the first time reads few objects. A unit (a run, an attempt, an artifact) has the
rows of the last entry about it. `align gc` writes the segments anew, in another epoch, without what it removed.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from align import whole
from storage import files, index, layout, records
from storage.bucket import Bucket
from storage.index import Table

MANY = 256  # entries of which segments are made
_LARGEST = 16_384  # entries of a segment that is made of others: bounds the memory
_SEGMENT = re.compile(r"(\d+)/(\d+)-(\d+)-(\w+)-([0-9a-f]{16})\.parquet")
_OWN = [("_unit", pa.string()), ("_entry", pa.int64())]

RUNS = pa.schema([(n, pa.string()) for n in ("run_id", "recipe", "status", "started_at", "finished_at")])
SCHEMAS = {
    "runs": RUNS,
    **{table.name: table.schema for table in (index.STAGE_RUNS, index.ATTEMPTS, index.ARTIFACTS)},
}
STARTED = "started"


@dataclass(frozen=True)
class Segment:
    """The rows of every table from the entries after `after` up to `upto`."""

    epoch: int
    after: int
    upto: int
    objects: dict[str, str]  # table -> name


@dataclass
class State:
    """What is known of the journal."""

    segments: list[Segment] = field(default_factory=list)
    entries: dict[int, dict[str, Any]] = field(default_factory=dict)  # those that no segment holds: number -> records
    known: tuple[str, ...] = ()  # the objects of the index when it was looked at

    @property
    def end(self) -> int:
        """The number of the last entry."""
        return max([s.upto for s in self.segments[-1:]] + list(self.entries), default=0)


class Journal:
    """The journal of a bucket, with what this machine keeps of it in `cache`."""

    def __init__(self, bucket: Bucket, cache: Path):
        self.bucket, self.cache = bucket, cache
        self._state = State()
        self._next = 0

    def append(self, told: dict[str, dict[str, Any]]) -> int:
        """Add records, name to value, as one entry; its number."""
        entry = records.encode({"records": told}).encode()
        number = self._next or self._after(self._segments())
        while not self.bucket.put(_entry(number), entry):
            number = self._last(number) + 1
        self._next = number + 1
        return number

    def _after(self, segments: list[Segment]) -> int:
        return self._last(segments[-1].upto if segments else 0) + 1

    def _last(self, known: int) -> int:
        """The number of the last entry, of which `known` is not beyond the last."""
        last = known
        for found in self.bucket.below(layout.JOURNAL, after=_entry(known)):
            last = _number(found.name)
        return last

    # Reading

    def runs(self) -> list[dict[str, Any]]:
        """Every run as in runs.history, with the status `started` where no end was told."""
        found: list[dict[str, Any]] = self._rows("runs").select(RUNS.names).to_pylist()
        return found

    def table(self, wanted: Table) -> list[pa.Table | ds.Dataset]:
        """All rows of a table of the index."""
        parts = self._parts(wanted.name)
        seen = pa.concat_tables([part.to_table(columns=["_unit", "_entry"]) for part in parts])
        if _superseded(seen):
            return [self._rows(wanted.name).select(wanted.schema.names)]
        return list(parts)

    def _rows(self, table: str) -> pa.Table:
        return newest(pa.concat_tables([part.to_table() for part in self._parts(table)]))

    def _parts(self, table: str) -> list[ds.Dataset]:
        """The rows of a table, old ones of a unit included: the segments, and what came since."""
        schema = pa.schema([*SCHEMAS[table], *_OWN])
        for _ in range(5):
            state = self.sync()
            try:
                paths = self.bucket.each(self.fetched, [s.objects[table] for s in state.segments])
            except FileNotFoundError:  # removed or made part of another since it was listed
                self._state = State()
                continue
            form = ds.ParquetFileFormat()
            mapped = [form.make_fragment(pa.memory_map(str(path))) for path in paths]
            fresh = tables_of(state.entries)[table]
            return [ds.FileSystemDataset(mapped, schema, form), ds.dataset(fresh)] if mapped else [ds.dataset(fresh)]
        raise FileNotFoundError(f"{self.bucket.url}/{layout.INDEX}")

    def sync(self) -> State:
        """Look for what is new. Makes segments where that is much."""
        known = tuple(found.name for found in self.bucket.below(layout.INDEX))
        segments = cover(known) if known != self._state.known else self._state.segments
        upto = segments[-1].upto if segments else 0
        entries = {n: e for n, e in self._state.entries.items() if n > upto}
        last = max(entries, default=upto)
        new = [_number(found.name) for found in self.bucket.below(layout.JOURNAL, after=_entry(last))]
        entries |= zip(new, self.bucket.each(self._read, new), strict=True)
        self._state = State(segments, entries, known)
        if len(entries) >= MANY:
            self._compact()
        return self._state

    def _segments(self) -> list[Segment]:
        return cover(found.name for found in self.bucket.below(layout.INDEX))

    def _read(self, number: int) -> dict[str, Any]:
        """The records of an entry; one that is damaged tells nothing."""
        kept = self.cache / "entries" / f"{number}.json"
        with suppress(OSError):
            value, _ = records.parse(kept.read_bytes(), "entry")
            if value:
                return dict(value["records"])
        data = self.bucket.get(_entry(number)) or b""
        value, _ = records.parse(data, "entry")
        with suppress(OSError):
            whole.write(kept, data)
        return dict(value["records"]) if value else {}

    def fetched(self, name: str) -> Path:
        """A segment's file on this machine, with the digest that its name has."""
        path = self.cache / name.replace("/", "-")
        digest = name.rpartition("-")[2].partition(".")[0]
        for _ in range(2):
            with suppress(OSError):
                if whole.sha256(path)[:16] == digest:
                    return path
            self.bucket.download(name, path)
        return path

    # Making segments

    def _compact(self) -> None:
        """Make segments of the entries that none holds, and of those before them that are not much larger."""
        state = self._state
        epoch = state.segments[-1].epoch if state.segments else 0
        made, upto = tables_of(state.entries), max(state.entries)
        after, left = (state.segments[-1].upto if state.segments else 0), list(state.segments)
        while left and left[-1].upto - left[-1].after < min(2 * (upto - after), _LARGEST - (upto - after)):
            older = left.pop()
            after = older.after
            for name in made:
                made[name] = newest(pa.concat_tables([pq.read_table(self.fetched(older.objects[name])), made[name]]))
        segment = self.put(epoch, after, upto, made)
        self._state = State([*left, segment], {}, state.known)
        self._tidy()

    def put(self, epoch: int, after: int, upto: int, made: dict[str, pa.Table]) -> Segment:
        """Write the rows of every table as a segment."""
        objects = {}
        for table, rows in made.items():
            draft = whole.draft_of(self.cache / "segment")
            self.cache.mkdir(parents=True, exist_ok=True)
            try:
                pq.write_table(rows, draft, compression="zstd")
                digest = whole.sha256(draft)[:16]
                name = f"{layout.INDEX}/{epoch:012d}/{after:012d}-{upto:012d}-{table}-{digest}.parquet"
                self.bucket.upload(name, draft)
                draft.replace(self.cache / name.replace("/", "-"))
            finally:
                draft.unlink(missing_ok=True)
            objects[table] = name
        return Segment(epoch, after, upto, objects)

    def _tidy(self) -> None:
        """Forget what this machine keeps of the journal and is part of a segment now, or of one that was joined."""
        keep = {n.replace("/", "-") for segment in self._state.segments for n in segment.objects.values()}
        for name in files.names(self.cache):
            if name.endswith(".parquet") and name not in keep:
                (self.cache / name).unlink(missing_ok=True)
        for name in files.names(self.cache / "entries"):
            (self.cache / "entries" / name).unlink(missing_ok=True)


def cover(names: Iterable[str]) -> list[Segment]:
    """The segments to read of those that are there: of the newest epoch that is whole, the fewest, without a gap."""
    found: dict[int, dict[tuple[int, int], dict[str, str]]] = {}
    for name in sorted(names, reverse=True):
        if match := _SEGMENT.fullmatch(name.removeprefix(f"{layout.INDEX}/")):
            epoch, after, upto = int(match[1]), int(match[2]), int(match[3])
            found.setdefault(epoch, {}).setdefault((after, upto), {})[match[4]] = name
    for epoch in sorted(found, reverse=True):
        spans = {span: objects for span, objects in found[epoch].items() if objects.keys() == SCHEMAS.keys()}
        chosen: list[Segment] = []
        while nexts := [span for span in spans if span[0] == (chosen[-1].upto if chosen else 0)]:
            span = max(nexts)
            chosen.append(Segment(epoch, *span, spans[span]))
        if chosen:
            return chosen
    return []


def tables_of(entries: dict[int, dict[str, Any]]) -> dict[str, pa.Table]:
    """The rows of entries, by table."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in SCHEMAS}
    for number in sorted(entries):
        for table, unit, row in _rows_of(entries[number]):
            rows[table].append(row | {"_unit": unit, "_entry": number})
    return {
        name: newest(
            pa.Table.from_pylist(
                [{n: row.get(n) for n in (*schema.names, "_unit", "_entry")} for row in rows[name]],
                schema=pa.schema([*schema, *_OWN]),
            )
        )
        for name, schema in SCHEMAS.items()
    }


def _rows_of(told: dict[str, Any]) -> Iterable[tuple[str, str, dict[str, Any]]]:
    """Table, unit and row of what an entry's records tell."""
    for name, record in told.items():
        top, one, file = [*name.split("/", 2), ""][:3]
        if top == layout.ATTEMPTS:
            yield "attempts", name, index.attempt(record)
        elif top == layout.ARTIFACTS:
            yield "artifacts", one, index.artifact(record)
        elif top == layout.RUNS and name == layout.started(one):
            end = told.get(layout.finished(one), {"status": STARTED, "finished_at": None})
            yield "runs", one, record | {"status": end["status"], "finished_at": end["finished_at"]}
        elif top == layout.RUNS and file.startswith("stages/") and layout.finished(one) in told:
            yield "stage_runs", one, index.stage_run(record)


def newest(rows: pa.Table) -> pa.Table:
    """The rows without those that a later entry about the same unit replaces."""
    last = rows.group_by("_unit").aggregate([("_entry", "max")])
    mine = last["_entry_max"].take(pc.index_in(rows["_unit"], value_set=last["_unit"]))
    return rows.filter(pc.equal(rows["_entry"], mine))


def _superseded(rows: pa.Table) -> bool:
    both = rows.group_by("_unit").aggregate([("_entry", "max"), ("_entry", "min")])
    return bool(pc.any(pc.not_equal(both["_entry_max"], both["_entry_min"])).as_py())


def _entry(number: int) -> str:
    return f"{layout.JOURNAL}/{number:012d}.json"


def _number(name: str) -> int:
    return int(name.rpartition("/")[2].removesuffix(".json"))
