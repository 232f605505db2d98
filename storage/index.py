"""An index over the store's records: Parquet segments in cache/index, so that a question does not open every record.

A table is indexed by units: a run, a key, an artifact. Units that may still change are read anew every time; the others
are read once, kept in a segment, and read again only if their stamp differs. A segment is named by the digest of its
bytes. All of it may be lost: what is missing or damaged is made again from the records.
"""

import json
import os
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from align import whole
from storage import files, layout, runs
from storage.store import Store

_CHUNK = 4000  # units read before they are written: bounds the memory of making the index anew
_SETTLED = 2_000_000_000  # ns after which the time of a directory tells of every change to come

_TEXT = pa.string()
METRIC = pa.struct([("name", pa.string()), ("value", pa.float64()), ("text", pa.string())])
PARENT = pa.struct([("parent", pa.string()), ("role", pa.string())])


@dataclass(frozen=True)
class Table:
    """A table of the index."""

    name: str
    unit: str  # the column that names the unit of a row
    schema: pa.Schema
    units: Callable[[Store], tuple[dict[str, int], list[str]]]  # stamps of what is settled, and what is not
    read: Callable[[Store, str], Iterable[dict[str, Any]]]  # the rows of a unit, from the records


def _run_units(store: Store) -> tuple[dict[str, int], list[str]]:
    found = runs.history(store)
    return (
        {run["run_id"]: 0 for run in found if run["status"] != "running"},
        [run["run_id"] for run in found if run["status"] == "running"],
    )


def _folder_units(folder: str) -> Callable[[Store], tuple[dict[str, int], list[str]]]:
    def units(store: Store) -> tuple[dict[str, int], list[str]]:
        settled: dict[str, int] = {}
        fresh: list[str] = []
        before = time.time_ns() - _SETTLED
        try:
            with os.scandir(store.root / folder) as entries:
                for entry in entries:
                    changed = entry.stat().st_mtime_ns
                    if changed < before:
                        settled[entry.name] = changed
                    else:
                        fresh.append(entry.name)
        except FileNotFoundError:
            pass
        return settled, fresh

    return units


def metrics_of(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Metrics as rows: text where they are text, else a number."""
    return [
        {"name": name, "text": value} if isinstance(value, str) else {"name": name, "value": _number(value)}
        for name, value in values.items()
    ]


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def stage_run(record: dict[str, Any]) -> dict[str, Any]:
    """The row of a stage's record."""
    return {**record, "metrics": metrics_of(record["metrics"])}


def attempt(record: dict[str, Any]) -> dict[str, Any]:
    """The row of an attempt's record."""
    inputs = record["inputs"].items()
    parents = [{"parent": i.get("artifact") or i.get("digest"), "role": role} for role, i in inputs]
    return {**record, "config": _json(record["config"]), "versions": _json(record["versions"]), "parents": parents}


def artifact(manifest: dict[str, Any]) -> dict[str, Any]:
    """The row of an artifact's manifest."""
    entries = manifest["files"]
    return {
        **manifest,
        "bytes": sum(entry["bytes"] for entry in entries.values()),
        "rows": sum(entry.get("rows") or 0 for entry in entries.values()),
        "files": [{"name": file, "bytes": entry["bytes"]} for file, entry in entries.items()],
    }


def _stage_runs(store: Store, run_id: str) -> Iterable[dict[str, Any]]:
    return map(stage_run, runs.stages(store, run_id))


def _attempts(store: Store, key: str) -> Iterable[dict[str, Any]]:
    return map(attempt, store.attempt_records(key))


def _artifacts(store: Store, name: str) -> Iterable[dict[str, Any]]:
    manifest = store.manifest(name)
    return [artifact(manifest)] if manifest and manifest["artifact"] == name else []


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


STAGE_RUNS = Table(
    "stage_runs",
    "run_id",
    pa.schema([
        *((n, _TEXT) for n in ("run_id", "stage", "key", "artifact", "status")), ("seconds", pa.float64()),
        ("reason", _TEXT), ("ended_at", _TEXT), ("metrics", pa.list_(METRIC)),
    ]),
    _run_units,
    _stage_runs,
)  # fmt: skip
ATTEMPTS = Table(
    "attempts",
    "key",
    pa.schema([
        *((n, _TEXT) for n in ("stage", "key", "artifact")), ("seconds", pa.float64()),
        *((n, _TEXT) for n in ("created_at", "config", "versions")), ("parents", pa.list_(PARENT)),
    ]),
    _folder_units(layout.ATTEMPTS),
    _attempts,
)  # fmt: skip
ARTIFACTS = Table(
    "artifacts",
    "artifact",
    pa.schema([
        *((n, _TEXT) for n in ("artifact", "stage", "kind", "created_at")), ("bytes", pa.int64()), ("rows", pa.int64()),
        ("files", pa.list_(pa.struct([("name", pa.string()), ("bytes", pa.int64())]))),
    ]),
    _folder_units(layout.ARTIFACTS),
    _artifacts,
)  # fmt: skip


@dataclass(frozen=True)
class _Segment:
    """Some units and their rows: in a file or, where none can be written, in memory."""

    units: dict[str, int]
    data: Path | pa.Table

    def rows(self) -> pa.Table:
        return pq.read_table(self.data) if isinstance(self.data, Path) else self.data

    def forget(self) -> None:
        if isinstance(self.data, Path):
            self.data.unlink(missing_ok=True)


def table(store: Store, wanted: Table) -> list[pa.Table | ds.Dataset]:
    """All rows of a table, up to date. They stay readable whatever other processes do to the index meanwhile."""
    if store.journal:
        return store.journal.table(wanted)
    folder = store.root / "cache" / "index" / wanted.name
    with ExitStack() as stack:
        try:
            stack.enter_context(files.locked(folder / "lock"))
        except OSError:  # a read-only or full disk: what is new stays in memory
            return _open(wanted, _refresh(store, wanted, _segments(folder), None))
        return _open(wanted, _refresh(store, wanted, _segments(folder), folder))


def _refresh(store: Store, wanted: Table, segments: list[_Segment], folder: Path | None) -> list[_Segment]:
    """Segments that hold all units as they are now. What is written goes to `folder`, if that can be."""
    settled, fresh = wanted.units(store)
    segments = [_prune(segment, settled, wanted, folder) for segment in segments]
    known = {unit for segment in segments for unit in segment.units}
    new = [unit for unit in settled if unit not in known]
    for i in range(0, len(new), _CHUNK):
        units = new[i : i + _CHUNK]
        segments.append(_keep(_rows(store, wanted, units), {unit: settled[unit] for unit in units}, folder))
    segments = _merge(segments, folder)
    return [*segments, _Segment({}, _rows(store, wanted, fresh))]


def _open(wanted: Table, segments: list[_Segment]) -> list[pa.Table | ds.Dataset]:
    form = ds.ParquetFileFormat()
    # Mapped now, so that a segment that is merged away under a query is still there for it.
    mapped = [form.make_fragment(pa.memory_map(str(s.data))) for s in segments if isinstance(s.data, Path)]
    found: list[Any] = [s.data for s in segments if isinstance(s.data, pa.Table)]
    return [*found, ds.FileSystemDataset(mapped, wanted.schema, form)] if mapped else found


def _rows(store: Store, wanted: Table, units: list[str]) -> pa.Table:
    names = wanted.schema.names
    found = [{n: row.get(n) for n in names} for unit in units for row in wanted.read(store, unit)]
    return pa.Table.from_pylist(found, schema=wanted.schema)


def _segments(folder: Path) -> list[_Segment]:
    """The segments that are there and whole; a damaged one is as good as none."""
    found = []
    for path in sorted(folder.glob("*.parquet")):
        try:
            if whole.sha256(path)[:16] == path.stem:
                found.append(_Segment(json.loads(pq.read_metadata(path).metadata[b"units"]), path))
                continue
        except (OSError, pa.ArrowException):
            pass
        with suppress(OSError):
            path.unlink()
    return found


def _prune(segment: _Segment, settled: dict[str, int], wanted: Table, folder: Path | None) -> _Segment:
    """The segment without the units that are gone or have changed."""
    stale = [unit for unit, stamp in segment.units.items() if settled.get(unit) != stamp]
    if not stale:
        return segment
    rows = segment.rows()
    left = rows.filter(pc.invert(pc.is_in(rows[wanted.unit], pa.array(stale, pa.string()))))
    kept = _keep(left, {u: s for u, s in segment.units.items() if u not in set(stale)}, folder)
    if folder and kept.data != segment.data:
        segment.forget()
    return kept


def _keep(rows: pa.Table, units: dict[str, int], folder: Path | None) -> _Segment:
    if folder is None:
        return _Segment(units, rows)
    draft = whole.draft_of(folder / "segment")
    try:
        pq.write_table(rows.replace_schema_metadata({b"units": json.dumps(units).encode()}), draft, compression="zstd")
        path = folder / f"{whole.sha256(draft)[:16]}.parquet"
        draft.replace(path)
    except OSError:  # the disk is full
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        return _Segment(units, rows)
    return _Segment(units, path)


def _merge(segments: list[_Segment], folder: Path | None) -> list[_Segment]:
    """Join segments of like size, so that there are few and each row is written a few times only."""
    segments = sorted((s for s in segments if s.units), key=lambda s: -len(s.units))
    while folder and len(segments) > 1 and len(segments[-2].units) < 2 * len(segments[-1].units):
        one, two = segments[-2:]
        joined = _keep(pa.concat_tables([one.rows(), two.rows()]), one.units | two.units, folder)
        if not isinstance(joined.data, Path):
            break
        for old in (one, two):
            if old.data != joined.data:
                old.forget()
        segments = sorted([*segments[:-2], joined], key=lambda s: -len(s.units))
    return segments
