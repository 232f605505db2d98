"""What makes a stage run the same as an earlier one: its config, its code and the contents of its inputs."""

import ast
import gc
import hashlib
import json
import re
import threading
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from align.config import is_execution
from storage.store import Store

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("align", "flows", "tasks", "storage")
_FILE = re.compile(r"(?:\w+/)*[\w.-]+\.(?!py$)\w+")  # a module is named by importing it
_parsing = threading.Lock()
LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "pyarrow", "duckdb", "numpy")


def canonical(store: Store, value: Any) -> Any:
    """A config as JSON values in which the contents of local files stand for their paths.

    A directory counts by the names and contents of its files, a glob by those of what it matches. Execution-only
    fields (align.config.EXECUTION) do not count. Raises FileNotFoundError for a path that is not there.
    """
    if isinstance(value, BaseModel):
        return {name: canonical(store, getattr(value, name)) for name in _counted(value)}
    if isinstance(value, dict):
        return {str(k): canonical(store, v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [canonical(store, v) for v in value]
    if isinstance(value, Path):
        return {"content": _content(store, value)}
    return value


def _counted(config: BaseModel) -> list[str]:
    """The names of the fields that are part of the key."""
    return [name for name, field in type(config).model_fields.items() if not is_execution(field)]


def _content(store: Store, path: Path) -> str:
    if path.is_file():
        return store.file_digest(path)
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
        names = [p.relative_to(path).as_posix() for p in found]
    else:
        at = next((i for i, part in enumerate(path.parts) if re.search(r"[*?\[]", part)), len(path.parts))
        root, pattern = Path(*path.parts[:at]), Path(*path.parts[at:])
        found = sorted(p for p in root.glob(str(pattern)) if p.is_file()) if pattern.parts else []
        names = [p.relative_to(root).as_posix() for p in found]
    if not found:
        raise FileNotFoundError(path)
    lines = "".join(f"{name}\0{store.file_digest(p)}\n" for name, p in zip(names, found, strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()


# Modules that know all rules, graders and engines: of those only the ones count that a config names.
CHOICES = {"align.rules.catalogue", "align.grading.graders", "align.models.engine"}


def code(module: str, config: BaseModel | None = None) -> dict[str, str]:
    """Digests of a module and of the modules of this repository that it imports, by path.

    Of the modules behind CHOICES those count whose classes stand in `config`, or that it names in `modules` (engines):
    another rule's code changes nothing for a recipe without that rule. Modules are compared as syntax trees without
    docstrings and comments, so that prose and layout do not count. Files that a module names by their path below its
    folder (templates) count by their bytes.
    """
    return _code(module, frozenset(_named(config)) if config is not None else None)


@cache
def _code(module: str, named: frozenset[str] | None) -> dict[str, str]:
    seen: dict[str, str] = {}
    todo = [module, *(named or ())]
    while todo:
        name = todo.pop()
        path = _source(name)
        if path is None or path.relative_to(ROOT).as_posix() in seen:
            continue
        imports = _read(path).imports
        seen |= _read(path).digests
        if named is not None and name in CHOICES:
            imports = tuple(i for i in imports if not _is_choice(i, name) or i in named)
        todo += imports
    return dict(sorted(seen.items()))


def _is_choice(module: str, of: str) -> bool:
    """Whether a module defines one of the classes that a module of CHOICES lets a config choose from."""
    path = _source(module)
    return path is not None and module.rpartition(".")[0] == of.rpartition(".")[0] and _read(path).chooses


def _named(value: Any) -> set[str]:
    """The modules of all settings classes in a config, and those that it names."""
    if isinstance(value, BaseModel):
        inside = {m for name in _counted(value) for m in _named(getattr(value, name))}
        return inside | {type(value).__module__, *getattr(value, "modules", ())}
    if isinstance(value, dict):
        return {m for item in value.values() for m in _named(item)}
    if isinstance(value, list | tuple):
        return {m for item in value for m in _named(item)}
    return set()


def _source(module: str) -> Path | None:
    if module.split(".")[0] not in PACKAGES:
        return None
    path = ROOT.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@dataclass(frozen=True)
class _Module:
    """What one file adds to the identity of the stages that import it."""

    digests: dict[str, str]  # of itself and of the files that it names, by path
    imports: tuple[str, ...]
    chooses: bool  # whether it has a class with a field that a union is told by: `kind` or `rule`


@cache
def _read(path: Path) -> _Module:
    """The facts of a module; each is read and parsed once."""
    tree = parse(path.read_text(encoding="utf-8"))
    facts, imports, texts = _facts(tree)
    digests = {path.relative_to(ROOT).as_posix(): _short(facts.encode("utf-8", "surrogatepass"))}
    for text in sorted(texts):
        if _FILE.fullmatch(text) and (file := path.parent / text).is_file():
            digests[file.relative_to(ROOT).as_posix()] = _short(file.read_bytes())
    return _Module(digests, imports, _chooses(tree))


def _chooses(tree: ast.Module) -> bool:
    return any(
        isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id in ("kind", "rule")
        and ast.unparse(node.annotation).startswith("Literal[")
        for part in tree.body if isinstance(part, ast.ClassDef) for node in part.body
    )  # fmt: skip


def parse(source: str) -> ast.Module:
    """The syntax tree of a module, whatever other threads parse meanwhile.

    CPython counts the depth of the tree that it builds in one place for all threads. No other thread gets a turn while
    it builds one, unless the garbage collector runs finalisers amid it: then both threads can get a SystemError though
    nothing is wrong with their sources. So the collector waits.
    """
    with _parsing:
        collects = gc.isenabled()
        gc.disable()
        try:
            return ast.parse(source)
        finally:
            if collects:
                gc.enable()


def _facts(tree: ast.Module) -> tuple[str, tuple[str, ...], set[str]]:
    """A text that is equal for equal code, the names of what is imported, and the string constants."""
    out: list[str] = []
    imports: list[str] = []
    texts: set[str] = set()

    def visit(node: ast.AST) -> None:
        out.append(type(node).__name__)
        if isinstance(node, ast.Constant):
            out.append(repr(node.value))
            if isinstance(node.value, str):
                texts.add(node.value)
            return
        if isinstance(node, ast.Import):
            imports.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            imports.append(node.module)
            imports.extend(f"{node.module}.{alias.name}" for alias in node.names)
        for name in node._fields:
            value = getattr(node, name, None)
            if isinstance(value, ast.AST):
                visit(value)
            elif isinstance(value, list):
                out.append("[")
                for item in value:
                    if not isinstance(item, ast.AST):
                        out.append(repr(item))
                    elif not (isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant)):  # a docstring
                        visit(item)
                out.append("]")
            else:
                out.append(repr(value))

    visit(tree)
    return "\n".join(out), tuple(imports), texts


def _short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


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
