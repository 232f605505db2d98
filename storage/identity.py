"""What makes a stage run the same as an earlier one: its config, its code and the contents of its inputs."""

import ast
import hashlib
import json
import re
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from storage.store import Store

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("align", "flows", "tasks", "storage")
_FILE = re.compile(r"(?:\w+/)*[\w.-]+\.(?!py$)\w+")  # a module is named by importing it
LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "pyarrow", "duckdb", "numpy", "rensa")


def canonical(store: Store, value: Any) -> Any:
    """A config as JSON values in which the contents of local files stand for their paths.

    A directory counts by the names and contents of its files, a glob by those of what it matches. Fields declared
    with `exclude=True` (where to cache, how to show progress) do not count. Raises FileNotFoundError for a path
    that is not there.
    """
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return {name: canonical(store, getattr(value, name)) for name in fields if not fields[name].exclude}
    if isinstance(value, dict):
        return {str(k): canonical(store, v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [canonical(store, v) for v in value]
    if isinstance(value, Path):
        return {"content": _content(store, value)}
    return value


def _content(store: Store, path: Path) -> str:
    if path.is_file():
        return store.file_digest(path)
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
        names = [p.relative_to(path).as_posix() for p in found]
    else:
        found = sorted(p for p in path.parent.glob(path.name) if p.is_file()) if path.parent.is_dir() else []
        names = [p.name for p in found]
    if not found:
        raise FileNotFoundError(path)
    lines = "".join(f"{name}\0{store.file_digest(p)}\n" for name, p in zip(names, found, strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()


@cache
def code(module: str) -> dict[str, str]:
    """Digests of a module and of the modules of this repository that it imports, by path.

    Modules are compared as syntax trees without docstrings and comments, so that prose and layout do not count. Files
    that a module names by their path below its folder (templates) count by their bytes.
    """
    todo, seen = [module], {}
    while todo:
        name = todo.pop()
        path = _source(name)
        if path is None or (relative := path.relative_to(ROOT).as_posix()) in seen:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        todo += _imports(tree)
        for file in _named(tree, path.parent):
            seen[file.relative_to(ROOT).as_posix()] = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
        seen[relative] = hashlib.sha256(ast.dump(_without_docstrings(tree)).encode()).hexdigest()[:16]
    return dict(sorted(seen.items()))


def _source(module: str) -> Path | None:
    if module.split(".")[0] not in PACKAGES:
        return None
    path = ROOT.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _imports(tree: ast.Module) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def _named(tree: ast.Module, folder: Path) -> list[Path]:
    """Files that a module names by their path below its folder, such as a page template: they act as its code."""
    texts = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return [folder / text for text in sorted(texts) if _FILE.fullmatch(text) and (folder / text).is_file()]


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [  # type: ignore[attr-defined]
                n for n in body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))
            ]
    return tree


@cache
def versions() -> dict[str, str]:
    """The installed versions of the libraries that results depend on. Recorded with every attempt; not part of keys."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def key(stage: str, config: Any, code: dict[str, str], inputs: dict[str, dict[str, Any]]) -> str:
    """The identity of a stage run: a hash over its name, code, canonical config and the digests of its inputs."""
    digests = {role: [item.get("file"), item["digest"]] for role, item in inputs.items()}
    text = json.dumps([stage, config, code, digests], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
