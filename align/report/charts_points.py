"""Charts of the points of a sweep: scores with their intervals, along one parameter or from best to worst."""

from collections.abc import Mapping, Sequence
from typing import Any

from align.report.charts import BLUE, GREEN, GREY, HEIGHT, INK, RED, WIDTH, draw, room

KINDS = {"first": BLUE, "up": GREEN, "down": RED, "open": GREY}
"""The colours of the point that the others are compared with, and of those that are shown to be better or worse."""
MOST_LABEL = 28  # characters of a label


def along(
    points: Sequence[Mapping[str, Any]], *, x: str, y: str, order: Sequence[str] | None, log: bool, key: str
) -> str:
    """Scores by the value of a parameter. A point has value, mean, low, high and kind; `order` lists the values as they
    are written, None means that they are numbers of a range."""
    import altair as alt

    if order is None:
        data = [{**p, "value": float(p["value"])} for p in points]
        scale = alt.Scale(type="log" if log else "linear", zero=False, nice=False, padding=12)
        across: Any = alt.X("value:Q", title=x, scale=scale, axis=alt.Axis(grid=False, tickCount=4, format="~g"))
    else:
        data = [dict(p) for p in points]
        across = alt.X("value:N", title=x, sort=list(order), axis=alt.Axis(labelAngle=0, ticks=False))
    up = alt.Y("low:Q", title=y, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5, domain=False, ticks=False))
    base = alt.Chart(alt.Data(values=data), width=WIDTH, height=HEIGHT)
    spread = base.mark_rule(strokeWidth=2).encode(x=across, y=up, y2="high:Q", color=_colour())
    dots = base.mark_point(filled=True, size=60, opacity=1).encode(x=across, y="mean:Q", color=_colour())
    return draw(spread + dots, f"{y} by {x}", key)


def ranked(points: Sequence[Mapping[str, Any]], *, x: str, key: str) -> str:
    """Scores in the order of the points, a line each. A point has label, mean, low, high and kind."""
    import altair as alt

    data = [{**p, "label": f"{i}. {_short(p['label'])}"} for i, p in enumerate(points, 1)]
    names = [p["label"] for p in data]
    down = alt.Y("label:N", sort=names, title=None, axis=alt.Axis(domain=False, ticks=False, labelColor=INK,
                 labelPadding=8, minExtent=room(names)))  # fmt: skip
    across = alt.X("low:Q", title=x, scale=alt.Scale(zero=False, nice=True), axis=alt.Axis(tickCount=5, domain=False))
    base = alt.Chart(alt.Data(values=data), width=WIDTH + 20, height=alt.Step(22))
    spread = base.mark_rule(strokeWidth=2).encode(x=across, x2="high:Q", y=down, color=_colour())
    dots = base.mark_point(filled=True, size=60, opacity=1).encode(x="mean:Q", y=down, color=_colour())
    return draw(spread + dots, f"{x} of {len(data)} points", key)


def _colour() -> Any:
    import altair as alt

    return alt.Color("kind:N", scale=alt.Scale(domain=list(KINDS), range=list(KINDS.values())), legend=None)


def _short(text: str) -> str:
    return text if len(text) <= MOST_LABEL else f"{text[: MOST_LABEL - 1]}…"
