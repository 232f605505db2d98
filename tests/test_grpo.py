"""Online RL: the reward is learned, what draws is what is trained, and what cannot be judged teaches nothing."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file

from align import tables
from align.errors import InputError, StageError
from align.models import online
from align.models.arguments import LoraSettings
from align.models.base import BaseConfig, load_chat, load_model
from align.models.follow import follow
from align.models.rollouts import Rollout, undecided
from align.models.trained import policy, unmerged
from flows.check import problems
from flows.graph import parents
from flows.recipe import load
from flows.stages import final, outline
from tasks.grpo import GrpoConfig, Worth, grpo
from tasks.sft import SftConfig, sft

GRADER = """
def share(prompt, response, reference, meta):  # of its places that hold an e
    return min(1.0, response.count("e") / 5)

def nothing(prompt, response, reference, meta):
    return None

def sometimes(prompt, response, reference, meta):
    return None if "a" in response else response.count("e") > 0
"""


def settings(folder: Path, function: str = "share", **changes: Any) -> GrpoConfig:
    file = folder / "graders.py"
    file.write_text(GRADER)
    return GrpoConfig(
        **{
            "grader": {"kind": "python", "file": file, "function": function}, "per_device_train_batch_size": 16,
            "gradient_accumulation_steps": 2, "num_generations": 8, "max_completion_length": 12, "max_length": 96,
            "learning_rate": 3e-3, "max_steps": 4,
        } | changes
    )  # fmt: skip


def asked(file: Path, n: int = 24) -> Path:
    """A ROWS file of n prompts."""
    rows = [tiny.row(i, use="prompts", split="preference", meta="{}", response=None, reference="5") for i in range(n)]
    tables.write(file, rows, tables.ROWS)
    return file


def run(base: BaseConfig, adapter: Path, folder: Path, function: str = "share", **changes: Any) -> dict[str, Any]:
    out = folder / "out"
    out.mkdir(parents=True)
    config = settings(folder, function, **changes)
    return grpo(config, out, base=base, rows=asked(folder / "rows.parquet"), adapter=adapter)


@pytest.fixture(scope="module")
def trained(base: BaseConfig, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("grpo")
    return folder / "out", run(base, adapter, folder, max_steps=40)


def test_the_reward_is_learned(trained: tuple[Path, dict[str, Any]]) -> None:
    out, metrics = trained
    assert metrics["reward.final"] > 2 * metrics["reward.first"] and metrics["steps"] == 40
    log = {(e["step"], e["name"]): e["value"] for e in tables.read(out / "training_log.parquet")}
    assert log[1, "kl_start"] == 0 and metrics["kl_start.final"] > 0.01
    assert {"reward", "entropy", "groups.dead", "groups.tried", "completions/mean_length"} <= {n for _, n in log}
    assert sorted(p.name for p in out.iterdir()) == [
        "adapter", "dropped.parquet", "rollouts.parquet", "training_log.parquet",
    ]  # fmt: skip


def test_rollouts_are_rows(trained: tuple[Path, dict[str, Any]]) -> None:
    out, metrics = trained
    rows = tables.read(out / "rollouts.parquet")
    assert len(rows) == metrics["rollouts"] and {r["step"] for r in rows} == set(range(1, 41))
    for step in (1, 40):
        used = [r for r in rows if r["step"] == step and r["trained"]]
        assert len(used) == 32 and len({r["row_id"] for r in used}) == 4
    assert all(r["reward"] == r["grade"] == min(1.0, r["text"].count("e") / 5) for r in rows)
    groups: dict[tuple[int, str, bool], set[float]] = {}
    for r in rows:
        groups.setdefault((r["step"], r["row_id"], r["trained"]), set()).add(r["reward"])
    dead = {step for (step, _, trained), rewards in groups.items() if trained and len(rewards) == 1}
    spare = {step for (step, _, trained), rewards in groups.items() if not trained and len(rewards) > 1}
    assert not dead & spare  # a group that varies is left over only where all that are trained on do


@pytest.mark.parametrize("kind", ["lora", "dora", "plain", "full"])
def test_what_draws_is_the_policy_that_would_be_saved(kind: str, base: BaseConfig, tmp_path: Path) -> None:
    changes = {"plain": {"quantization": "none"}, "full": {"quantization": "none", "adapter": "none"}}.get(kind, {})
    mine = base.model_copy(update=changes)
    lora = None if kind == "full" else LoraSettings(r=4, use_dora=kind == "dora")
    (tmp_path / "a").mkdir()
    config = SftConfig(learning_rate=5e-3, num_train_epochs=2, max_length=128, lora=lora)
    sft(config, tmp_path / "a", base=mine, rows=tiny.kept(tmp_path / "kept.parquet", 32))
    plain = policy(mine, None)
    live = load_model(mine, trained=tmp_path / "a") if kind == "full" else unmerged(mine, tmp_path / "a")
    follow(plain, live)
    saved = policy(mine, tmp_path / "a").state_dict()
    assert all(torch.allclose(value, saved[name], atol=1e-6) for name, value in plain.state_dict().items())
    before = policy(mine, None).state_dict()
    assert any(not torch.equal(before[name], value) for name, value in saved.items())


def test_other_weights_are_noticed(
    base: BaseConfig, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(plain: Any, model: Any) -> None:
        for p in plain.parameters():
            p.data.mul_(1.5)

    monkeypatch.setattr(online, "follow", wrong)
    with pytest.raises(StageError, match="What draws is not what is trained"):
        run(base, adapter, tmp_path)


def test_what_is_ungraded_teaches_nothing(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    metrics = run(base, adapter, tmp_path, "nothing")
    assert metrics["rollouts.ungraded"] == metrics["rollouts"] and metrics["groups.dead"] == 1
    before, after = (load_file(p / "adapter/adapter_model.safetensors") for p in (adapter, tmp_path / "out"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(r["reward"] is not None for r in tables.read(tmp_path / "out" / "rollouts.parquet"))


def test_ungraded_is_no_zero(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    run(base, adapter, tmp_path, "sometimes")
    rows = tables.read(tmp_path / "out" / "rollouts.parquet")
    assert any("a" in r["text"] for r in rows)
    assert all((r["reward"] is None) == ("a" in r["text"]) for r in rows)


def test_a_reference_holds_the_policy(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    free = run(base, adapter, tmp_path / "free", max_steps=12)
    held = run(base, adapter, tmp_path / "held", max_steps=12, beta=1.0)
    assert held["kl_start.final"] < 0.7 * free["kl_start.final"]
    log = {(e["step"], e["name"]): e["value"] for e in tables.read(tmp_path / "held/out/training_log.parquet")}
    assert log[1, "kl"] == pytest.approx(0, abs=1e-6) and log[12, "kl"] == pytest.approx(log[12, "kl_start"], rel=0.05)
    assert all(p.is_file() for p in (tmp_path / "held/out/adapter").iterdir())


def test_a_reference_that_is_another_policy() -> None:
    batch = {name: torch.zeros(2, 3) for name in ("ref_per_token_logps", "start_logps")}
    batch["completion_mask"] = torch.tensor([[1, 1, 0], [1, 1, 1]])
    batch["ref_per_token_logps"][0, 2] = 9.0  # padding
    online._check_reference(batch)
    batch["ref_per_token_logps"][1, 2] = 0.2
    with pytest.raises(StageError, match="reference of grpo is not the policy"):
        online._check_reference(batch)


def test_equal_runs_give_equal_bytes(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    a, b, c = (run(base, adapter, tmp_path / name, max_steps=3, seed=s) for name, s in (("a", 1), ("b", 1), ("c", 2)))
    assert tiny.measured(a) == tiny.measured(b) != tiny.measured(c)
    files = [p.relative_to(tmp_path / "a/out") for p in (tmp_path / "a/out").rglob("*") if p.is_file()]
    assert all((tmp_path / "a/out" / f).read_bytes() == (tmp_path / "b/out" / f).read_bytes() for f in files)


def test_decided_prompts_are_left_out(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    config = settings(tmp_path, max_steps=1)
    grades = {0: (1.0, 1.0), 1: (0.0, 0.0), 2: (1.0, 0.0), 3: (1.0,), 4: (1.0, None)}
    samples = [{"row_id": f"r{i}", "sample_id": f"{i}.{k}"} for i, of in grades.items() for k in range(len(of))]
    scores = [
        {"sample_id": f"{i}.{k}", "scored_by": config.grader.name, "score": g}
        for i, of in grades.items() for k, g in enumerate(of)
    ]  # fmt: skip
    rows = [tiny.row(i) for i in range(6)]
    left = undecided(rows, samples, scores, config.grader.name)
    assert [r["row_id"] for r in left] == ["r2", "r3", "r4", "r5"]
    assert undecided(rows, samples, scores, "another grader") == rows
    tables.write(tmp_path / "samples.parquet", samples, tables.SAMPLES)
    tables.write(tmp_path / "scores.parquet", scores, tables.SCORES)
    (tmp_path / "out").mkdir()
    metrics = grpo(
        config, tmp_path / "out", base=base, rows=asked(tmp_path / "rows.parquet"), adapter=adapter,
        samples=tmp_path / "samples.parquet", scores=tmp_path / "scores.parquet",
    )  # fmt: skip
    assert (metrics["prompts.read"], metrics["prompts.decided"], metrics["prompts"]) == (24, 2, 22)


def test_the_reward_is_a_weighted_sum(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    from align.models.reward_model import load_reward, score
    from tasks.reward import RewardConfig, reward

    (tmp_path / "reward").mkdir()
    scorer = RewardConfig(per_device_train_batch_size=8, max_length=128)
    reward(scorer, tmp_path / "reward", base=base, pairs=tiny.pairs(tmp_path / "p.parquet", 24), adapter=adapter)
    config = settings(tmp_path, "sometimes", grader_weight=2.0, reward_weight=0.5)
    worth = Worth(config, base, tmp_path / "reward")
    rows = [tiny.row(i, meta="{}", reference=None) for i in range(3)]
    texts = ["It is e.", "a", "x"]
    drawn = [Rollout(r["row_id"], 0, [], [], text, "stop") for r, text in zip(rows, texts, strict=True)]
    found = worth(rows, drawn)
    chat = load_chat(base)
    model, kind = load_reward(base, tmp_path / "reward")
    scores = score(model, kind, chat, chat.examples([r["messages"] for r in rows], texts))
    assert [r.score for r in found] == pytest.approx(scores, abs=1e-5)
    assert [r.grade for r in found] == [1.0, None, 0.0]
    assert found[0].reward == pytest.approx(2 + 0.5 * scores[0]) and found[2].reward == pytest.approx(0.5 * scores[2])
    assert found[1].reward is None
    (tmp_path / "out").mkdir()
    metrics = grpo(
        settings(tmp_path, "sometimes", reward_weight=0.5, max_steps=2), tmp_path / "out", base=base, adapter=adapter,
        rows=asked(tmp_path / "rows.parquet"), scorer=base, reward=tmp_path / "reward",
    )  # fmt: skip
    assert metrics["steps"] == 2
    with pytest.raises(InputError, match="needs the artifact of a reward model"):
        Worth(config, base, None)


def test_nothing_that_rewards(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match=r"set grpo\.grader or grpo\.reward_weight"):
        grpo(GrpoConfig(), tmp_path / "out", base=base, rows=asked(tmp_path / "rows.parquet"), adapter=adapter)


REFUSED = {
    ("chain.grpo=dpo",): "chain.grpo: asks for online RL, but nothing rewards",
    ("controls.longer=true",): "controls.longer: is what online RL is compared with, and chain.grpo is none",
    ("chain.grpo=dpo", "grpo.reward_weight=1", "grpo.num_generations=7"): "grpo.num_generations: 7 responses",
    ("chain.grpo=dpo", "grpo.reward_weight=1", "grpo.split=sft", "grpo.use=[preferences]"): "grpo.split: no source",
    ("chain.grpo=dpo", "grpo.reward_weight=1", "grpo.max_completion_length=2000"): "grpo.max_completion_length: 2000",
    ("chain.grpo=dpo", "grpo.reward_weight=1", "compute.strategy=fsdp"): "compute.strategy: is fsdp, but grpo draws",
    ("grpo.max_steps=3", "grpo.num_train_epochs=2"): "grpo.num_train_epochs: has no effect where max_steps",
    ("grpo.grader_weight=2",): "grpo.grader_weight: is of a grader, and there is none",
    ("chain.grpo=dpo", "grpo.lora.r=3"): "grpo.lora.r: asks for 3",
}


@pytest.mark.parametrize("overrides", REFUSED, ids=" ".join)
def test_what_cannot_be_done_is_refused_at_the_start(overrides: tuple[str, ...]) -> None:
    assert any(REFUSED[overrides] in p for p in problems(load("quickstart", overrides)))


def test_the_chain_has_it_where_the_recipe_asks() -> None:
    without, after = load("quickstart"), load("quickstart-grpo")
    assert "grpo" not in parents(without) and final(without) == "dpo"
    assert not any("grpo" in p.stage or p.stage == "sft_longer" for p in outline(without).parts)
    edges = parents(after)
    assert final(after) == "grpo" and "dpo" in edges["grpo"] and "dpo" in edges["sft_longer"]
    assert "reward" not in edges["grpo"] and edges["answer_grpo"] == ["ingest", "grpo"]
    from_rs = load("quickstart-grpo", ["chain.grpo=sft_rs", "grpo.reward_weight=1"])
    assert {"sft_rs", "reward"} <= set(parents(from_rs)["grpo"])
    (asked_of,) = [q for q in outline(from_rs).questions if q.topic == "Online RL"]
    assert (asked_of.model, asked_of.against) == ("grpo", "sft_rs")
    assert list(problems(after)) == []
