"""How the report writes numbers, in any language. Stages may import this: a new sentence reruns none of them."""

from typing import Any

MINUS = "\u2212"


def count(n: int) -> str:
    """1234567 → 1,234,567."""
    return f"{n:,}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share in 0..1 as per cent, without the sign."""
    return "–" if share is None else f"{100 * share:.{digits}f}".replace("-", MINUS)


def with_interval(share: float | None, low: float | None, high: float | None) -> str:
    """61.2 [57.0, 65.4], in per cent."""
    if share is None:
        return "–"
    return percent(share) if low is None or high is None else f"{percent(share)} [{percent(low)}, {percent(high)}]"


def points(diff: float, sign: bool = True) -> str:
    """A difference of shares in percentage points."""
    text = f"{100 * diff:+.1f}" if sign else f"{100 * diff:.1f}"
    return ("0.0" if text in ("-0.0", "+0.0") else text).replace("-", MINUS)


def nats(value: float) -> str:
    """A change of a log-probability."""
    return f"{value:+.2f}".replace("-", MINUS)


def number(value: Any) -> str:
    """A metric for people: whole numbers in full, others with four significant digits."""
    if isinstance(value, bool) or value is None:
        return "–" if value is None else str(value).lower()
    if isinstance(value, int):
        return count(value).replace("-", MINUS)
    if isinstance(value, float):
        return (f"{value:,.4g}" if abs(value) < 1e6 else f"{value:.3g}").replace("-", MINUS)
    return str(value)


def plural(n: int, one: str, many: str | None = None) -> str:
    """1 row, 2 rows, 1,000 rows."""
    return f"{count(n)} {one if n == 1 else many or one + 's'}"
