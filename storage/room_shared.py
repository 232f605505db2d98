"""The room of a shared store: `align gc` and `align du` of a bucket, from one listing of it and the journal's tables.

What a machine needs that is at work anywhere is never removed: removing takes a lease that runs wait for, gives up
where a run is going on, and looks at the lease again before every request that removes something.
"""

from collections import Counter
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage import champions, index, journal, layout, leases, runs
from storage.bucket import Object
from storage.room import Collected, groups, kept_runs, leftovers, ordered
from storage.shared import SharedStore

_AT_ONCE = 100  # objects that are removed between two looks at the lease


class Listing:
    """The objects of a bucket, by what they belong to."""

    def __init__(self, store: SharedStore):
        self.objects: dict[str, list[Object]] = {}
        self.bytes = 0
        for found in store.bucket.below():
            top, _, rest = found.name.partition("/")
            owner = f"{top}/{rest.partition('/')[0]}" if top in layout.LASTING else top
            self.objects.setdefault(owner, []).append(found)
            self.bytes += found.size

    def of(self, top: str) -> list[str]:
        """The artifacts, keys or runs that have objects."""
        return [owner.partition("/")[2] for owner in self.objects if owner.startswith(f"{top}/")]

    def names(self, owner: str) -> list[str]:
        """Names of the objects of an owner: first what says that it is there."""
        first = (layout.MANIFEST, "run.json")
        return sorted((o.name for o in self.objects.get(owner, [])), key=lambda n: n.rpartition("/")[2] not in first)

    def size(self, owner: str) -> int:
        """Bytes of an owner's objects."""
        return sum(o.size for o in self.objects.get(owner, []))


def collect(store: SharedStore, dry_run: bool, keep_runs: int | None, keep_days: float | None) -> Collected:
    """`storage.room.collect` for a bucket, and for this machine's directory before it."""
    removed: list[tuple[Any, int]] = []
    with store.alone() as free:
        listing = Listing(store)
        here = set(listing.of(layout.ARTIFACTS))
        if free:
            owners = _unneeded(store, listing, keep_runs, keep_days)
            names = [name for owner in owners for name in listing.names(owner)]
            loose = _loose(store, listing)
            removed = [(PurePosixPath(owner), listing.size(owner)) for owner in owners]
            removed += [(PurePosixPath(found.name), found.size) for found in loose]
            here -= {owner.partition("/")[2] for owner in owners if owner.startswith(f"{layout.ARTIFACTS}/")}
            if not dry_run:
                _remove(store, [*names, *(found.name for found in loose)])
                if owners:
                    _reindex(store, set(owners))
        removed += leftovers(store, here if free else None, dry_run, keep_days)
    return Collected(removed, listing.bytes, not free)


def _remove(store: SharedStore, names: list[str]) -> None:
    for i in range(0, len(names), _AT_ONCE):
        store.still_alone()
        store.bucket.remove(names[i : i + _AT_ONCE])


def _unneeded(store: SharedStore, listing: Listing, keep_runs: int | None, keep_days: float | None) -> list[str]:
    """Owners of objects that nothing needs, in the order of their removal: no attempt outlives its artifact."""
    history = runs.history(store)
    kept = {run["run_id"] for run in history}
    if keep_runs is not None or keep_days is not None:
        kept = kept_runs(store, history, keep_runs, keep_days)
    known = {run["run_id"] for run in history}
    past = [run_id for run_id in listing.of(layout.RUNS) if run_id in known - kept]
    used, keys = _used(store, listing, [run_id for run_id in listing.of(layout.RUNS) if run_id not in past])
    used |= {champion.artifact for champion in champions.every(store)}
    gone = {name for name in listing.of(layout.ARTIFACTS) if name not in used}
    here = set(listing.of(layout.ARTIFACTS)) - gone
    made = _made(store, listing)
    lost = [key for key in listing.of(layout.ATTEMPTS) if key not in keys and made.get(key) and not made[key] & here]
    return [
        *(layout.attempts(key) for key in lost),
        *(layout.run(run_id) for run_id in past),
        *(layout.artifact(name) for name in sorted(gone)),
    ]


def _used(store: SharedStore, listing: Listing, kept: list[str]) -> tuple[set[str], set[str]]:
    """The artifacts and keys that the stages of runs name: from the index where it has all of a run, else read."""
    rows = _rows(store, index.STAGE_RUNS, ["run_id", "artifact", "key"])
    held = Counter(row["run_id"] for row in rows)
    written = {run_id: sum("/stages/" in name for name in listing.names(layout.run(run_id))) for run_id in kept}
    unread = [run_id for run_id in kept if held[run_id] != written[run_id]]
    whole = set(kept) - set(unread)
    found = [row for row in rows if row["run_id"] in whole]
    found += [s for stages in store.each(lambda run_id: runs.stages(store, run_id), unread) for s in stages]
    return {row["artifact"] for row in found}, {row["key"] for row in found}


def _made(store: SharedStore, listing: Listing) -> dict[str, set[str]]:
    """The artifacts that the attempts of each key made. Attempts that the journal does not know are told to it."""
    made: dict[str, set[str]] = {}
    told = set()
    for row in _rows(store, index.ATTEMPTS, ["key", "created_at", "artifact"]):
        made.setdefault(row["key"], set()).add(row["artifact"])
        told.add(layout.attempt(row["key"], row["created_at"]))
    names = [n for key in listing.of(layout.ATTEMPTS) for n in listing.names(layout.attempts(key)) if n not in told]
    for name, record in zip(names, store.each(lambda n: store.read(n, "attempt"), names), strict=True):
        if record:
            made.setdefault(record["key"], set()).add(record["artifact"])
            store.tell({name: record})
    return made


def _rows(store: SharedStore, table: index.Table, columns: list[str]) -> list[dict[str, Any]]:
    parts = [
        part.select(columns) if isinstance(part, pa.Table) else part.to_table(columns=columns)
        for part in index.table(store, table)
    ]
    found: list[dict[str, Any]] = pa.concat_tables(parts).to_pylist() if parts else []
    return found


def _loose(store: SharedStore, listing: Listing) -> list[Object]:
    """Leases of holders that are gone, once what they decided is done; clocks; segments that nobody reads."""
    found = list(listing.objects.get(layout.CLOCK, []))
    for lease in listing.objects.get(layout.LEASES, []):
        seen = leases.look(store.bucket, lease.name)
        if seen and lease.name != f"{layout.LEASES}/gc" and not store.lives(lease.name):
            if seen[1].get("decision"):
                store.carry_out(seen[1]["decision"])
            found.append(lease)
    segments = listing.objects.get(layout.INDEX, [])
    read = {name for s in journal.cover(o.name for o in segments) for name in s.objects.values()}
    return [*found, *(o for o in segments if o.name not in read)]


def _reindex(store: SharedStore, gone: set[str]) -> None:
    """Write the journal's tables anew, in another epoch, without what was removed."""
    store.journal.sync()
    state = store.journal.sync()
    epoch = state.end + 1 + max((s.epoch for s in state.segments), default=0)
    spans = [(s.after, s.upto, {t: pq.read_table(store.journal.fetched(n)) for t, n in s.objects.items()})
             for s in state.segments]  # fmt: skip
    if state.entries:
        spans.append((spans[-1][1] if spans else 0, max(state.entries), journal.tables_of(state.entries)))
    old = [name for s in state.segments for name in s.objects.values()]
    for after, upto, tables in spans:
        store.still_alone()
        store.journal.put(epoch, after, upto, {t: _without(rows, t, gone) for t, rows in tables.items()})
    _remove(store, old)


def _without(rows: pa.Table, table: str, gone: set[str]) -> pa.Table:
    owner = {
        "attempts": lambda unit: unit.rpartition("/")[0],
        "artifacts": layout.artifact,
        "runs": layout.run,
        "stage_runs": layout.run,
    }[table]
    dead = [unit for unit in pc.unique(rows["_unit"]).to_pylist() if owner(unit) in gone]
    return rows.filter(pc.invert(pc.is_in(rows["_unit"], value_set=pa.array(dead, pa.string()))))


def usage(store: SharedStore) -> list[tuple[str, str, int, int]]:
    """`storage.room.usage` for a bucket."""
    listing = Listing(store)
    sizes = {name: listing.size(layout.artifact(name)) for name in listing.of(layout.ARTIFACTS)}
    known = {row["artifact"]: row for row in _rows(store, index.ARTIFACTS, ["artifact", "stage", "created_at"])}
    found = groups(store, sizes, {name: known.get(name) for name in sizes})
    tops: dict[str, list[Object]] = {}
    for owner, objects in listing.objects.items():
        tops.setdefault(owner.partition("/")[0], []).extend(objects)
    found += [("folder", top, len(objects), sum(o.size for o in objects)) for top, objects in tops.items()]
    return ordered([*found, ("store", store.where, len(sizes), listing.bytes)])
