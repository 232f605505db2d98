"""A search through the space of a sweep: which points are tried is decided by what the points before came to."""

import importlib.util
from collections.abc import Iterator, Mapping
from io import StringIO
from typing import TYPE_CHECKING, Any

from align.errors import InputError
from flows.points import Point
from flows.recipe import Recipe
from flows.space import Axis, Listed, Space

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution

DRAWN = 10
"""Points before the search begins to learn: the first, and others at random. Fixed, so that more trials begin with the
points that fewer had."""


def available() -> None:
    """InputError where the library that searches is not installed."""
    if importlib.util.find_spec("optuna") is None:
        raise InputError("--trials needs optuna, which is not installed; pip install 'align-pipeline[sweep]'.")


class Search:
    """`n` points of a space, by the Tree-structured Parzen Estimator (Bergstra et al., 2011) of optuna.

    The first has the values of the recipe, where the space holds them. What a point came to is read off it when the
    next one is asked for: its mean score, which is maximised, or that it failed. With the same seed and the same
    results the points are the same, so that a sweep that is typed again finds its runs cached; no point comes twice. In
    batches of another size those after the first DRAWN are others, since they learn from others.
    """

    def __init__(self, space: Space, n: int, seed: int, recipe: Recipe):
        """`n` is less than the size of the space."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space, self._n = space, n
        self._learning = optuna.samplers.TPESampler(seed=seed, n_startup_trials=DRAWN)
        self._at_random = optuna.samplers.RandomSampler(seed=seed)
        self.study: Study = optuna.create_study(direction="maximize")
        self.study.enqueue_trial({axis.key: _first(axis, recipe) for axis in space.axes})

    def batches(self, size: int) -> Iterator[list[Point]]:
        """The points, `size` at a time; those of a batch are to be run before the next is asked for, and know nothing
        of each other."""
        from optuna.trial import TrialState

        tried: set[tuple[str, ...]] = set()
        while len(tried) < self._n:
            batch: list[tuple[Any, Point]] = []
            while len(batch) < size and len(tried) < self._n:
                trial, settings = self._ask(self._learning)
                while settings in tried:  # learning may stay where it is, and a point that is known teaches nothing
                    self.study.tell(trial, state=TrialState.FAIL)
                    trial, settings = self._ask(self._at_random)
                tried.add(settings)
                batch.append((trial, Point(settings)))
            yield [point for _, point in batch]
            for trial, point in batch:
                if point.results:
                    self.study.tell(trial, point.mean)
                else:
                    self.study.tell(trial, state=TrialState.FAIL)

    def _ask(self, sampler: Any) -> tuple[Any, tuple[str, ...]]:
        self.study.sampler = sampler
        trial = self.study.ask({axis.key: _distribution(axis) for axis in self._space.axes})
        settings = [
            f"{axis.key}={value if isinstance(axis, Listed) else axis.written(value)}"
            for axis in self._space.axes
            for value in [trial.params[axis.key]]
        ]
        return trial, tuple(settings)


def _distribution(axis: Axis) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(axis, Listed):
        return CategoricalDistribution(axis.values)
    if axis.whole:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return FloatDistribution(axis.low, axis.high, log=axis.log)


def _first(axis: Axis, recipe: Recipe) -> Any:
    """The recipe's own value where the axis holds it; else the first of a list, and the middle of a range."""
    own = _own(recipe.model_dump(mode="json"), axis.key)
    if isinstance(axis, Listed):
        return next((text for text in axis.values if _meant(text) == own), axis.values[0])
    if isinstance(own, bool) or not isinstance(own, int | float) or (axis.whole and own != int(own)):
        return axis.middle
    return own if axis.low <= own <= axis.high else axis.middle


def _own(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, Mapping) else None
    return values


def _meant(text: str) -> Any:
    """The value that `--set` takes a text for."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(StringIO(text))
    except (YAMLError, ValueError):
        return text
