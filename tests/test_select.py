"""Rejection sampling: the best of n, and beside it a random response of the same prompts."""

from pathlib import Path
from typing import Any

import pytest
import tiny

from align import tables
from align.errors import StageError
from align.grading.graders import PythonGrader
from align.models.base import BaseConfig
from tasks.reward import RewardConfig, reward
from tasks.select import SelectConfig, combined, select

N, PROMPTS = 4, 10


@pytest.fixture(scope="module")
def inputs(base: BaseConfig, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Rows, samples (one sum and three queries for each prompt) and a reward model that likes sums."""
    folder = tmp_path_factory.mktemp("select")
    (folder / "reward").mkdir()
    config = RewardConfig(learning_rate=2e-3, num_train_epochs=3, per_device_train_batch_size=16, max_length=128)
    reward(config, folder / "reward", base=base, pairs=tiny.pairs(folder / "p.parquet", 80), adapter=adapter)
    tables.write(folder / "rows.parquet", [tiny.row(i, split="rejection") for i in range(PROMPTS + 5)], tables.ROWS)
    samples = [
        {
            "row_id": f"r{i}",
            "sample_id": f"s{i}-{j}",
            "sample_index": j,
            "text": f"It is {2 * i}." if j == i % N else f"SELECT {i}" + " no" * j,
            "finish_reason": "truncated" if j == 3 else "stop",
            "n_tokens": 5,
        }
        for i in range(PROMPTS)
        for j in range(N)
    ]
    tables.write(folder / "samples.parquet", samples, tables.SAMPLES)
    return {"rows": folder / "rows.parquet", "samples": folder / "samples.parquet", "reward": folder / "reward"}


def run(base: BaseConfig, out: Path, inputs: dict[str, Path], **settings: Any) -> dict[str, Any]:
    out.mkdir()
    return select(SelectConfig(**settings), out, base=base, **inputs)


def test_the_best_of_n_and_a_random_one(base: BaseConfig, inputs: dict[str, Path], tmp_path: Path) -> None:
    metrics = run(base, tmp_path / "out", inputs)
    kept, control = (tables.read(tmp_path / "out" / f"{n}.parquet") for n in ("kept", "control"))
    assert [r["row_id"] for r in kept] == [r["row_id"] for r in control] == [f"r{i}" for i in range(PROMPTS)]
    assert kept[0]["messages"] == tiny.row(0)["messages"]
    for i, r in enumerate(kept):
        assert r["response"].startswith("It is" if i % N != 3 else "SELECT")  # index 3 was cut off at the limit
    scores = {s["sample_id"]: s["score"] for s in tables.read(tmp_path / "out" / "scores.parquet")}
    assert len(scores) == N * PROMPTS
    arms = tables.read(tmp_path / "out" / "selections.parquet")
    for row_id in (f"r{i}" for i in range(PROMPTS)):
        best, random = (next(a["sample_id"] for a in arms if (a["row_id"], a["arm"]) == (row_id, arm))
                        for arm in ("best", "random"))  # fmt: skip
        eligible = [s for s in scores if s.startswith(f"s{row_id[1:]}-") and not s.endswith("-3")]
        assert best == max(eligible, key=lambda s: scores[s]) and random in eligible
    assert metrics["score.best"] > metrics["score.random"] and metrics["samples.truncated"] == PROMPTS
    assert {r["response"] for r in control} != {r["response"] for r in kept}


def test_the_control_depends_on_the_seed_and_the_best_does_not(
    base: BaseConfig, inputs: dict[str, Path], tmp_path: Path
) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(base, tmp_path / name, inputs, seed=seed)
    a, b, c = (tmp_path / name for name in "abc")
    assert all(
        (a / f).read_bytes() == (b / f).read_bytes() for f in ("kept.parquet", "control.parquet", "scores.parquet")
    )
    assert (a / "kept.parquet").read_bytes() == (c / "kept.parquet").read_bytes()
    assert (a / "control.parquet").read_bytes() != (c / "control.parquet").read_bytes()


def test_truncated_responses_on_request(base: BaseConfig, inputs: dict[str, Path], tmp_path: Path) -> None:
    run(base, tmp_path / "out", inputs, skip_truncated=False)
    kept = tables.read(tmp_path / "out" / "kept.parquet")
    assert all(r["response"].startswith("It is") for r in kept)


@pytest.mark.parametrize("by", ["margin", "score"])
def test_only_the_top_prompts(base: BaseConfig, inputs: dict[str, Path], tmp_path: Path, by: str) -> None:
    metrics = run(base, tmp_path / "out", inputs, top=0.3, by=by)
    kept, control = (tables.read(tmp_path / "out" / f"{n}.parquet") for n in ("kept", "control"))
    assert metrics["prompts.kept"] == len(kept) == len(control) == 3
    assert all(int(r["row_id"][1:]) % N != 3 for r in kept)  # a prompt without a sum has neither score nor margin


def test_nothing_to_select(base: BaseConfig, inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(StageError, match="None of 40 responses was kept"):
        run(base, tmp_path / "a", inputs, min_score=1e9)
    tables.write(tmp_path / "none.parquet", [], tables.SAMPLES)
    with pytest.raises(StageError, match="0 samples"):
        run(base, tmp_path / "b", inputs | {"samples": tmp_path / "none.parquet"})
    tables.write(tmp_path / "few.parquet", [tiny.row(0)], tables.ROWS)
    with pytest.raises(StageError, match="9 prompts of the samples are not among the rows"):
        run(base, tmp_path / "c", inputs | {"rows": tmp_path / "few.parquet"})


def test_an_adapter_that_is_no_reward_model(
    base: BaseConfig, adapter: Path, inputs: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(StageError, match="not a reward model"):
        run(base, tmp_path / "out", inputs | {"reward": adapter})


def says_a_sum(prompt: str, response: str, reference: str | None, meta: dict[str, Any]) -> float:
    return float(response.startswith("It is"))


def test_what_the_best_of_n_is_worth_to_a_grader(base: BaseConfig, inputs: dict[str, Path], tmp_path: Path) -> None:
    metrics = run(base, tmp_path / "out", inputs, grader=PythonGrader(function=f"{__name__}:says_a_sum"))
    found = tables.read(tmp_path / "out" / "best_of.parquet")
    assert [f["n"] for f in found] == [1, 2, 3] and metrics["best_of.n"] == 3  # one of four was cut off
    kept = tables.read(tmp_path / "out" / "kept.parquet")
    assert metrics["grade.best"] == pytest.approx(sum(r["response"].startswith("It is") for r in kept) / len(kept))
    assert metrics["grade.random"] < metrics["grade.best"] <= metrics["grade.oracle"]
    plain = run(base, tmp_path / "plain", inputs)
    assert not (tmp_path / "plain" / "best_of.parquet").exists() and "grade.best" not in plain
    assert tables.read(tmp_path / "plain" / "kept.parquet") == kept, "a grader chooses nothing"


def test_length_costs(base: BaseConfig, inputs: dict[str, Path], tmp_path: Path) -> None:
    """A penalty that outweighs every reward leaves the shortest; rewards are written as they are."""
    table = [s | {"n_tokens": 3 if s["sample_index"] == 2 else 5} for s in tables.read(inputs["samples"])]
    tables.write(tmp_path / "samples.parquet", table, tables.SAMPLES)
    changed = inputs | {"samples": tmp_path / "samples.parquet"}
    run(base, tmp_path / "out", changed, length_penalty=1e4)
    arms = tables.read(tmp_path / "out" / "selections.parquet")
    assert {a["sample_id"][-2:] for a in arms if a["arm"] == "best"} == {"-2"}
    assert all(abs(s["score"]) < 1e3 for s in tables.read(tmp_path / "out" / "scores.parquet"))


def test_top_k(base: BaseConfig, inputs: dict[str, Path], tmp_path: Path) -> None:
    run(base, tmp_path / "out", inputs, keep=2)
    scores = {s["sample_id"]: s["score"] for s in tables.read(tmp_path / "out" / "scores.parquet")}
    arms = tables.read(tmp_path / "out" / "selections.parquet")
    for i in range(PROMPTS):
        best, random = ([a["sample_id"] for a in arms if (a["row_id"], a["arm"]) == (f"r{i}", arm)]
                        for arm in ("best", "random"))  # fmt: skip
        eligible = sorted((f"s{i}-{j}" for j in range(3)), key=lambda s: -scores[s])
        assert best == eligible[:2] and len(set(random)) == 2 and set(random) <= set(eligible)
    kept = tables.read(tmp_path / "out" / "kept.parquet")
    assert len(kept) == len(tables.read(tmp_path / "out" / "control.parquet")) == 2 * PROMPTS
    least = sorted(scores[f"s{i}-{j}"] for i in range(PROMPTS) for j in range(3))[-5]
    few = run(base, tmp_path / "few", inputs, keep=2, min_score=least)
    assert len(tables.read(tmp_path / "few" / "kept.parquet")) <= 5 and few["score.best"] >= least


def test_several_reward_models(base: BaseConfig, adapter: Path, inputs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    config = RewardConfig(learning_rate=2e-3, per_device_train_batch_size=16, max_length=128, seed=5)
    reward(config, tmp_path / "other", base=base, pairs=tiny.pairs(tmp_path / "p.parquet", 40), adapter=adapter)
    found = {}
    for how in ("mean", "min", "mean_minus_sd"):
        metrics = run(base, tmp_path / how, inputs | {"reward_2": tmp_path / "other"}, combine=how)
        assert metrics["rewards.apart"] > 0
        rows = tables.read(tmp_path / how / "scores.parquet")
        found[how] = {(s["scored_by"], s["sample_id"]): s["score"] for s in rows}
    one, two = ({i: v for (by, i), v in found["mean"].items() if by == name}
                for name in ("reward_model_alone", "reward_2_alone"))  # fmt: skip
    alone = run(base, tmp_path / "one", inputs)
    assert "rewards.apart" not in alone
    assert one == {s["sample_id"]: s["score"] for s in tables.read(tmp_path / "one" / "scores.parquet")} != two
    for i, a in one.items():
        b = two[i]
        assert found["mean"]["reward_model", i] == pytest.approx((a + b) / 2)
        assert found["min"]["reward_model", i] == min(a, b)
        assert found["mean_minus_sd"]["reward_model", i] == pytest.approx((a + b) / 2 - abs(a - b) / 2)
    assert combined("mean", [1.0, None]) is None
