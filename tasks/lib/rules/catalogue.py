"""The rules that a recipe can list. A rule is a config with thresholds and one method; here it gets its line."""

from typing import Annotated

from pydantic import Field

from tasks.lib.rules.diversity import Budget
from tasks.lib.rules.duplicates import Duplicates, NearDuplicates
from tasks.lib.rules.form import Broken, Echo, Empty, Length, Repetition, Truncated
from tasks.lib.rules.language import Language
from tasks.lib.rules.mismatch import Mismatched
from tasks.lib.rules.parses import Parses
from tasks.lib.rules.personal import PersonalData
from tasks.lib.rules.prompts import Placeholder, Unseen
from tasks.lib.rules.quality import IFD, Perplexity
from tasks.lib.rules.rating import Rating
from tasks.lib.rules.texts import Mojibake, Refusal

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
