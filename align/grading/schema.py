"""Whether a response is JSON of a given form (JSON Schema)."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from align import patterns
from align.config import Config
from align.errors import AlignError, InputError, StageError
from align.grading.grade import Grade, Item, correct, ungraded, unreadable, wrong

_FENCE = re.compile(r"^[ \t]*```[ \t]*(\w*)[ \t]*\n(.*?)^[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE)
_DEPTH = 100
"""Levels of nesting that a response may have."""


class JsonSchemaGrader(Config):
    """Validate the one JSON value of a response: all of it, or what stands in its one ``` fence.

    The schema is `file`, `inline`, or else the row's reference. A response without such a value is `unreadable`.
    """

    kind: Literal["json_schema"] = "json_schema"
    """JSON of a given form."""
    file: Path | None = None
    """File with the JSON Schema."""
    inline: dict[str, Any] | None = None
    """The JSON Schema itself."""

    @model_validator(mode="after")
    def _check(self) -> "JsonSchemaGrader":
        if self.file is not None and self.inline is not None:
            raise ValueError("json_schema takes file or inline, not both")
        if self.inline is not None:
            try:
                validator(json.dumps(self.inline))
            except ValueError as error:
                raise ValueError(f"json_schema.inline {error}") from error
        return self

    def contradictions(self) -> Iterator[str]:
        try:
            if self.file is not None and self.file.is_file():
                validator(self.file.read_text(encoding="utf-8"))
        except ValueError as error:
            yield f"file: {self.file} {error}."

    @property
    def name(self) -> str:
        """What scores and pairs call this grader."""
        return "json_schema"

    def schema_of(self, item: Item) -> Any:
        """The validator of an item. Raises InputError naming the file, or StageError the row, where there is none."""
        try:
            if self.file is not None:
                return validator(self.file.read_text(encoding="utf-8"))
            if self.inline is None and item.reference is None:
                raise StageError(f"Row {item.row_id} has no reference, which is the JSON Schema of its answer.")
            return validator(item.reference or "" if self.inline is None else json.dumps(self.inline))
        except (ValueError, OSError) as error:
            if self.file is not None:
                raise InputError(f"{self.file} {error}") from error
            raise StageError(f"The reference of row {item.row_id} {error}") from error

    def grade(self, items: Sequence[Item]) -> list[Grade]:
        """Grade all items. Raises InputError or StageError where a schema is none."""
        return [self._one(item) for item in items]

    def _one(self, item: Item) -> Grade:
        check = self.schema_of(item)
        try:
            value = answered(item.response)
        except ValueError as error:
            return unreadable(str(error))
        try:
            wrongs = sorted(check.iter_errors(value), key=lambda e: (len(e.absolute_path), e.json_path))
        except TimeoutError:
            return ungraded(f"searching the response for a pattern of the schema took over {patterns.SECONDS:g} s")
        except AlignError:
            raise
        except Exception as error:  # a reference that leads nowhere, a number beyond what floats hold
            raise StageError(
                f"The JSON Schema of row {item.row_id} cannot be applied ({type(error).__name__}: {error})"
            ) from error
        if wrongs:
            return wrong(f"{wrongs[0].json_path}: {wrongs[0].message}"[:300])
        return correct()


def answered(response: str) -> Any:
    """The one JSON value in a response. Raises ValueError saying why there is none."""
    fences = [m[2] for m in _FENCE.finditer(response) if m[1].lower() in ("", "json", "json5", "jsonc")]
    if len(fences) > 1:
        raise ValueError(f"{len(fences)} fenced blocks, so that none is the answer")
    text = fences[0] if fences else response
    try:
        value = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_unique)
    except RecursionError as error:
        raise ValueError(f"nested more than {_DEPTH} levels deep") from error
    except ValueError as error:
        raise ValueError(f"no JSON: {error}") from error
    if _deeper(value, _DEPTH):
        raise ValueError(f"nested more than {_DEPTH} levels deep")
    return value


@lru_cache(maxsize=256)
def validator(schema: str) -> Any:
    """A validator of a JSON Schema given as JSON, of the draft that it names (2020-12 where it names none).

    Nothing is fetched: what `$ref` names stands in the schema. Patterns are searched in bounded time. Raises ValueError
    saying what is wrong with the schema.
    """
    from jsonschema import Draft202012Validator, SchemaError, validators
    from referencing import Registry

    try:
        held = json.loads(schema)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is no JSON ({error})") from error
    draft = validators.validator_for(held, default=Draft202012Validator) if isinstance(held, dict) else None
    if draft is None and not isinstance(held, bool):
        raise ValueError("is no JSON Schema, which is an object")
    draft = draft or Draft202012Validator
    try:
        draft.check_schema(held)
    except (SchemaError, RecursionError) as error:
        raise ValueError(f"is no JSON Schema ({getattr(error, 'message', None) or 'nested too deeply'})") from error
    for pattern in _patterns(held):
        try:
            patterns.compiled(pattern)
        except ValueError as error:
            raise ValueError(f"holds {pattern[:100]!r}, which is no regular expression ({error})") from error
    own = {"pattern": _pattern, "patternProperties": _pattern_properties, "additionalProperties": _additional}
    made = validators.extend(draft, own)(held, registry=Registry())
    try:
        probes: list[Any] = [{}, [], "", 0]
        for probe in probes:
            made.is_valid(probe)
    except RecursionError as error:
        raise ValueError("refers to itself without end") from error
    except Exception as error:
        raise ValueError(f"cannot be applied ({type(error).__name__}: {error})") from error
    return made


def _patterns(schema: Any) -> Iterator[str]:
    """The regular expressions in a schema. Raises ValueError for a place where they would be searched without bound."""
    if isinstance(schema, dict):
        if "unevaluatedProperties" in schema and '"patternProperties"' in json.dumps(schema):
            raise ValueError(
                "has unevaluatedProperties beside patternProperties, which cannot be checked in bounded time"
            )
        if isinstance(schema.get("pattern"), str):
            yield schema["pattern"]
        if isinstance(schema.get("patternProperties"), dict):
            yield from schema["patternProperties"]
        for value in schema.values():
            yield from _patterns(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _patterns(value)


def _pattern(check: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if isinstance(instance, str) and not patterns.search(pattern, instance):
        yield ValidationError(f"{instance[:100]!r} does not match {pattern[:100]!r}")


def _pattern_properties(check: Any, forms: Mapping[str, Any], instance: Any, schema: Any) -> Iterator[Any]:
    for pattern, form in forms.items() if isinstance(instance, dict) else ():
        for name, value in instance.items():
            if patterns.search(pattern, name):
                yield from check.descend(value, form, path=name, schema_path=pattern)


def _additional(check: Any, form: Any, instance: Any, schema: Any) -> Iterator[Any]:
    """What neither `properties` nor a pattern of `patternProperties` names."""
    from jsonschema import ValidationError

    if not isinstance(instance, dict):
        return
    known, forms = schema.get("properties", {}), schema.get("patternProperties", {})
    extra = [n for n in instance if n not in known and not any(patterns.search(p, n) for p in forms)]
    if isinstance(form, dict):
        for name in extra:
            yield from check.descend(instance[name], form, path=name)
    elif not form and extra:
        yield ValidationError(f"{', '.join(map(repr, extra[:3]))} may not be there")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has the same key twice")
    return found


def _deeper(value: Any, levels: int) -> bool:
    """Whether a value nests deeper; without recursion, which deep values would exhaust."""
    todo = [(value, 0)]
    while todo:
        at, depth = todo.pop()
        if depth > levels:
            return True
        inside = at.values() if isinstance(at, dict) else at if isinstance(at, list) else ()
        todo += [(v, depth + 1) for v in inside]
    return False
