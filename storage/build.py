"""Building an artifact: the request for a stage run, its key, and doing the work at most once."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from align import digests
from storage import identity, layout
from storage.store import Attempt, Store, now


@dataclass(frozen=True)
class Output:
    """What a finished stage hands on: its artifact, or one file of it."""

    artifact: str
    file: str | None = None


Input = Output | BaseModel | None


@dataclass(frozen=True)
class Request:
    """A stage with everything that identifies its run."""

    stage: str
    function: Callable[..., dict[str, Any]]
    config: BaseModel
    inputs: Mapping[str, Input]
    canonical: dict[str, Any] = field(repr=False)
    described: dict[str, dict[str, Any]] = field(repr=False)  # role -> artifact, file, digest (or config, digest)
    code: dict[str, str] = field(repr=False)
    key: str


def request(
    store: Store, stage: str, function: Callable[..., dict[str, Any]], config: BaseModel, inputs: Mapping[str, Input]
) -> Request:
    """Describe a stage run. Inputs that are None do not exist for the stage and do not count."""
    described: dict[str, dict[str, Any]] = {}
    for role, value in inputs.items():
        if isinstance(value, Output):
            artifact = store.artifact(value.artifact)
            if artifact is None:
                raise FileNotFoundError(store.root / layout.artifact(value.artifact))
            described[role] = {
                "artifact": value.artifact,
                "file": value.file,
                "digest": artifact.digest(value.file),
            }
        elif value is not None:
            content = identity.canonical(store, value)
            text = json.dumps(content, sort_keys=True)
            described[role] = {"config": content, "digest": hashlib.sha256(text.encode()).hexdigest()}
    canonical = identity.canonical(store, config)
    code = identity.code(function.__module__, config)
    key = identity.key(stage, canonical, code, described)
    return Request(stage, function, config, inputs, canonical, described, code, key)


SECONDS = "process.seconds"
"""What a `call` that waits for its turn says of the time that the stage itself took."""
Call = Callable[[Callable[..., dict[str, Any]], BaseModel, Path, dict[str, Any]], dict[str, Any]]


def directly(
    function: Callable[..., dict[str, Any]], config: BaseModel, out: Path, inputs: dict[str, Any]
) -> dict[str, Any]:
    """Call a stage in this process."""
    return function(config, out, **inputs)


def build(
    store: Store, request: Request, refresh: bool = False, call: Call = directly, run: str = ""
) -> tuple[Attempt, bool]:
    """The attempt that answers a request, and whether it ran now, in `run`.

    `call` decides where the stage runs. One that takes `cache` is given the store's directory for work kept per row,
    one that takes `checkpoints` a directory that stays until its artifact is there; neither is part of any key.
    Processes that ask for one key at once wait for the first; a draft that fails or is killed leaves nothing behind.
    """
    with store.computing(request.key):
        hit, _ = store.lookup(request.key)
        if hit and not refresh:
            return hit, False
        with store.draft(request.stage) as out:
            started = time.monotonic()
            paths = {role: _path(store, value) for role, value in request.inputs.items() if value is not None}
            if "cache" in signature(request.function).parameters:
                paths["cache"] = store.root / "cache" / "rows"
            unfinished = store.root / "checkpoints" / f"{request.stage}-{request.key}"
            if "checkpoints" in signature(request.function).parameters:
                paths["checkpoints"] = unfinished
            with digests.kept_in(store.digests):
                metrics = call(request.function, request.config, out, paths)
            seconds = metrics.pop(SECONDS, None)
            # What measures the process and not the data is recorded with the attempt: equal data are one artifact.
            told = {name: value for name, value in metrics.items() if not name.startswith("process.")}
            (out / "metrics.json").write_text(json.dumps(told, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
            artifact = store.publish(request.stage, out)
            newest = max((a.created_at for a in store.attempts(request.key)), default="")
            attempt = Attempt(
                stage=request.stage,
                key=request.key,
                artifact=artifact.id,
                config=request.canonical,
                inputs=request.described,
                code=request.code,
                versions=identity.versions(),
                metrics=metrics,
                seconds=round(time.monotonic() - started if seconds is None else seconds, 3),
                run=run,
                created_at=now(newest),
            )
            store.record(attempt)
            shutil.rmtree(unfinished, ignore_errors=True)
    return attempt, True


def _path(store: Store, value: Input) -> Path | BaseModel | None:
    if not isinstance(value, Output):
        return value
    return store.fetch(value.artifact, value.file)


Inputs = dict[str, dict[str, Any]]


def differences(config: dict[str, Any], inputs: Inputs, code: dict[str, str], before: Attempt) -> list[str]:
    """Why a stage run is not the earlier attempt, in words that name the field, file or input."""
    words = _compare("", before.config, config)
    for role in sorted({*before.inputs, *inputs}):
        old, new = before.inputs.get(role), inputs.get(role)
        if old is None or new is None:
            words.append(f"input {role} {'added' if old is None else 'removed'}")
        elif (old.get("file"), old["digest"]) != (new.get("file"), new["digest"]):
            if "config" in old and "config" in new:
                words += _compare(f"{role}.", old["config"], new["config"])
            else:
                words.append(f"{role} changed ({new.get('artifact', role)})")
    paths = sorted({*before.code, *code})
    return words + [f"{path} changed" for path in paths if before.code.get(path) != code.get(path)]


def _compare(prefix: str, old: Any, new: Any) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        if set(old) == set(new) == {"content"}:
            return [] if old == new else [f"{prefix.rstrip('.')} has other contents"]
        return [
            words
            for name in [*new, *(n for n in old if n not in new)]
            for words in _compare(f"{prefix}{name}.", old.get(name), new.get(name))
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [words for i, (a, b) in pairs for words in _compare(f"{prefix}{i}.", a, b)]
    return [] if old == new else [f"{prefix.rstrip('.')} {_show(old)} → {_show(new)}"]


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "..."
