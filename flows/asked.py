"""What the processes of a stage are asked for, and what they answer, as JSON: those of other machines read it from the
store, where whoever may write there must not have them run whatever it likes, as a pickle would.
"""

import json
import traceback
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from align.config import Config, Metrics
from align.errors import AlignError, StageError
from align.whole import write
from flows.compute import Compute
from flows.paths import ROOT

Function = Callable[..., Metrics]
_SAME = "install the same version of align on all machines."


class Asked(Config):
    """A call of a stage's function, with values as its signature has them."""

    processes: int
    """How many share it on each machine."""
    compute: Compute
    """How they do."""
    function: str
    """MODULE:NAME, as is the class of its settings."""
    settings: str
    config: dict[str, Any]
    out: Path
    inputs: dict[str, Any]

    def call(self) -> tuple[Function, Config, dict[str, Any]]:
        """The function, its settings and its inputs. Raises StageError where that is no stage's."""
        function, kind = _named(self.function), _named(self.settings)
        hints = _hints(function)
        wanted = hints.get("config", int)
        if not (_is_config(wanted) and _is_config(kind) and issubclass(kind, wanted) and hints.get("out") is Path):
            raise StageError(f"{self.function} with {self.settings} is no stage.")
        types = {name: TypeAdapter(_hint(function, hints, name)) for name in self.inputs}
        try:
            values = {name: types[name].validate_python(value) for name, value in self.inputs.items()}
            return function, kind.model_validate(self.config), values
        except ValidationError:
            raise StageError(f"{self.function} cannot be called like that; {_SAME}") from None


def ask(
    path: Path,
    function: Function,
    config: Config,
    out: Path,
    inputs: Mapping[str, Any],
    processes: int,
    compute: Compute,
) -> None:
    """Write a call where its processes look for it. Raises StageError where a value is none that settings can have."""
    asked = Asked(
        processes=processes, compute=compute, function=_name(function), settings=_name(type(config)),
        config=config.model_dump(mode="json"), out=out, inputs=dict(inputs),
    )  # fmt: skip
    try:
        write(path, asked.model_dump_json().encode())
    except ValueError as error:
        raise StageError(f"{_name(function)} cannot be spread over processes: {error}.") from None


def read(path: Path) -> Asked:
    """What a file asks for. Raises StageError where it is none, FileNotFoundError where it is gone."""
    try:
        return Asked.model_validate_json(path.read_bytes())
    except ValidationError:
        raise StageError(f"{path} is no call of a stage; {_SAME}") from None


def answer(path: Path, metrics: Metrics) -> None:
    """Write what a stage returned."""
    write(path, json.dumps(metrics).encode())


def answered(path: Path) -> Metrics:
    """What a stage returned."""
    found: Metrics = json.loads(path.read_bytes())
    return found


def fail(path: Path, error: BaseException) -> None:
    """Write what a stage raised."""
    write(path, json.dumps([type(error).__name__, str(error), traceback.format_exc()]).encode())


def failed(path: Path, who: str) -> AlignError:
    """What a stage raised: an AlignError as it is, anything else as that of `who`, with its traceback as a note."""
    name, message, trace = json.loads(path.read_bytes())
    kinds = {kind.__name__: kind for kind in _kinds(AlignError)}
    if name in kinds:
        return kinds[name](message)
    error = StageError(f"{who} failed with {name}: {message}")
    error.add_note(trace)
    return error


def _name(what: Any) -> str:
    return f"{what.__module__}:{what.__qualname__}"


def _named(name: str) -> Any:
    """What has that name in a module of this installation: no other is imported, which could do anything."""
    module, _, what = name.partition(":")
    try:
        found = find_spec(module.partition(".")[0])
        if found and not Path(found.origin or "").resolve().is_relative_to(ROOT):
            raise StageError(f"{name} is no stage.")
        return getattr(import_module(module), what)
    except (ImportError, AttributeError, ValueError):
        raise StageError(f"{name} is not here; {_SAME}") from None


def _hints(function: Any) -> dict[str, Any]:
    try:
        return get_type_hints(function)
    except (TypeError, NameError):
        return {}


def _hint(function: Function, hints: Mapping[str, Any], name: str) -> Any:
    """The type of an argument; one that the function does not name is of its `**others`."""
    known = signature(function).parameters
    others = next((p.name for p in known.values() if p.kind is Parameter.VAR_KEYWORD), "")
    if name not in known and not others:
        raise StageError(f"{_name(function)} has no input {name}; {_SAME}")
    return hints[name if name in known else others]


def _is_config(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Config)


def _kinds(kind: type[AlignError]) -> Iterator[type[AlignError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)
