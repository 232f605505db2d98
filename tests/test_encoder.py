"""Reward models on encoders: they learn the pairs, score at [CLS], are saved whole, and are refused where they misfit."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from encoders import tiny_encoder
from safetensors.torch import load_file

from align import tables
from align.errors import InputError, StageError
from align.models.base import BaseConfig, load_model
from align.models.encoder import ENCODERS, EncoderReader, is_encoder
from align.models.example import Example
from align.models.memory import Need, estimates
from align.models.reward_model import load_reader, load_reward, score
from flows.check import problems
from flows.graph import mermaid
from flows.recipe import load
from tasks.reward import RewardConfig, reward
from tasks.select import SelectConfig, select

LONG = "word " * 100
SETTINGS: dict[str, Any] = {"learning_rate": 3e-3, "num_train_epochs": 3, "per_device_train_batch_size": 16}


def run(encoder: BaseConfig, base: BaseConfig, out: Path, pairs: Path, adapter: Path | None, **settings: Any) -> Any:
    out.mkdir()
    config = RewardConfig(**SETTINGS | {"base": encoder} | settings)
    return reward(config, out, base=base, pairs=pairs, adapter=adapter)


@pytest.fixture(scope="module", params=["bert", "roberta", "distilbert"])
def encoder(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> BaseConfig:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"), kind=request.param)


@pytest.fixture(scope="module")
def trained(
    encoder: BaseConfig, base: BaseConfig, adapter: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """An SFT adapter of the pipeline's base is there, and does not matter."""
    folder = tmp_path_factory.mktemp("trained")
    pairs = tiny.pairs(folder / "pairs.parquet", 100, tiny.pair(202, rejected=LONG))
    return folder / "reward", run(encoder, base, folder / "reward", pairs, adapter)


def examples(encoder: BaseConfig, n: int) -> list[Example]:
    reader = load_reader(encoder)
    reader.check()
    return reader.examples([tiny.row(i)["messages"] for i in range(n)], ["Yes. " * (i + 1) for i in range(n)])


def test_it_learns_the_pairs(trained: tuple[Path, dict[str, Any]]) -> None:
    out, metrics = trained
    assert metrics["accuracy.held_out"] > max(0.9, metrics["accuracy.length_baseline"])
    assert metrics["margin.held_out"] > 1 and metrics["loss.final"] < 0.4 < metrics["loss.first"]
    assert (metrics["pairs"], metrics["pairs.held_out"]) == (80, 20)
    assert [d["reason"] for d in tables.read(out / "dropped.parquet")] == ["too long"]  # for 64 positions, not for 1024


def test_every_head_is_saved_and_loaded(encoder: BaseConfig, trained: tuple[Path, dict[str, Any]]) -> None:
    weights = load_file(trained[0] / "adapter/adapter_model.safetensors")
    assert any(".classifier." in name for name in weights) and any("lora_A" in name for name in weights)
    model, kind = load_reward(encoder, trained[0])
    assert kind == "encoder"
    for name, value in weights.items():
        if "lora_" not in name:
            assert torch.equal(model.get_parameter(name.removeprefix("base_model.model.")), value)


def test_padding_and_batches_do_not_change_a_score(encoder: BaseConfig, trained: tuple[Path, dict[str, Any]]) -> None:
    reader, (model, kind), all_ = load_reader(encoder), load_reward(encoder, trained[0]), examples(encoder, 9)
    alone = [score(model, kind, reader, [e])[0] for e in all_]
    assert score(model, kind, reader, all_, batch_size=9) == pytest.approx(alone, abs=1e-4)
    assert score(model, kind, reader, all_[::-1], batch_size=4)[::-1] == pytest.approx(alone, abs=1e-4)
    assert len(set(alone)) == len(alone)


def test_another_encoder_is_refused(encoder: BaseConfig, trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    other = tiny_encoder(tmp_path / "other", kind="bert", seed=7)
    with pytest.raises(StageError, match="The adapter reward belongs to another base model: its weights are"):
        load_reward(other, trained[0])
    plain = encoder.model_copy(update={"quantization": "none"})
    with pytest.raises(StageError, match="another base model: its quantization are"):
        load_reward(plain, trained[0])


def test_selection_scores_with_it(encoder: BaseConfig, trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """What is longer than the encoder reads is ungraded, and never kept."""
    texts = ["It is {0}.", "SELECT {0} no", LONG]
    tables.write(tmp_path / "rows.parquet", [tiny.row(i) for i in range(8)], tables.ROWS)
    samples = [
        {"row_id": f"r{i}", "sample_id": f"r{i}-{k}", "sample_index": k, "text": text.format(2 * i),
         "finish_reason": "stop", "n_tokens": 5} for i in range(8) for k, text in enumerate(texts)
    ]  # fmt: skip
    tables.write(tmp_path / "samples.parquet", samples, tables.SAMPLES)
    found = select(
        SelectConfig(), tmp_path, base=encoder, rows=tmp_path / "rows.parquet", samples=tmp_path / "samples.parquet",
        reward=trained[0],
    )  # fmt: skip
    assert (found["samples"], found["samples.unread"], found["prompts.kept"]) == (24, 8, 8)
    assert {r["response"][:5] for r in tables.read(tmp_path / "kept.parquet")} == {"It is"}
    scores = tables.read(tmp_path / "scores.parquet")
    assert {s["sample_id"][-1] for s in scores if s["status"] == "ungraded" and s["score"] is None} == {"2"}
    assert "longer than" in next(s["detail"] for s in scores if s["score"] is None)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> BaseConfig:
    return tiny_encoder(tmp_path_factory.mktemp("bert"), quantization="none")


def test_a_conversation_is_a_line_per_turn_or_what_the_template_makes_of_it(bert: BaseConfig, tmp_path: Path) -> None:
    reader = load_reader(bert)
    assert isinstance(reader, EncoderReader) and reader.room == 64
    turns = [{"role": "user", "content": "Which way?"}, {"role": "assistant", "content": "Up [SEP] [CLS] up"}]
    assert reader.render(turns[:1], generation_prompt=True) == "user: Which way?\nassistant:"
    (example,) = reader.examples([turns[:1]], ["Up [SEP] [CLS] up"])
    special = [i for i in example.ids if i in (2, 3)]
    assert special == [2, 3] and example.ids[0] == 2 and example.ids[-1] == 3  # data can forge neither
    (alone,) = reader.examples([turns[:1]], ["Up"])
    assert alone.prompt == example.prompt and 0 < alone.tokens < len(alone.ids)
    template = tmp_path / "own.jinja"
    template.write_text("{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} {% endfor %}")
    own = load_reader(bert.model_copy(update={"chat_template": template}))
    assert isinstance(own, EncoderReader) and own.render(turns[:1]) == "<user> Which way? "
    own.check()
    template.write_text("{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}{% endfor %}")
    with pytest.raises(StageError, match="drops the assistant's words"):
        load_reader(bert.model_copy(update={"chat_template": template})).check()
    template.write_text("[CLS]{% for m in messages %}{{ m['content'] }}{% endfor %}")
    with pytest.raises(StageError, match=r"writes \[CLS\] a second time"):
        load_reader(bert.model_copy(update={"chat_template": template})).check()


def test_a_classifier_of_other_labels_gets_a_head_of_its_own(base: BaseConfig, tmp_path: Path) -> None:
    encoder = tiny_encoder(tmp_path / "labels", labels=3, quantization="none")
    pairs = tiny.pairs(tmp_path / "pairs.parquet", 30)
    run(encoder, base, tmp_path / "out", pairs, None, num_train_epochs=1)
    assert load_reward(encoder, tmp_path / "out")[0].config.num_labels == 1


def test_an_encoder_writes_nothing(bert: BaseConfig, base: BaseConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is an encoder, which writes nothing.*name it in reward\.base"):
        load_model(bert)
    pairs = tiny.pairs(tmp_path / "pairs.parquet", 20)
    with pytest.raises(InputError, match=r"reward\.kind is likelihood, but .* is an encoder.*set it to head"):
        run(bert, base, tmp_path / "out", pairs, None, kind="likelihood", init_from_sft=False)


def test_a_language_model_of_its_own(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    """reward.base may be any base; the adapter of the pipeline's is left alone."""
    other = tiny.tiny_base(tmp_path / "other", seed=5)
    run(other, base, tmp_path / "out", tiny.pairs(tmp_path / "pairs.parquet", 20), adapter, num_train_epochs=1)
    assert load_reward(other, tmp_path / "out")[1] == "head"
    with pytest.raises(StageError, match="another base model"):
        load_reward(base, tmp_path / "out")


def test_the_dag_gives_it_no_adapter(bert: BaseConfig) -> None:
    drawn = mermaid(load(overrides=[f"reward.base.path={bert.path}"]))
    assert "pairs --> reward" in drawn and "sft --> reward" not in drawn and "sft --> reward" in mermaid(load())


def test_every_kind_has_a_classifier_in_transformers() -> None:
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    )

    assert set(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES) & set(MODEL_FOR_MASKED_LM_MAPPING_NAMES) >= ENCODERS
    assert not is_encoder({"model_type": "llama"}) and is_encoder({"model_type": "bert"})
    assert not is_encoder({"model_type": "bert", "is_decoder": True})
    assert not is_encoder({"model_type": "bert", "architectures": ["BertLMHeadModel"]})


def test_mistakes_are_found_before_the_first_stage(bert: BaseConfig, base: BaseConfig) -> None:
    own, plain = f"reward.base.path={bert.path}", "reward.kind=head"
    assert not list(problems(load(overrides=[own, plain])))  # it needs no chat template
    expected = {
        (own,): "reward.kind: is likelihood, but reward.base is an encoder",
        (f"reward.base.path={base.path}",): "reward.base.chat_template: ",
        (
            f"reward.base={{path: {base.path}, chat_template: {base.chat_template}}}",
        ): "reward.init_from_sft: no adapter",
        (f"base.path={bert.path}", plain): "base: is an encoder, which writes nothing",
    }
    for overrides, sentence in expected.items():
        assert [p for p in problems(load(overrides=overrides)) if p.startswith(sentence)], overrides


def test_its_memory_is_its_own(bert: BaseConfig) -> None:
    recipe = load()
    plain, own = (
        estimates(recipe.base, {"reward": Need("reward", RewardConfig(base=b))})["reward"].parts["weights"]
        for b in (None, bert)
    )
    encoder: Any = load_model(bert, head="reward")
    parameters = sum(p.numel() for p in encoder.bert.parameters())
    assert own == pytest.approx(2 * parameters, rel=0.01) and own < plain
