"""`align verify`: everything in a store read again and compared with what was written."""

from collections.abc import Iterator

from storage import champions, layout, runs
from storage.store import Store


def verify(store: Store) -> Iterator[tuple[str, str | None]]:
    """Every artifact and, where something is wrong with it, every record, with what is wrong (else None).

    Files are read in full. Artifacts that a run refers to and that are not there are wrong too.
    """
    here = store.names(layout.ARTIFACTS)
    for name in here:
        yield name, _artifact(store, name)
    for name, kind in _records(store):
        if wrong := store.problem(name, kind):
            yield name, wrong
    used: dict[str, str] = {}
    for run in runs.history(store):
        for stage in runs.stages(store, run["run_id"]):
            if stage["artifact"]:
                used[stage["artifact"]] = run["run_id"]
    crowned = {champion.artifact: champion for champion in champions.every(store)}
    for name in sorted((used.keys() | crowned.keys()) - set(here)):
        whose = f"run {used[name]} used it" if name in used else f"it is the champion of {crowned[name].recipe}"
        yield name, f"missing, though {whose}"


def _artifact(store: Store, name: str) -> str | None:
    held = store.held(name)
    if held is None:
        return "not an artifact: a file that does not belong here"
    artifact = store.artifact(name)
    if artifact is None:
        wrong = store.problem(layout.manifest(name), "manifest") if layout.MANIFEST in held else None
        return f"its manifest.json {wrong}" if wrong else "no manifest: it was never finished"
    if damage := store.damage(artifact, thorough=True):
        return damage
    extra = [file for file in held if file not in artifact.files and file != layout.MANIFEST]
    return f"{extra[0]} does not belong to it" if extra else None


def _records(store: Store) -> Iterator[tuple[str, str]]:
    for folder, kind in ((layout.ATTEMPTS, "attempt"), (layout.CHAMPIONS, "champion")):
        for one in store.names(folder):
            for name in store.names(f"{folder}/{one}"):
                yield f"{folder}/{one}/{name}", kind
    for run_id in store.names(layout.RUNS):
        here = store.names(layout.run(run_id))
        if set(here) <= {"lock"}:  # its process ended before it could write a record
            continue
        yield layout.started(run_id), "run"
        if "finished.json" in here:
            yield layout.finished(run_id), "finished"
        for name in store.names(layout.stages(run_id)):
            yield f"{layout.stages(run_id)}/{name}", "stage"
