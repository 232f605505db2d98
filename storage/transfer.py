"""Bringing runs from one store to another, and what was made elsewhere into a store."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from align import redact, whole
from align.errors import InputError
from storage import files, layout, runs
from storage.artifact import files_digest
from storage.runs import Run, StageRun
from storage.store import Attempt, Store

IMPORT = "import"
"""The stage, and the recipe, of what was made elsewhere."""


@dataclass(frozen=True)
class Copied:
    """What was brought to another store."""

    run_id: str
    artifacts: list[str]  # those that were not there
    there: int  # those that were
    bytes: int


def copy(source: Store, target: Store, run_id: str) -> Copied:
    """Bring a run, its attempts and their artifacts, each as a whole, the run's own record last.

    What is there stays as it is. Raises InputError for a run that is going on, and where an artifact of it is gone.
    """
    if source.where == target.where:
        raise InputError(f"Both stores are {source.where}; name another.")
    with source.in_use(), target.in_use():
        run = runs.summary(source, run_id)
        if run is None or run["status"] == "running":
            raise InputError(f"Run {run_id} is going on, or its record is damaged; only a whole run can be copied.")
        stages = runs.stages(source, run_id)
        made = [(s["key"], s["artifact"]) for s in stages if s["artifact"]]
        names = list(dict.fromkeys(artifact for _, artifact in made))
        new = [name for name in names if (found := target.artifact(name)) is None or target.damage(found)]
        copied = sum(_artifact(source, target, name) for name in new)
        told: dict[str, dict[str, Any]] = {}
        for key, artifact in made:
            for record in source.attempt_records(key):
                if record["artifact"] == artifact:
                    told[layout.attempt(key, record["created_at"])] = record
        told |= {layout.manifest(name): _manifest(target, name) for name in names}
        told |= _run(source, run_id)
        for name, record in told.items():
            target.write(name, record)
        target.tell(told)
    return Copied(run_id, new, len(names) - len(new), copied)


def _artifact(source: Store, target: Store, name: str) -> int:
    artifact = source.artifact(name)
    wrong = source.damage(artifact) if artifact else f"{name} was removed"
    if artifact is None or wrong:
        raise InputError(f"{wrong}; `align run` makes it again.")
    folder = source.fetch(name)
    with target.draft(artifact.stage) as draft:
        for file in artifact.files:
            (draft / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / file, draft / file)
        if target.publish(artifact.stage, draft).id != name:
            raise InputError(f"{name} in {source.where} is not what was written; `align run` makes it again.")
    return sum(entry["bytes"] for entry in artifact.files.values())


def _manifest(store: Store, name: str) -> dict[str, Any]:
    found = store.manifest(name)
    if found is None:
        raise InputError(f"{name} is not in {store.where} any more; the same command copies it again.")
    return found


def _run(store: Store, run_id: str) -> dict[str, dict[str, Any]]:
    """The records of a run by name: its stages and its end, and last its start, which makes it one."""
    folder = layout.stages(run_id)
    names = [(f"{folder}/{name}", "stage") for name in store.names(folder)]
    names += [(layout.finished(run_id), "finished"), (layout.started(run_id), "run")]
    return {name: record for name, kind in names if (record := store.read(name, kind))}


def bring(store: Store, path: Path, origin: str, license: str | None = None) -> tuple[str, str]:
    """Make an artifact of an adapter, a model or a dataset that was made elsewhere; its id and that of its run, which
    keeps it from `align gc`.

    `origin` says where it is from, and is kept in it as origin.json. Raises InputError for what is neither.
    """
    redact.check_url("--origin", origin)
    found = dict(_files(path))
    run = Run(store, IMPORT, {"origin": origin, "license": license})
    try:
        with store.draft(IMPORT) as draft:
            for name, file in found.items():
                (draft / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, draft / name)
            whole.replace(draft / "origin.json", {"origin": origin, "license": license})
            artifact = store.publish(IMPORT, draft)
        key = sha256(f"{IMPORT} {files_digest(artifact.files)}".encode()).hexdigest()[:32]
        attempt = Attempt(
            stage=IMPORT, key=key, artifact=artifact.id, config={"origin": origin, "license": license}, inputs={},
            code={}, versions={}, metrics={"files": len(found)}, seconds=0.0,
        )  # fmt: skip
        store.record(attempt)
        run.stage(StageRun(IMPORT, key, artifact.id, "ran", 0.0, f"from {origin}", attempt.metrics))
    except BaseException:
        run.finish("failed")
        raise
    run.finish("done")
    return artifact.id, run.id


def _files(path: Path) -> Iterable[tuple[str, Path]]:
    """What belongs to an adapter, a model or a dataset, by its name in an artifact."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    there = {p.relative_to(path).as_posix(): p for p in files.tree(path)} if path.is_dir() else {path.name: path}
    if not path.exists():
        raise InputError(f"{path} does not exist.")
    weights = [name for name in there if name.endswith(".safetensors")]
    for sign, kind in (("adapter_config.json", "adapter"), ("config.json", "model")):
        if sign in there:
            if not weights:
                raise InputError(f"{path} has {sign} but no .safetensors; other weights are programs, and not taken.")
            return [(f"{kind}/{name}", p) for name, p in there.items() if name.endswith(_KEPT)]
    tables = {name: p for name, p in there.items() if name.endswith(".parquet")}
    if not tables:
        raise InputError(
            f"{path} is no adapter (adapter_config.json), model (config.json) or dataset (.parquet); a recipe's ingest "
            "reads JSON and CSV."
        )
    for file in tables.values():
        try:
            pq.read_metadata(file)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{file} is no Parquet file ({str(error).splitlines()[0][:80]}).") from None
    return list(tables.items())


_KEPT = (".safetensors", ".json", ".jinja", ".txt", ".model")
