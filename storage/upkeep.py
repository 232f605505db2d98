"""`align verify`: everything in a store read again and compared with what was written."""

from collections.abc import Iterator
from pathlib import Path

from storage import champions, files, records, runs
from storage.store import Store


def verify(store: Store) -> Iterator[tuple[str, str | None]]:
    """Every artifact and, where something is wrong with it, every record, with what is wrong (else None).

    Files are read in full. Artifacts that a run refers to and that are not there are wrong too.
    """
    folder = store.root / "artifacts"
    here = files.names(folder)
    for name in here:
        yield name, _artifact(store, folder / name)
    for path, kind in _records(store):
        if wrong := records.problem(path, kind):
            yield path.relative_to(store.root).as_posix(), wrong
    used: dict[str, str] = {}
    for run in runs.history(store):
        for stage in runs.stages(store, run["run_id"]):
            if stage["artifact"]:
                used[stage["artifact"]] = run["run_id"]
    crowned = {champion.artifact: champion for champion in champions.every(store)}
    for name in sorted((used.keys() | crowned.keys()) - set(here)):
        whose = f"run {used[name]} used it" if name in used else f"it is the champion of {crowned[name].recipe}"
        yield name, f"missing, though {whose}"


def _artifact(store: Store, path: Path) -> str | None:
    if not path.is_dir():
        return "not an artifact: a file that does not belong here"
    manifest = path / "manifest.json"
    artifact = store.artifact(path.name)
    if artifact is None:
        wrong = records.problem(manifest, "manifest") if manifest.exists() else None
        return f"its manifest.json {wrong}" if wrong else "no manifest: it was never finished"
    if damage := store.damage(artifact, thorough=True):
        return damage
    known = {*artifact.files, "manifest.json"}
    extra = [name for p in files.tree(path) if (name := p.relative_to(path).as_posix()) not in known]
    return f"{extra[0]} does not belong to it" if extra else None


def _records(store: Store) -> Iterator[tuple[Path, str]]:
    for key in files.names(store.root / "attempts"):
        for name in files.names(store.root / "attempts" / key):
            yield store.root / "attempts" / key / name, "attempt"
    for recipe in files.names(store.root / "champions"):
        for name in files.names(store.root / "champions" / recipe):
            yield store.root / "champions" / recipe / name, "champion"
    for run_id in files.names(store.root / "runs"):
        folder = store.root / "runs" / run_id
        if runs.never_began(folder):
            continue
        yield folder / "run.json", "run"
        if (folder / "finished.json").exists():
            yield folder / "finished.json", "finished"
        for name in files.names(folder / "stages"):
            yield folder / "stages" / name, "stage"
