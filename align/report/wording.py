"""How the report writes numbers and quotes texts."""

import json
from typing import Any

from align.report.numbers import MINUS, count, nats, number, percent, plural, points, with_interval
from align.report.words import say

__all__ = ["MINUS", "count", "nats", "number", "percent", "plural", "points", "with_interval"]


def shorten(text: str | None, limit: int = 400) -> str:
    """The beginning of a long text, and how much is missing."""
    if text is None:
        return ""
    text = text.strip("\n")
    left = len(text) - limit
    return text if left <= 0 else f"{text[:limit].rstrip()} … ({say('{n:more character}', n=left)})"


def as_dict(text: str | None) -> dict[str, Any]:
    """A JSON object; what is none becomes one with a single entry."""
    if not text:
        return {}
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    return value if isinstance(value, dict) else {"evidence": value}


def evidence(value: dict[str, Any]) -> list[tuple[str, str]]:
    """The evidence of a drop as names and short values."""
    flat = {k: json.dumps(v, ensure_ascii=False) if isinstance(v, dict | list) else number(v) for k, v in value.items()}
    return [(str(k).replace("_", " "), shorten(v, 200)) for k, v in flat.items()]
