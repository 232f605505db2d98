"""The base of every configuration: typed, frozen, and deaf to nothing (an unknown key is an error)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.fields import FieldInfo

from align.errors import InputError

LARGEST = 2**32 - 1  # what libraries take as a seed, and more than any other whole number means
WIDEST = 3e38  # what single precision holds

Seed = Annotated[int, Field(ge=0, le=LARGEST)]


@dataclass(frozen=True)
class _Execution:
    """The mark of settings that decide how a stage is executed and not what it makes."""


EXECUTION = _Execution()
"""Marks a field as execution-only: `name: Annotated[int, EXECUTION] = 1`. It reaches the stage and is recorded with the
run, but is no part of a key: whatever it is set to, an artifact's bytes must be equal."""


def is_execution(field: FieldInfo) -> bool:
    """Whether a field of a Config is execution-only."""
    return EXECUTION in field.metadata


class Config(BaseModel):
    """A slice of a recipe. Frozen, so that what was hashed is what ran; no number is infinite, or no number at all."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    def contradictions(self) -> Iterator[str]:
        """Settings that would have no effect beside the others, or another one than is meant, as `key: sentence`."""
        yield from ()

    def check(self) -> None:
        """InputError with a line per contradiction, so that none is silently ignored."""
        if found := list(self.contradictions()):
            raise InputError("\n".join(found))

    def changed(self, *names: str) -> list[str]:
        """Those of the settings that are not as by default. Having been given does not count: forms give all."""
        fields = type(self).model_fields
        return [n for n in names if getattr(self, n) != fields[n].get_default(call_default_factory=True)]

    @field_validator("*", mode="after")
    @classmethod
    def _sensible(cls, value: Any) -> Any:
        for number in _numbers(value):
            if abs(number) > (LARGEST if isinstance(number, int) else WIDEST):
                most = LARGEST if isinstance(number, int) else WIDEST
                raise ValueError(f"no setting may be larger than {most}")
        return value


def _numbers(value: Any) -> Iterator[int | float]:
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _numbers(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _numbers(item)


Metrics = dict[str, float | int | str]
"""What a stage counts and measures, by dotted names."""
