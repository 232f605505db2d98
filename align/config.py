"""The base of every configuration: typed, frozen, and deaf to nothing (an unknown key is an error)."""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A slice of a recipe. Frozen, so that what was hashed is what ran."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


Metrics = dict[str, float | int | str]
"""What a stage counts and measures, by dotted names."""
