"""How small a difference so many items can show, before anything is evaluated and after."""

import math
from statistics import NormalDist

LEVEL, POWER = 0.95, 0.8
CORRELATION = 0.5
"""Between two models' scores of an item, where nothing was measured: related policies mostly agree on what is hard."""


def detectable(error: float, *, level: float = LEVEL, power: float = POWER) -> float:
    """The smallest true difference that an interval of this level excludes 0 for with this chance (its power).

    (z of level + z of power) * `error`, the standard error of the paired difference: 2.8 of it (Miller, 2024, "Adding
    Error Bars to Evals", section 5; Card et al., 2020, "With Little Power Comes Great Responsibility").
    """
    normal = NormalDist()
    return (normal.inv_cdf((1 + level) / 2) + normal.inv_cdf(power)) * error


def worst_error(n: int, correlation: float = CORRELATION) -> float:
    """The standard error of the paired difference of two models on `n` items where it is largest.

    Right and wrong answers vary most where half are right, by a quarter; the difference of two that correlate then by
    (1 - correlation) / 2. Means of several samples vary less.
    """
    if n < 1:
        raise ValueError("no item shows anything")
    return math.sqrt((1 - correlation) / 2 / n)
