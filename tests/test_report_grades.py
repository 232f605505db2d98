"""The report on what cannot be graded, and on differences that too few questions carry."""

from pathlib import Path
from typing import Any

import pytest
from artifacts import artifacts, regraded
from test_report import Page, make

from align import tables
from align.report import chapters_models


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return artifacts(tmp_path_factory.mktemp("artifacts"), n=60)


def test_unreadable_and_ungraded_stand_beside_each_other(inputs: dict[str, Path], tmp_path: Path) -> None:
    """A quarter of what dpo says is unreadable, which lowers it; 15 questions are ungraded, for all and out of all."""
    ids = sorted({a["row_id"] for a in tables.read(inputs["evaluate"] / "evaluations.parquet")})

    def change(a: dict[str, Any]) -> dict[str, Any] | None:
        if a["row_id"] in ids[:15]:
            return {"score": None, "status": "ungraded"}
        if a["row_id"] in ids[15:30] and a["model"] == "dpo":
            return {"score": 0.0, "status": "unreadable", "detail": "no number in the response"}
        return {"score": 1.0, "status": "correct"}

    html, table, _ = make(tmp_path / "report", regraded(tmp_path, inputs, change))
    assert table["columns"][-3:] == ["unreadable %", "ungraded %", "truncated %"]
    cells = {row[0]: row for row in table["rows"]}
    assert cells["dpo"][1].startswith("66.7 [") and cells["sft"][1].startswith("100.0 [")
    assert cells["dpo"][4:7] == ["45 of 60", "25.0", "25.0"] and cells["sft"][4:7] == ["45 of 60", "0.0", "25.0"]
    assert cells["dpo"][3].startswith("-33.3 [")
    text = Page(html).text
    assert "it counts as wrong. Ungraded answers, whose question or judge failed" in text
    assert "15 lost, 30 right in both, 15 not graded" in text, "an unreadable answer is a wrong one"
    assert '<small class="unreadable">unreadable' in html
    assert "unreadable %" in (tmp_path / "report" / "summary.md").read_text()


def test_unreadable_samples_are_among_the_wrong_ones(inputs: dict[str, Path], tmp_path: Path) -> None:
    labelled = tmp_path / "pairs"
    labelled.mkdir()
    scores = tables.read(inputs["pairs"] / "scores.parquet")
    for score in scores:
        score["status"] = "unreadable" if score["status"] == "wrong" else score["status"]
    tables.write(labelled / "scores.parquet", scores, tables.SCORES)
    (labelled / "pairs.parquet").write_bytes((inputs["pairs"] / "pairs.parquet").read_bytes())
    (labelled / "metrics.json").write_text('{"pairs": 60, "samples": 480, "unreadable": 240}')
    html, *_ = make(tmp_path / "report", {**inputs, "pairs": labelled})
    before, *_ = make(tmp_path / "before", inputs)
    mixed = Page(html).text.partition("have both right and wrong samples")[0].rpartition("What was drawn")[2]
    assert mixed and mixed in Page(before).text
    assert "samples that the grader could not read (they count as wrong) 240" in Page(html).text


@pytest.mark.parametrize(
    ("better", "verdict", "said"),
    [
        (4, "too few to tell", "4 of them differ, and 6 must before any difference can be shown"),
        (0, "too few to tell", "none of them differs, and 6 must"),
        (6, "better", "DPO raised sampled accuracy by 10.0 points over"),
    ],
)
def test_a_difference_of_few_questions(
    inputs: dict[str, Path], tmp_path: Path, better: int, verdict: str, said: str
) -> None:
    """dpo is right on so many questions on which the other models are wrong; the rest is the same for all."""
    ids = sorted({a["row_id"] for a in tables.read(inputs["evaluate"] / "evaluations.parquet")})

    def change(a: dict[str, Any]) -> dict[str, Any]:
        right = a["row_id"] in ids[30:] or (a["model"] == "dpo" and a["row_id"] in ids[:better])
        return {"score": float(right), "status": "correct" if right else "wrong"}

    given = regraded(tmp_path, inputs, change)
    rows = tables.read(given["evaluate"] / "comparisons.parquet")
    (found,) = [c for c in rows if (c["mode"], c["model"], c["against"]) == ("sampled", "dpo", "sft")]
    assert (found["verdict"], found["differ"]) == (verdict, better)
    assert found["p_exact"] == min(1, 2 / 2**better)
    assert all((c["verdict"] is None) == (c["against"] is None) for c in rows)

    html, table, metrics = make(tmp_path / "report", given)
    page, markdown = Page(html).text, (tmp_path / "report" / "summary.md").read_text()
    assert said in page and said in markdown
    few = verdict == "too few to tell"
    assert (f"({verdict})" in markdown) and (metrics["findings.few"] > 0)
    assert table["rows"][-1][3].endswith("too few to tell") == few
    assert ("Shown to help:" in page) == (not few) and "Too few to tell: " in page


@pytest.mark.parametrize(("pairs", "verdict"), [(4, "few"), (8, "up")])
def test_a_reward_model_on_few_pairs(inputs: dict[str, Path], tmp_path: Path, pairs: int, verdict: str) -> None:
    """It is right on so many pairs on which the rule that goes by length is wrong, and on as many where that is right."""
    reward = tmp_path / "reward"
    reward.mkdir()
    for name in ("metrics.json", "training_log.parquet"):
        (reward / name).write_bytes((inputs["reward"] / name).read_bytes())
    held = [{"pair_id": f"p{i}", "chosen_score": 1.0, "rejected_score": 0.0, "chosen_tokens": 9 if i < 40 else 3,
             "rejected_tokens": 6} for i in range(40 + pairs)]  # fmt: skip
    tables.write(reward / "held_out.parquet", held, tables.HELD_OUT)
    _, found = chapters_models.reward(reward)
    assert found.verdict == verdict and ("too few to tell: 4 of them differ" in found.text) == (verdict == "few")
