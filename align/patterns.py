"""Regular expressions of recipes and data, matched against texts that models wrote, in bounded time.

Python's own `re` backtracks for ever on some patterns and texts, such as (x+x+)+y on many x. The regex library reads
the same patterns and stops at a deadline.
"""

from functools import lru_cache
from typing import Any

SECONDS = 1.0
"""How long one text may be searched; ordinary patterns take microseconds."""
LONGEST = 10_000
"""Characters that a pattern may have."""


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> Any:
    """The compiled pattern. Raises ValueError with the reason where it is no regular expression."""
    import regex

    if len(pattern) > LONGEST:
        raise ValueError(f"it has {len(pattern)} characters, more than {LONGEST}")
    try:
        return regex.compile(pattern)
    except (regex.error, OverflowError, RecursionError, MemoryError, ValueError) as error:
        raise ValueError(str(error) or type(error).__name__) from error


def findall(pattern: str, text: str, seconds: float = SECONDS) -> list[Any]:
    """All matches of a pattern in a text, as `re.findall` gives them. Raises TimeoutError after `seconds`."""
    return list(compiled(pattern).findall(text, timeout=seconds))


def search(pattern: str, text: str, seconds: float = SECONDS) -> Any:
    """The first match of a pattern in a text, or None. Raises TimeoutError after `seconds`."""
    return compiled(pattern).search(text, timeout=seconds)
