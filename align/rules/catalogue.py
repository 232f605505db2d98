"""The rules that a recipe can list. A rule is a config with thresholds and one method; here it gets its line."""

from typing import Annotated

from pydantic import Field

from align.rules.diversity import Budget
from align.rules.duplicates import Duplicates, NearDuplicates
from align.rules.form import Broken, Echo, Empty, Length, Repetition, Truncated
from align.rules.language import Language
from align.rules.mismatch import Mismatched
from align.rules.parses import Parses
from align.rules.personal import PersonalData
from align.rules.prompts import Placeholder, Unseen
from align.rules.quality import IFD, Perplexity
from align.rules.rating import Rating
from align.rules.texts import Mojibake, Refusal

AnyRule = Annotated[
    Empty
    | Mojibake
    | Placeholder
    | Unseen
    | Refusal
    | Truncated
    | Broken
    | Repetition
    | Echo
    | Length
    | Language
    | Parses
    | PersonalData
    | Duplicates
    | NearDuplicates
    | Mismatched
    | IFD
    | Perplexity
    | Rating
    | Budget,
    Field(discriminator="rule"),
]

DEFAULT: tuple[AnyRule, ...] = (
    Empty(), Mojibake(), Placeholder(), Unseen(), Refusal(), Truncated(), Broken(), Repetition(), Echo(), Length(),
    Language(), Duplicates(), NearDuplicates(),
)  # fmt: skip
