"""The reward model: it learns the pairs, its head is saved, and padding is never scored."""

import filecmp
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from align import tables
from align.errors import InputError, StageError
from align.models.base import BaseConfig, load_chat
from align.models.example import Example
from align.models.reward_accuracy import accuracies
from align.models.reward_model import SCALE, load_reward, score
from align.models.trained import policy
from tasks.pairs import PairsConfig, pairs
from tasks.reward import RewardConfig, check_saved, reward


def run(base: BaseConfig, out: Path, pairs: Path, adapter: Path | None, **settings: Any) -> dict[str, Any]:
    out.mkdir()
    config = RewardConfig(
        **{"learning_rate": 2e-3, "num_train_epochs": 2, "per_device_train_batch_size": 16, "max_length": 128}
        | settings
    )
    return reward(config, out, base=base, pairs=pairs, adapter=adapter)


@pytest.fixture(scope="module", params=["head", "likelihood"])
def trained(
    base: BaseConfig, adapter: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("reward")
    more = [
        tiny.pair(200, chosen=""),
        tiny.pair(201, chosen="same", rejected="same"),
        tiny.pair(202, rejected="word " * 200),
    ]
    pairs = tiny.pairs(folder / "pairs.parquet", 100, *more)
    return folder / "out", run(base, folder / "out", pairs, adapter, kind=request.param)


def test_it_learns_the_pairs(trained: tuple[Path, dict[str, Any]]) -> None:
    out, metrics = trained
    assert metrics["accuracy.held_out"] > 0.9 and metrics["loss.final"] < 0.4
    assert metrics["accuracy.held_out"] >= metrics["accuracy.held_out.initial"]
    held = tables.read(out / "held_out.parquet")
    assert len(held) == metrics["pairs.held_out"] == 20 and metrics["pairs"] == 80
    assert {p["pair_id"] for p in held} == {f"q{i}" for i in range(0, 100, 5)}
    assert metrics["accuracy.held_out"] == sum(p["chosen_score"] > p["rejected_score"] for p in held) / 20


def test_accuracy_by_source_and_category(base: BaseConfig, tmp_path: Path) -> None:
    kinds = [{"source": "b" if i % 10 else "a", "category": "hard" if i % 3 else None} for i in range(40)]
    swapped = {
        "chosen": "SELECT",
        "rejected": "It is 9.",
    }  # of source a, those held out are labelled the other way round
    more = [tiny.pair(i, **kinds[i], **(swapped if i % 10 == 0 else {})) for i in range(40)]
    metrics = run(base, tmp_path / "out", tiny.pairs(tmp_path / "pairs.parquet", 0, *more), None)
    held = {h["pair_id"]: h for h in tables.read(tmp_path / "out/held_out.parquet")}
    assert {i: (h["source"], h["category"]) for i, h in held.items()} == {
        f"q{i}": (kinds[i]["source"], kinds[i]["category"]) for i in range(0, 40, 5)
    }
    found = {(r["by"], r["name"]): r for r in tables.read(tmp_path / "out/reward_accuracy.parquet")}
    assert list(found) == [("all", None), ("source", "a"), ("source", "b"), ("category", "hard")]
    for (by, name), r in found.items():
        of = [h for h in held.values() if by == "all" or h[by] == name]
        assert r["pairs"] == r["prompts"] == len(of) and r["low"] <= r["accuracy"] <= r["high"]
        assert r["accuracy"] == sum(h["chosen_score"] > h["rejected_score"] for h in of) / len(of)
    assert found["source", "a"]["accuracy"] < found["source", "b"]["accuracy"] == metrics["accuracy.held_out.source.b"]
    assert metrics["accuracy.held_out.source.a.pairs"] == 4 and "accuracy.held_out.category.hard" not in metrics


def test_pairs_know_their_source_and_category(tmp_path: Path) -> None:
    said = ['{"category": "math"}', '{"subset": "chat-hard"}', '{"category": 3}', "{}"]
    rows = [
        tiny.row(i, use="preferences", split="preference", response=None, chosen="Yes.", rejected="No.", meta=meta)
        for i, meta in enumerate(said)
    ]
    tables.write(tmp_path / "rows.parquet", rows, tables.ROWS)
    pairs(PairsConfig(origin="imported", held_out=0), tmp_path, rows=tmp_path / "rows.parquet")
    made = {p["row_id"]: (p["source"], p["category"]) for p in tables.read(tmp_path / "pairs.parquet")}
    assert made == {"r0": ("sums", "math"), "r1": ("sums", "chat-hard"), "r2": ("sums", None), "r3": ("sums", None)}


def test_pairs_of_one_prompt_are_one_unit() -> None:
    rows = [{"source": "s", "category": None, "chosen_score": a, "rejected_score": 0.0} for a in (1.0, 1.0, 0.0, -1.0)]
    first, _ = accuracies(rows, ["p", "p", "p", "q"])
    assert (first["pairs"], first["prompts"], first["margin"]) == (4, 2, 0.25)
    assert first["accuracy"] == pytest.approx((2.5 / 3 + 0) / 2)


def test_the_length_baseline_is_the_better_of_longer_and_shorter(trained: tuple[Path, dict[str, Any]]) -> None:
    out, metrics = trained
    held = tables.read(out / "held_out.parquet")
    longer = sum((p["chosen_tokens"] > p["rejected_tokens"]) for p in held) / 20
    shorter = sum((p["chosen_tokens"] < p["rejected_tokens"]) for p in held) / 20
    ties = 1 - longer - shorter
    assert metrics["accuracy.length_baseline"] == pytest.approx(max(longer, shorter) + ties / 2)


def test_what_is_dropped_is_counted(trained: tuple[Path, dict[str, Any]]) -> None:
    out, metrics = trained
    assert metrics["pairs.read"] == 103 and metrics["pairs.faulty"] == 2 and metrics["pairs.too_long"] == 1
    reasons = {d["row_id"]: d["reason"] for d in tables.read(out / "dropped.parquet")}
    assert reasons == {"q200": "empty response", "q201": "identical responses", "q202": "too long"}


def test_a_reward_model_is_no_policy(base: BaseConfig, trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(StageError, match="is a reward model, not a policy"):
        policy(base, trained[0])
    with pytest.raises(StageError, match="is a reward model, not a policy"):
        run(base, tmp_path / "out", tiny.pairs(tmp_path / "pairs.parquet", 20), trained[0])


def examples(base: BaseConfig, n: int) -> list[Example]:
    return load_chat(base).examples([tiny.row(i)["messages"] for i in range(n)], ["Yes. " * i for i in range(n)])


def test_padding_and_batches_do_not_change_a_score(base: BaseConfig, trained: tuple[Path, dict[str, Any]]) -> None:
    chat, (model, kind), all_ = load_chat(base), load_reward(base, trained[0]), examples(base, 9)
    alone = [score(model, kind, chat, [e])[0] for e in all_]
    assert score(model, kind, chat, all_, batch_size=9) == pytest.approx(alone, abs=1e-4)
    assert score(model, kind, chat, all_[::-1], batch_size=4)[::-1] == pytest.approx(alone, abs=1e-4)
    assert len(set(alone)) == len(alone)


def test_a_conversation_without_its_end_is_not_scored(base: BaseConfig, trained: tuple[Path, dict[str, Any]]) -> None:
    chat, (model, kind), (example,) = load_chat(base), load_reward(base, trained[0]), examples(base, 1)
    with pytest.raises(StageError, match="does not end with the end-of-turn token"):
        score(model, kind, chat, [replace(example, ids=[*example.ids, chat.pad_id])])


@pytest.fixture(scope="module")
def headed(base: BaseConfig, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("headed")
    run(base, folder / "out", tiny.pairs(folder / "pairs.parquet", 20), adapter)
    return folder / "out"


def test_the_head_is_saved(base: BaseConfig, headed: Path, tmp_path: Path) -> None:
    for name in ("weights", "config"):
        shutil.copytree(headed, tmp_path / name)
    file = tmp_path / "weights/adapter/adapter_model.safetensors"
    weights = load_file(file)
    assert any(".score." in key for key in weights)
    save_file({k: v for k, v in weights.items() if ".score." not in k}, file, metadata={"format": "pt"})
    with pytest.raises(StageError, match="saved without its score head"):
        load_reward(base, tmp_path / "weights")
    config = tmp_path / "config/adapter/adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"modules_to_save": None}))
    with pytest.raises(StageError, match="does not declare its score head"):
        load_reward(base, tmp_path / "config")


def test_a_head_that_scores_otherwise_is_noticed(base: BaseConfig, headed: Path) -> None:
    chat, (model, kind), (other, _) = load_chat(base), load_reward(base, headed), load_reward(base, headed)
    trained = score(model, kind, chat, examples(base, 2))
    check_saved(trained, other, kind, chat, examples(base, 2))
    head: Any = other.score
    head.weight.data *= 2
    with pytest.raises(StageError, match="scores differently from the trained one"):
        check_saved(trained, other, kind, chat, examples(base, 2))


def test_a_likelihood_reward_is_the_mean_log_probability(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    pairs = tiny.pairs(tmp_path / "pairs.parquet", 20)
    run(base, tmp_path / "out", pairs, adapter, kind="likelihood", learning_rate=1e-9, num_train_epochs=1)
    (model, kind), plain, chat = load_reward(base, tmp_path / "out"), policy(base, adapter), load_chat(base)
    for e in examples(base, 4):
        with torch.no_grad():
            logp = plain(torch.tensor([e.ids])).logits[0].log_softmax(-1)
        mean = sum(float(logp[i - 1, e.ids[i]]) for i in range(e.prompt, len(e.ids))) / (len(e.ids) - e.prompt)
        assert score(model, kind, chat, [e])[0] == pytest.approx(SCALE * mean, rel=1e-3)


def test_a_likelihood_reward_needs_an_adapter_to_start_from(base: BaseConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs the SFT adapter"):
        run(base, tmp_path / "out", tiny.pairs(tmp_path / "pairs.parquet", 20), None, kind="likelihood")


def test_it_starts_from_the_sft_adapter_or_not(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    pairs = tiny.pairs(tmp_path / "pairs.parquet", 20)
    sft = load_file(adapter / "adapter/adapter_model.safetensors")
    for init in (True, False):
        run(base, tmp_path / str(init), pairs, adapter, init_from_sft=init, learning_rate=1e-7, num_train_epochs=1)
        weights = load_file(tmp_path / str(init) / "adapter/adapter_model.safetensors")
        moved = max(float((weights[k] - v).abs().max()) for k, v in sft.items())
        assert (moved < 1e-5) == init


def test_equal_runs_give_equal_bytes(base: BaseConfig, tmp_path: Path) -> None:
    pairs = tiny.pairs(tmp_path / "pairs.parquet", 20)
    a, b = (run(base, tmp_path / name, pairs, None) for name in "ab")
    assert tiny.measured(a) == tiny.measured(b)
    files = sorted(str(p.relative_to(tmp_path / "a")) for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert filecmp.cmpfiles(tmp_path / "a", tmp_path / "b", files, shallow=False)[0] == files


def test_no_pairs(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"0 pairs to train on \(0 were read\)"):
        run(base, tmp_path / "a", tiny.pairs(tmp_path / "none.parquet", 0), adapter)
    held = tiny.pairs(tmp_path / "held.parquet", 0, tiny.pair(0))
    with pytest.raises(StageError, match=r"0 pairs to train on \(1 were read\)"):
        run(base, tmp_path / "b", held, adapter)


def test_too_many_long_pairs(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    pairs = tiny.pairs(tmp_path / "pairs.parquet", 8, *(tiny.pair(i, chosen="word " * 200) for i in (50, 51)))
    with pytest.raises(StageError, match=r"2 of 10 pairs \(20%\) are longer"):
        run(base, tmp_path / "out", pairs, adapter)


def test_without_held_out_pairs(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    pairs = tiny.pairs(tmp_path / "pairs.parquet", 0, *(tiny.pair(i, held_out=False) for i in range(12)))
    metrics = run(base, tmp_path / "out", pairs, adapter)
    assert metrics["pairs.held_out"] == 0 and "accuracy.held_out" not in metrics
