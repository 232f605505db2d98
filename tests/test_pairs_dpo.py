"""DPO's own pairs: of fresh samples of the policy that it starts from, by grader or reward model, alone or with others."""

from pathlib import Path
from typing import Any

import pytest
import tiny

from align import tables
from align.errors import InputError
from align.models.base import BaseConfig
from align.models.reward_model import Scorer
from flows.check import problems
from flows.graph import parents
from flows.recipe import load
from flows.stages import outline
from tasks.pairs import PairsConfig, pairs
from tasks.reward import RewardConfig, reward


@pytest.fixture(scope="module")
def inputs(base: BaseConfig, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Rows, three samples for each of ten prompts, and a reward model."""
    folder = tmp_path_factory.mktemp("fresh")
    (folder / "reward").mkdir()
    config = RewardConfig(learning_rate=2e-3, num_train_epochs=2, per_device_train_batch_size=16, max_length=128)
    reward(config, folder / "reward", base=base, pairs=tiny.pairs(folder / "p.parquet", 60), adapter=adapter)
    rows = [tiny.row(i, split="preference", meta="{}", reference=None) for i in range(10)]
    tables.write(folder / "rows.parquet", rows, tables.ROWS)
    texts = ("It is {}.", "SELECT {}", "It is {} no")
    samples = [
        {"row_id": f"r{i}", "sample_id": f"s{i}-{k}", "sample_index": k, "text": text.format(2 * i), "n_tokens": 5,
         "finish_reason": "stop"} for i in range(10) for k, text in enumerate(texts)
    ]  # fmt: skip
    tables.write(folder / "samples.parquet", samples, tables.SAMPLES)
    return {"rows": folder / "rows.parquet", "samples": folder / "samples.parquet", "reward": folder / "reward"}


def run(base: BaseConfig, inputs: dict[str, Path], out: Path, more: Path | None = None, **config: Any) -> Any:
    out.mkdir()
    metrics = pairs(
        PairsConfig(**{"reward": True, "held_out": 0} | config), out, rows=inputs["rows"], samples=inputs["samples"],
        scorer=base, reward=inputs["reward"], more=more,
    )  # fmt: skip
    return tables.read(out / "pairs.parquet"), metrics


def test_the_reward_model_decides(base: BaseConfig, inputs: dict[str, Path], tmp_path: Path) -> None:
    made, metrics = run(base, inputs, tmp_path / "out")
    samples = tables.read(inputs["samples"])
    known = Scorer(base, inputs["reward"])(
        [tiny.row(int(s["row_id"][1:]))["messages"] for s in samples], [s["text"] for s in samples]
    )
    rewards = {s["sample_id"]: v for s, v in zip(samples, known, strict=True)}
    assert metrics["prompts.paired"] == 10
    for pair in made:
        i = pair["row_id"][1:]
        readable = {k: rewards[f"s{i}-{k}"] or 0.0 for k in range(3)}
        assert pair["chosen_id"] == f"s{i}-{max(readable, key=readable.__getitem__)}"
        assert pair["rejected_id"] == f"s{i}-{min(readable, key=readable.__getitem__)}"
        assert pair["margin"] == pytest.approx(max(readable.values()) - min(readable.values()), abs=1e-4)
        assert pair["labelled_by"] == "reward_model"
    scores = tables.read(tmp_path / "out" / "scores.parquet")
    assert {(s["scored_by"], s["status"]) for s in scores} == {("reward_model", "scored")}
    assert tables.read(tmp_path / "out" / "labels.parquet") == []  # nothing is right or wrong to a reward model


def test_a_mixture_has_both_and_each_once(base: BaseConfig, inputs: dict[str, Path], tmp_path: Path) -> None:
    fresh, _ = run(base, inputs, tmp_path / "fresh")
    again = [*fresh[:3], *(tiny.pair(i) for i in range(5))]
    tables.write(tmp_path / "more.parquet", again, tables.PAIRS)
    both, metrics = run(base, inputs, tmp_path / "both", more=tmp_path / "more.parquet")
    assert {p["pair_id"] for p in both} == {p["pair_id"] for p in fresh} | {f"q{i}" for i in range(5)}
    assert len(both) == 15 and metrics["pairs.added"] == 8


def test_without_the_reward_model(base: BaseConfig, inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pairs\.reward asks for the reward model"):
        pairs(PairsConfig(reward=True), tmp_path, rows=inputs["rows"], samples=inputs["samples"])


REFUSED = {
    ("pairs.reward=true",): "pairs.reward: the reward model is trained on these pairs",
    ("pairs_dpo.grader={kind: none}",): "pairs_dpo.grader: is none",
    ("chain.dpo_pairs=both", "pairs_dpo.reward=true", "sample_dpo.n=1"): "sample_dpo: n is 1",
    ("chain.dpo_pairs=both", "pairs_dpo.reward=true", "pairs_dpo.use_reference=true"): "pairs_dpo.use_reference",
    ("chain.dpo_pairs=fresh", "pairs_dpo.reward=true", "sample_dpo.use=[preferences]"):
        "sample_dpo.split: no source",
    ("select.combine=min",): "select.combine: has no effect where chain.rewards is 1",
}  # fmt: skip


@pytest.mark.parametrize("overrides", REFUSED, ids=" ".join)
def test_what_has_no_effect_is_refused(overrides: tuple[str, ...]) -> None:
    assert any(REFUSED[overrides] in p for p in problems(load("quickstart", overrides)))


def test_the_chain_draws_from_what_dpo_starts_from() -> None:
    edges = parents(load("quickstart", ["chain.dpo_pairs=fresh", "pairs_dpo.reward=true", "chain.rewards=3"]))
    assert edges["sample_dpo"] == ["ingest", "sft_rs"] and set(edges["pairs_dpo"]) == {"ingest", "sample_dpo", "reward"}
    assert "pairs_dpo" in edges["reference"] and "pairs_dpo" in edges["dpo"] and "pairs" not in edges["dpo"]
    assert {"reward", "reward_2", "reward_3"} <= set(edges["select"])
    mixed = parents(load("quickstart", ["chain.dpo_pairs=both", "pairs_dpo.reward=true"]))
    assert "pairs" in mixed["pairs_dpo"]
    plain = load("quickstart", ["chain.dpo_pairs=pairs"])
    assert "sample_dpo" not in parents(plain) and not any(p.stage == "pairs_dpo" for p in outline(plain).parts)
