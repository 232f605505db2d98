"""Charts for the report: Vega-Lite specifications drawn to inline SVG, whose colours follow the page's theme.

A chart is drawn with stand-in colours that become CSS variables of the page. The SVG of equal input is equal, byte for
byte: ids that the renderer counts up are renumbered, and nothing is animated or fetched.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any
from unicodedata import east_asian_width

import numpy as np

from align.report.words import say

INK, MUTED, GRID = "#000001", "#000002", "#000003"
BLUE, ORANGE, GREY, GREEN, RED, PURPLE = "#000004", "#000005", "#000006", "#000007", "#000008", "#000009"
_VARIABLES = {
    INK: "--ink", MUTED: "--muted", GRID: "--grid", BLUE: "--blue", ORANGE: "--orange", GREY: "--grey",
    GREEN: "--green", RED: "--red", PURPLE: "--purple",
}  # fmt: skip
SERIES = (BLUE, ORANGE, GREY, GREEN, PURPLE, RED)

WIDTH, HEIGHT = 240, 140  # of the plotting area, in CSS pixels: three charts side by side on a laptop, one on a phone


def draw(chart: Any, label: str, key: str) -> str:
    """The SVG of an Altair chart. `label` is what a screen reader says; `key` makes its ids unique on the page."""
    import vl_convert

    chart = chart.configure(
        font="sans-serif",
        background="transparent",
        aria=False,
        padding=4,
    )
    chart = chart.configure_view(stroke=None, clip=False)
    chart = chart.configure_axis(
        labelColor=MUTED, titleColor=MUTED, gridColor=GRID, domainColor=GRID, tickColor=GRID, labelFontSize=11,
        titleFontSize=11, titleFontWeight="normal", tickSize=4, labelPadding=4, titlePadding=6, labelLimit=220,
    )  # fmt: skip
    chart = chart.configure_legend(
        labelColor=INK, titleColor=MUTED, orient="top", direction="horizontal", title=None, labelFontSize=11,
        symbolStrokeWidth=2.5, symbolSize=90, columnPadding=10, offset=6, padding=0, labelLimit=260,
    )  # fmt: skip
    return _themed(vl_convert.vegalite_to_svg(chart.to_dict()), label, key)


def _themed(svg: str, label: str, key: str) -> str:
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(f'"{colour}"', f'"var({variable})"')
    ids = {found: f"{key}-{i}" for i, found in enumerate(dict.fromkeys(re.findall(r' id="([^"]+)"', svg)))}
    for old, new in ids.items():
        svg = svg.replace(f' id="{old}"', f' id="{new}"').replace(f"url(#{old})", f"url(#{new})")
    svg = re.sub(r' font-family="[^"]*"', "", svg)
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert size is not None
    alt = label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    widest = round(1.15 * float(size[1]))
    head = f'<svg role="img" aria-label="{alt}" viewBox="0 0 {size[1]} {size[2]}" style="max-width:{widest}px">'
    return re.sub(r"<svg [^>]*>", lambda _: head, svg, count=1)


def _colours(names: Sequence[str], given: Mapping[str, str] | None) -> Any:
    import altair as alt

    used = [(given or {}).get(name, SERIES[i % len(SERIES)]) for i, name in enumerate(names)]
    return alt.Scale(domain=list(names), range=used)


def lines(
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    x: str,
    y: str,
    key: str,
    colours: Mapping[str, str] | None = None,
    zero: bool = False,
) -> str:
    """Curves of (x, y) points by name; `zero` draws the line y = 0."""
    import altair as alt

    values = [{"x": a, "y": b, "s": name} for name, points in series.items() for a, b in points]
    legend = alt.Legend() if len(series) > 1 else None
    chart = (
        alt.Chart(alt.Data(values=values), width=WIDTH, height=HEIGHT)
        .mark_line(strokeWidth=1.75, interpolate="linear", point=len(values) == len(series))
        .encode(
            x=alt.X("x:Q", title=x, axis=alt.Axis(grid=False, tickCount=5, tickMinStep=1)),
            y=alt.Y("y:Q", title=y, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5, domain=False, ticks=False)),
            color=alt.Color("s:N", scale=_colours(list(series), colours), legend=legend),
        )
    )
    if zero:
        rule = alt.Chart(alt.Data(values=[{"y": 0}])).mark_rule(color=MUTED, strokeDash=[3, 3]).encode(y="y:Q")
        chart = rule + chart
    return draw(chart, say("{y} by {x}: {names}", y=y, x=x, names=", ".join(series)), key)


def distribution(
    values: Mapping[str, Any],
    *,
    x: str,
    key: str,
    colours: Mapping[str, str] | None = None,
    rule: float | None = None,
    bins: int = 30,
    clip: float | None = None,
) -> str:
    """The share of each named sample (numbers) per bin, as steps; beyond the `clip` quantile in the last bin."""
    arrays = {name: np.asarray(list(v), dtype=float) for name, v in values.items()}
    arrays = {name: a[np.isfinite(a)] for name, a in arrays.items() if np.isfinite(a).any()}
    everything = np.concatenate(list(arrays.values()))
    low, high = float(everything.min()), float(np.quantile(everything, clip) if clip else everything.max())
    if high <= low:
        low, high = low - 0.5, low + 0.5
    whole = bool(np.all(everything == np.round(everything)))
    bins = min(bins, max(8, int(min(map(len, arrays.values())) ** 0.5)))  # few values in many bins show noise
    count = min(bins, int(high - low) + 1) if whole else bins
    edges = np.linspace(low, high + (1 if whole and count < bins else 0), count + 1)
    points = []
    for name, a in arrays.items():
        shares = np.histogram(np.clip(a, edges[0], edges[-1]), edges)[0] / len(a)
        for edge, share in zip(edges, [*shares, 0.0], strict=True):
            points.append({"x": round(float(edge), 6), "y": round(float(share), 6), "s": name})
    return _steps(points, list(arrays), x, key, colours, rule)


def steps(
    values: Mapping[str, Mapping[float, float]],
    *,
    x: str,
    key: str,
    colours: Mapping[str, str] | None = None,
    octaves: bool = False,
) -> str:
    """Shares per bucket: series -> lower edge -> share, where empty buckets may be missing.

    Buckets are equally wide, or `octaves`: 0, 1, 2, 4, 8, ...
    """
    known = sorted({low for shares in values.values() for low in shares})
    width = 1.0 if octaves else min((b - a for a, b in pairwise(known)), default=1.0)

    def place(low: float) -> int:
        return round(math.log2(low)) + 1 if octaves and low else round((low - known[0]) / width)

    def edge(i: int) -> float:
        return (2.0 ** (i - 1) if i else 0.0) if octaves else known[0] + i * width

    first, last = place(known[0]), place(known[-1])
    points = []
    for name, shares in values.items():
        placed = {place(low): share for low, share in shares.items()}
        for i in range(first, last + 2):
            points.append({"x": round(edge(i), 6), "y": round(placed.get(i, 0.0), 6), "s": name})
    return _steps(points, list(values), x, key, colours, None, octaves)


def _steps(
    points: list[dict[str, Any]],
    names: list[str],
    x: str,
    key: str,
    colours: Mapping[str, str] | None,
    rule: float | None = None,
    octaves: bool = False,
) -> str:
    import altair as alt

    legend = alt.Legend() if len(names) > 1 else None
    base = alt.Chart(alt.Data(values=points), width=WIDTH, height=HEIGHT)
    scale = alt.Scale(type="symlog", constant=1, nice=False) if octaves else alt.Scale(nice=False, zero=False)
    edges = sorted({p["x"] for p in points})
    ticks = edges[:: -(-len(edges) // 6)]
    axis = alt.Axis(grid=False, values=ticks, format="~s") if octaves else alt.Axis(grid=False, tickCount=5)
    encoding = {
        "x": alt.X("x:Q", title=x, scale=scale, axis=axis),
        "y": alt.Y("y:Q", title=None, axis=alt.Axis(format="%", tickCount=4, domain=False, ticks=False)),
        "color": alt.Color("s:N", scale=_colours(names, colours), legend=legend),
    }
    chart = base.mark_line(interpolate="step-after", strokeWidth=1.75).encode(**encoding)
    if len(names) == 1:
        chart = base.mark_area(interpolate="step-after", opacity=0.2, line=False).encode(**encoding) + chart
    if rule is not None:
        mark = alt.Chart(alt.Data(values=[{"x": rule}])).mark_rule(color=INK, strokeDash=[3, 3]).encode(x="x:Q")
        chart = chart + mark
    return draw(chart, say("Distribution of {x}: {names}", x=x, names=", ".join(names)), key)


def bars(
    values: Mapping[str, Mapping[str, float]],
    *,
    key: str,
    x: str | None = None,
    colours: Mapping[str, str] | None = None,
    percent: bool = True,
) -> str:
    """Grouped horizontal bars: category -> series -> value."""
    import altair as alt

    series = list(dict.fromkeys(name for group in values.values() for name in group))
    data = [{"c": c, "s": s, "v": v} for c, group in values.items() for s, v in group.items()]
    step = 11 if len(series) > 1 else 18
    chart = (
        alt.Chart(alt.Data(values=data), width=WIDTH - 50, height=alt.Step(step))
        .mark_bar(cornerRadiusEnd=2)
        .encode(
            y=alt.Y("c:N", sort=None, title=None, scale=alt.Scale(paddingInner=0.35),
                    axis=alt.Axis(domain=False, ticks=False, labelColor=INK, minExtent=room(values))),
            x=alt.X("v:Q", title=x, axis=alt.Axis(format="%" if percent else "~s", tickCount=4, domain=False)),
            color=alt.Color("s:N", scale=_colours(series, colours), legend=alt.Legend() if len(series) > 1 else None),
        )
    )  # fmt: skip
    if len(series) > 1:
        chart = chart.encode(yOffset=alt.YOffset("s:N", sort=series))
    return draw(chart, say("{x} of {names}", x=x or say("share"), names=", ".join(values)), key)


def columns(values: Mapping[int, float], *, x: str, y: str, key: str, colours: Mapping[int, str] | None = None) -> str:
    """Vertical bars over whole numbers."""
    import altair as alt

    data = [{"x": k, "v": v, "f": (colours or {}).get(k, BLUE)} for k, v in sorted(values.items())]
    chart = (
        alt.Chart(alt.Data(values=data), width=WIDTH, height=HEIGHT)
        .mark_bar(cornerRadiusEnd=2)
        .encode(
            x=alt.X("x:O", title=x, axis=alt.Axis(labelAngle=0, domain=True, ticks=False, labelOverlap=True)),
            y=alt.Y("v:Q", title=y, axis=alt.Axis(tickCount=4, domain=False, ticks=False)),
            color=alt.Color("f:N", scale=None),
        )
    )
    return draw(chart, say("{y} by {x}", y=y, x=x), key)


def calibration(points: Sequence[tuple[float, float, float, float, int]], *, x: str, y: str, key: str) -> str:
    """Points (predicted, observed, low, high, n) against the diagonal that a calibrated model lies on."""
    import altair as alt

    data = [{"p": p, "o": o, "l": lo, "h": hi, "n": n} for p, o, lo, hi, n in points]
    low = min([0.5, *(d["l"] for d in data)])
    scale = alt.Scale(domain=[0.5, 1], nice=False)
    vertical = alt.Scale(domain=[low, 1], nice=False)
    ends = alt.Data(values=[{"p": 0.5, "o": 0.5}, {"p": 1, "o": 1}])
    diagonal = alt.Chart(ends).mark_line(color=MUTED, strokeDash=[3, 3], strokeWidth=1).encode(x="p:Q", y="o:Q")
    base = alt.Chart(alt.Data(values=data), width=WIDTH, height=HEIGHT)
    across = alt.X("p:Q", title=x, scale=scale, axis=alt.Axis(format="%", grid=False, tickCount=5))
    axis = alt.Axis(format="%", tickCount=5, domain=False, ticks=False)
    spread = base.mark_rule(color=BLUE, strokeWidth=1.5).encode(
        x=across, y=alt.Y("l:Q", title=y, scale=vertical, axis=axis), y2="h:Q"
    )
    dots = base.mark_point(color=BLUE, filled=True, opacity=1, size=45).encode(x=across, y="o:Q")
    return draw(diagonal + spread + dots, say("{y} by {x}", y=y, x=x), key)


def room(labels: Iterable[str]) -> int:
    """Pixels that the longest label takes in a wide font: the reader's font is not the renderer's."""
    wide = (sum(12 if east_asian_width(c) in "WF" else 7.1 for c in label) for label in labels)
    return min(220, 8 + round(max(wide, default=0)))


def forest(rows: Sequence[Mapping[str, Any]], *, x: str, key: str) -> str:
    """Differences with intervals, one line each: label, diff, low, high, kind (up, down, open, few)."""
    import altair as alt

    data = [dict(r) for r in rows]
    fills = alt.Scale(domain=["up", "down", "open", "few"], range=[GREEN, RED, GREY, GREY])
    order = [r["label"] for r in data]
    across = alt.X("low:Q", title=x, scale=alt.Scale(zero=True, nice=True), axis=alt.Axis(tickCount=5, domain=False))
    down = alt.Y("label:N", sort=order, title=None, axis=alt.Axis(domain=False, ticks=False, labelColor=INK,
                 labelPadding=8, minExtent=room(order)))  # fmt: skip
    base = alt.Chart(alt.Data(values=data), width=WIDTH + 20, height=alt.Step(26))
    colour = alt.Color("kind:N", scale=fills, legend=None)
    spread = base.mark_rule(strokeWidth=2.5).encode(x=across, x2="high:Q", y=down, color=colour)
    dots = base.mark_point(filled=True, size=80, opacity=1).encode(x="diff:Q", y=down, color=colour)
    zero = alt.Chart(alt.Data(values=[{"v": 0}])).mark_rule(color=INK, strokeWidth=1).encode(x="v:Q")
    return draw(zero + spread + dots, say("Paired differences with 95 % intervals"), key)
