"""Every suite on which the final model is shown to have fallen is named with its interval, guarded or not."""

from typing import Any

from align.report.evidence import Difference, Evidence
from align.report.opening import falls
from align.report.words import speaking
from flows.recipe import load
from flows.stages import outline

SUITES = ["math", "safety", "sql"]


def evidence(*found: tuple[str, str, float, str], **more: Any) -> Evidence:
    """Differences of dpo on a suite against a model, with a verdict."""
    table = {
        (suite, "greedy", "dpo", other): Difference(
            suite, "greedy", "dpo", other, 400, diff, diff - 0.02, diff + 0.02, 90, None, verdict
        )
        for suite, other, diff, verdict in found
    }
    models = ["base", "sft", "sft_rs", "dpo"]
    return Evidence(outline(load()), SUITES, models, "greedy", dict.fromkeys(SUITES, "accuracy"), {}, table, **more)


def test_each_fall_is_named_with_its_interval_and_nothing_else_is() -> None:
    said = falls(evidence(
        ("math", "base", -0.08, "down"), ("math", "sft", -0.01, "open"), ("safety", "sft", -0.05, "down"),
        ("sql", "sft", 0.3, "up"), ("safety", "base", -0.01, "few"), ("sql", "sft_rs", -0.04, "down"),
    ))  # fmt: skip
    assert said.replace("\u2212", "-") == (
        "Shown to have fallen in dpo: math -8.0 points [-10.0, -6.0] against the base model (400 questions); "
        "safety -5.0 points [-7.0, -3.0] against SFT (400 questions); sql -4.0 points [-6.0, -2.0] against rejection "
        "sampling (best of n) (400 questions)."
    )
    assert (
        falls(evidence(("math", "sft", 0.1, "up"), ("sql", "sft", -0.01, "open"), ("sql", "base", -0.1, "few"))) == ""
    )
    with speaking("ko"):
        assert falls(evidence(("math", "base", -0.08, "down"))).startswith(
            "dpo에서 하락이 입증된 능력: math 기반 모델 대비"
        )


def test_a_model_after_the_final_one_and_controls_are_no_measure() -> None:
    assert falls(evidence(("math", "sft_random", -0.1, "down"), ("math", "grpo", -0.1, "down"))) == ""
