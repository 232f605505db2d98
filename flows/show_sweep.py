"""What `align sweep` prints, and the page that it writes."""

from typing import Any

from align.paired import Paired
from align.report import charts_points, page
from align.report.chapters import Chapter
from align.report.wording import MINUS, number, percent, plural, points, with_interval
from flows import show
from flows.points import Point, Sweep
from flows.space import Range

TEMPLATE = "templates/compare.html.jinja"


def as_rows(found: Sweep) -> tuple[list[str], list[list[Any]]]:
    """The sweep as a table: a point in a row, best first."""
    names = [axis.key for axis in found.axes]
    for suite in found.suites:
        lead = f"{suite} " if len(found.suites) > 1 else ""
        names += [f"{lead}{found.mode} %", f"{lead}Δ v. first"]
    lines: list[list[Any]] = []
    for point in found.points:
        line: list[Any] = [*point.values]
        for suite in found.suites:
            result, against = point.results.get(suite), point.against.get(suite)
            line.append("" if result is None else with_interval(result.value, result.low, result.high))
            line.append("first" if point is found.first else _difference(against))
        lines.append([*line, point.run_id or f"failed: {point.error}"])
    return [*names, "run"], lines


def _difference(d: Paired | None) -> str:
    if d is None:
        return ""
    return f"{points(d.value)} [{points(d.low, False)}, {points(d.high, False)}] {d.verdict}".replace(MINUS, "-")


def as_json(found: Sweep) -> dict[str, Any]:
    """The sweep for programs: shares in 0..1."""
    return {
        "model": found.model, "mode": found.mode, "level": found.level, "seed": found.seed, "command": found.command,
        "verdict": found.verdict(),
        "axes": {axis.key: _axis(axis) for axis in found.axes},
        "points": [
            {"settings": list(p.settings), "run_id": p.run_id, "error": p.error, "first": p is found.first,
             "results": {s: r._asdict() for s, r in p.results.items()},
             "against_first": {s: d._asdict() for s, d in p.against.items()}}
            for p in found.points
        ],
    }  # fmt: skip


def _axis(axis: Any) -> Any:
    if isinstance(axis, Range):
        return {"low": axis.low, "high": axis.high, "scale": "log" if axis.log else "linear"}
    return list(axis.values)


def tell(found: Sweep) -> None:
    """Print the table, what it shows, and the command that runs the best point again."""
    show.table(*as_rows(found))
    show.say(found.verdict())
    show.say(f"the best again: {found.command}" if found.command else "")


def html(found: Sweep, recipe: str) -> str:
    """The page, complete in itself: verdict, chart, table, and the command that runs the best point again."""
    lead = [found.verdict(), _how(found)]
    return page.render(TEMPLATE, title=f"Sweep of {recipe}", lead=lead, chapters=[_table(found), _best(found)])


def _how(found: Sweep) -> str:
    n, failed = len(found.points), len(found.failed)
    chosen = "all combinations" if found.seed is None else f"chosen by a search (TPE, seed {found.seed})"
    of = ", ".join(axis.key for axis in found.axes)
    return (
        f"{plural(n, 'point')} of {of}, {chosen}"
        + (f"; {failed} failed" if failed else "")
        + f". What counts is the {found.mode} score of {found.model}."
    )


def _table(found: Sweep) -> Chapter:
    chapter = Chapter("points", "Points, best first")
    chapter.lead = (
        "Scores are in per cent with their 95 % intervals, differences in points from the first point, paired by item; "
        f"each interval of a difference is a {percent(found.level, 2)} % one, so that all hold together at 95 %. The "
        "best of many on the same items scores a little more than it would on new ones."
    )
    charts = [(suite, chart, "") for i, suite in enumerate(found.suites) if (chart := _chart(found, suite, i))]
    chapter.figures(charts, wide=len(found.axes) > 1)
    names, rows = as_rows(found)
    cells = [[number(cell) for cell in row[:-1]] for row in rows]
    chapter.table(
        [*names[:-1], "run"], [[*line, row[-1]] for line, row in zip(cells, rows, strict=True)], text=len(names)
    )
    return chapter


def _chart(found: Sweep, suite: str, i: int) -> str:
    """Of one parameter the score along it, of several the points from best to worst."""
    graded = [p for p in found.points if suite in p.results]
    data = [_dot(found, p, suite) for p in graded]
    if not data:
        return ""
    y = f"{found.mode} score, %"
    if len(found.axes) > 1:
        return charts_points.ranked(data, x=y, key=f"points-{i}")
    axis = found.axes[0]
    log = isinstance(axis, Range) and axis.log
    order = None if isinstance(axis, Range) else list(axis.values)
    return charts_points.along(data, x=axis.key, y=y, order=order, log=log, key=f"points-{i}")


def _dot(found: Sweep, point: Point, suite: str) -> dict[str, Any]:
    result, against = point.results[suite], point.against.get(suite)
    kind = {"better": "up", "worse": "down"}.get(against.verdict if against else "", "open")
    return {
        "label": ", ".join(point.values),
        "value": point.values[0],
        "kind": "first" if point is found.first else kind,
        "mean": round(100 * result.value, 3),
        "low": round(100 * result.low, 3),
        "high": round(100 * result.high, 3),
    }


def _best(found: Sweep) -> Chapter:
    chapter = Chapter("again", "The best again")
    if found.command:
        chapter.code(found.command)
    else:
        chapter.note("No run has a result.", warn=True)
    return chapter
