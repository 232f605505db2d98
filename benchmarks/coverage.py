"""How often intervals hold the truth, and how often something is promoted that is no better: by simulation.

    python -m benchmarks.coverage [--runs 4000] [--promotions 1000]

Items are drawn from populations whose true mean, or true difference of two models, is known; scores go through the
functions that evaluate, promote and sweep use. `coverage` is the share of 95 % intervals that hold the truth: 93 to
97 % is the aim, and more where so few items differ that no interval could hold less. `promoted` is the share of runs
that promote a model without a true difference: at most 5 %.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align import tables
from align.paired import paired
from align.seeds import mean_of_seeds, seeded_difference
from align.stats import mean_interval
from flows import sweep
from flows.points import Point
from tasks import evaluate
from tasks.promote import Contest, PromoteConfig, promote

Floats = NDArray[np.float64]
SIZES = (30, 100, 400)
SAMPLES = (1, 4, 16)
GAINS = (0.0, 0.02, 0.1, 0.3)
SHARES = (0.1, 0.2, 0.3, 0.5, 0.8, 0.9)
EASE = (0.4, 0.4)
"""Of the beta distribution of items' difficulty: most are answered nearly always, or nearly never."""
Suites = dict[str, tuple[int, float, float | None]]
"""Of each suite: its items, the true gain of the model, and its guard."""
PROMOTIONS: dict[str, tuple[str, Suites]] = {
    "one suite of 30": ("greedy", {"a": (30, 0.0, None)}),
    "one suite of 100": ("greedy", {"a": (100, 0.0, None)}),
    "one suite of 100, 4 samples": ("sampled", {"a": (100, 0.0, None)}),
    "three suites": ("greedy", {name: (100, 0.0, None) for name in "abc"}),
    "three suites, two of them better": ("greedy", {"a": (100, 0.0, None), **dict.fromkeys("bc", (100, 0.4, None))}),
    "one suite, two guards": ("greedy", {"a": (100, 0.0, None), "b": (100, 0.0, 0.02), "c": (100, 0.4, 0.02)}),
}  # fmt: skip


def means(rng: np.random.Generator, n: int, share: float, samples: int) -> Floats:
    """Mean scores [n] of one model, whose true mean is `share`."""
    ease = share if samples == 1 else rng.beta(2 * share, 2 * (1 - share), n)
    return rng.binomial(samples, ease, n) / samples


def pair(rng: np.random.Generator, n: int, gain: float, samples: int) -> tuple[Floats, Floats]:
    """Mean scores [n] of two models on the same items, of which the first is better by `gain` on average."""
    ease = rng.beta(*EASE, n)  # its mean is a half, so that 2 * gain of what is missing is gained
    return rng.binomial(samples, ease + (1 - ease) * 2 * gain) / samples, rng.binomial(samples, ease) / samples


def share_held(runs: int, truth: float, draw: Callable[[], tuple[float, float]]) -> float:
    """The share of `runs` intervals that hold the truth."""
    return sum(low <= truth <= high for low, high in (draw() for _ in range(runs))) / runs


def of_means(runs: int, n: int, share: float, samples: int, seed: int = 0) -> float:
    """Coverage of the interval of one model's mean."""
    rng = np.random.default_rng(seed)

    def draw() -> tuple[float, float]:
        found = mean_interval(means(rng, n, share, samples))
        return found.low, found.high

    return share_held(runs, share, draw)


def of_differences(runs: int, n: int, gain: float, samples: int, seed: int = 0) -> float:
    """Coverage of the interval of a paired difference."""
    rng = np.random.default_rng(seed)

    def draw() -> tuple[float, float]:
        a, b = pair(rng, n, gain, samples)
        found = paired(a - b)
        return found.low, found.high

    return share_held(runs, gain, draw)


def of_seeds(runs: int, n: int, seeds: int, sd: float, seed: int = 0) -> tuple[float, float]:
    """Of policies that are no better on average and differ by their seed (`sd` of their true means): coverage of the
    interval of their difference, and the share of runs that call them better or worse."""
    rng, held, called = np.random.default_rng(seed), 0, 0
    for _ in range(runs):
        ease = 0.2 + 0.6 * rng.beta(*EASE, n)
        made = [rng.binomial(1, np.clip(ease + rng.normal(0, sd), 0, 1)) for _ in range(seeds)]
        sides = (made, [rng.binomial(1, ease)])
        found = seeded_difference(*([{str(i): float(v) for i, v in enumerate(m)} for m in side] for side in sides))
        held += found.low <= 0 <= found.high
        called += found.verdict in ("better", "worse")
    return held / runs, called / runs


def swept(runs: int, points: int, suites: int, n: int = 100, seed: int = 0) -> float:
    """The share of sweeps over settings that change nothing whose best point is called better than the first."""
    rng, wrong = np.random.default_rng(seed), 0
    for _ in range(runs):
        ease = {f"suite {s}": rng.beta(*EASE, n) for s in range(suites)}
        tried = [Point((f"x={k}",)) for k in range(points)]
        found: list[sweep.Scores] = [
            {s: [{str(i): float(v) for i, v in enumerate(rng.binomial(1, p))}] for s, p in ease.items()} for _ in tried
        ]
        for point, scores in zip(tried, found, strict=True):
            point.results = {suite: mean_of_seeds(each) for suite, each in scores.items()}
        sweep.compare(tried, found, points)
        best = max(tried, key=lambda p: p.mean)
        wrong += any(d.verdict == "better" for d in best.against.values())
    return wrong / runs


def answers(rng: np.random.Generator, suites: Suites, mode: str) -> Iterator[dict[str, Any]]:
    """Rows of EVALUATIONS of the models dpo and sft."""
    samples = 4 if mode == "sampled" else 1
    for suite, (n, gain, _) in suites.items():
        ease = rng.beta(*EASE, n)
        for model, chance in (("dpo", ease + (1 - ease) * gain), ("sft", ease)):
            right = rng.random((n, samples)) < chance[:, None]
            for i in range(n):
                for k in range(samples):
                    yield {"suite": suite, "row_id": f"{i:05}", "model": model, "mode": mode, "sample_index": k,
                           "score": float(right[i, k]), "status": "correct" if right[i, k] else "wrong"}  # fmt: skip


def promoted(runs: int, mode: str, suites: Suites, seed: int = 0) -> float:
    """The share of runs in which the stage promote promotes dpo over sft."""
    rng, count = np.random.default_rng(seed), 0
    guards = {suite: guard for suite, (_, _, guard) in suites.items()}
    contest = Contest(model="dpo", against="sft", mode="sampled" if mode == "sampled" else "greedy", guards=guards)
    config = evaluate.EvaluateConfig(n=4 if mode == "sampled" else 0)
    with tempfile.TemporaryDirectory(prefix="align-coverage-") as name:
        folder = Path(name)
        for _ in range(runs):
            rows = list(answers(rng, suites, mode))
            tables.write(folder / "evaluations.parquet", rows, tables.EVALUATIONS)
            found = [c for suite in suites for c in evaluate._compare(config, suite, ["dpo", "sft"], rows)]
            tables.write(folder / "comparisons.parquet", found, tables.COMPARISONS)
            said = promote(PromoteConfig(against="sft"), folder, graded=folder, contest=contest)
            count += int(said["promoted"])
    return count / runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=4000, help="per coverage")
    parser.add_argument("--promotions", type=int, default=1000, help="runs per kind of promotion")
    options = parser.parse_args()
    heads = "".join(f"{f'n={n}':>9}" for n in SIZES)
    print(f"coverage of means, %             {heads}")
    for samples in SAMPLES:
        for share in SHARES:
            found = "".join(f"{100 * of_means(options.runs, n, share, samples):9.1f}" for n in SIZES)
            print(f"  {samples:2} a question, {100 * share:3.0f} % right    {found}", flush=True)
    print(f"coverage of paired differences, %{heads}")
    for samples in SAMPLES:
        for gain in GAINS:
            found = "".join(f"{100 * of_differences(options.runs, n, gain, samples):9.1f}" for n in SIZES)
            print(f"  {samples:2} a question, gain {100 * gain:2.0f} points {found}", flush=True)
    print("promoted without being better, %")
    for name, (mode, suites) in PROMOTIONS.items():
        print(f"  {name:33}{100 * promoted(options.promotions, mode, suites):9.1f}", flush=True)
    print("best point of a sweep called better without being so, %")
    for points, many in ((2, 1), (5, 1), (16, 1), (5, 3)):
        name = f"{points} points, suites: {many}"
        print(f"  {name:33}{100 * swept(options.promotions, points, many):9.1f}", flush=True)
    print("policies whose means differ by their seed alone, by 4 points: coverage, and called better or worse, %")
    for seeds in (1, 2, 3, 5):
        for n in (100, 400):
            held, called = of_seeds(options.promotions, n, seeds, 0.04)
            print(f"  {f'{seeds} seeds, {n} questions':33}{100 * held:9.1f}{100 * called:9.1f}", flush=True)


if __name__ == "__main__":
    main()
