"""The points of a sweep: what came of each, and which is shown to be better."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from align.paired import Paired
from align.stats import Interval
from flows.space import Axis


@dataclass
class Point:
    """One combination: its settings, and what came of its run."""

    settings: tuple[str, ...]
    """Those that differ between points, as `dotted.key=value`."""
    run_id: str = ""
    error: str = ""
    results: dict[str, Interval] = field(default_factory=dict)
    """The model's score in each suite, in the primary mode."""
    against: dict[str, Paired] = field(default_factory=dict)
    """Its paired difference from the first point in each suite, at a level that accounts for the number of points."""

    @property
    def mean(self) -> float:
        """The mean over suites, by which points are ranked; below every score where there is none."""
        return sum(r.value for r in self.results.values()) / len(self.results) if self.results else -1.0

    @property
    def values(self) -> list[str]:
        """The values of its settings."""
        return [setting.partition("=")[2] for setting in self.settings]

    @property
    def name(self) -> str:
        """Its settings in a line."""
        return ", ".join(self.settings) or "the recipe as it is"


@dataclass(frozen=True)
class Sweep:
    """All points of a sweep, best first."""

    model: str
    mode: str
    level: float
    """The level of each difference's interval: those of all points and suites hold together at 95 % (Bonferroni; Dunn,
    1961)."""
    points: Sequence[Point]
    first: Point
    """The point that the others are compared with."""
    command: str
    """What runs the best point by itself; "" where none has a result."""
    axes: Sequence[Axis] = ()
    """What differs between the points."""
    seed: int | None = None
    """That of the search by which the points were chosen; None where every combination was run."""

    @property
    def suites(self) -> list[str]:
        """The suites that grade a point."""
        return sorted({suite for point in self.points for suite in point.results})

    @property
    def failed(self) -> list[Point]:
        """The points whose runs failed."""
        return [point for point in self.points if point.error]

    def verdict(self) -> str:
        """What the sweep shows, in a sentence."""
        best = self.points[0]
        if not best.results:
            return "No run has a result."
        if best is self.first or not best.against:
            return (
                f"Best by its mean is {best.name}, the first point." if best is self.first else f"Best is {best.name}."
            )
        shown = [suite for suite, d in best.against.items() if d.verdict == "better"]
        rest = f"over {', '.join(self.first.settings)}"
        if not shown:
            return f"Best by its mean is {best.name}, which is not shown to be better: no interval {rest} excludes 0."
        where = f" on {', '.join(shown)}" if len(best.against) > 1 else ""
        return f"Best by its mean is {best.name}, shown to be better{where} {rest}."
