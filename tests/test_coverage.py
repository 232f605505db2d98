"""How often intervals hold and promotions are wrong, on few runs; benchmarks/coverage.py has many."""

import pytest

from benchmarks import coverage


@pytest.mark.parametrize("samples", coverage.SAMPLES)
@pytest.mark.parametrize("n", coverage.SIZES)
def test_intervals_hold_as_often_as_they_say(n: int, samples: int) -> None:
    held = [coverage.of_differences(400, n, gain, samples) for gain in (0.0, 0.1, 0.3)]
    held += [coverage.of_means(400, n, share, samples) for share in (0.2, 0.5, 0.8)]
    assert 0.94 <= sum(held) / len(held) <= 0.97
    assert min(held) >= 0.915, "400 runs differ from the truth by 2 or 3 points"


def test_what_is_no_better_is_seldom_promoted_and_what_is_often_so() -> None:
    for name in ("one suite of 30", "one suite, two guards"):
        mode, suites = coverage.PROMOTIONS[name]
        assert coverage.promoted(40, mode, suites) <= 0.07, name
    better: coverage.Suites = {"a": (100, 0.5, None), "b": (100, 0.5, 0.02)}
    assert coverage.promoted(12, "greedy", better) >= 0.8
