"""The rules that a recipe can list. A rule is a config with thresholds and one method; here it gets its line."""

from typing import Annotated

from pydantic import Field

from tasks.lib.diversity import Budget
from tasks.lib.duplicates import Duplicates, NearDuplicates
from tasks.lib.language import Language
from tasks.lib.mismatch import Mismatched
from tasks.lib.parses import Parses
from tasks.lib.personal import PersonalData
from tasks.lib.quality import IFD, Perplexity
from tasks.lib.rating import Rating
from tasks.lib.rules_form import Broken, Echo, Empty, Length, Repetition, Truncated
from tasks.lib.rules_prompt import Placeholder, Unseen
from tasks.lib.rules_text import Mojibake, Refusal

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
