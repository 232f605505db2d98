"""SFT: what is trained on, what is saved, and every way it refuses."""

import filecmp
import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from align import tables
from align.errors import InputError, StageError
from align.models.arguments import LoraSettings
from align.models.base import BaseConfig, load_chat
from align.models.trained import policy
from tasks.sft import SftConfig, sft

STORIES = Path(__file__).parents[2] / "shared" / "data" / "stories260K"


def run(base: BaseConfig, out: Path, rows: Path, adapter: Path | None = None, **settings: Any) -> dict[str, Any]:
    out.mkdir()
    config = SftConfig(
        **{"learning_rate": 5e-3, "num_train_epochs": 1, "per_device_train_batch_size": 16, "max_length": 128}
        | settings
    )
    return sft(config, out, base=base, rows=rows, adapter=adapter)


def nll(model: Any, base: BaseConfig, table: list[dict[str, Any]]) -> float:
    """Mean negative log-likelihood of the responses with their end-of-turn tokens."""
    chat = load_chat(base)
    total, count = 0.0, 0
    for e in chat.examples([r["messages"] for r in table], [r["response"] for r in table]):
        with torch.no_grad():
            logp = model(input_ids=torch.tensor([e.ids])).logits[0].log_softmax(-1)
        for at in range(1, len(e.ids)):
            if e.mask[at]:
                total, count = total - float(logp[at - 1, e.ids[at]]), count + 1
    return total / count


def test_arguments_of_trl_by_their_own_names(base: BaseConfig, tmp_path: Path) -> None:
    rows = tiny.kept(tmp_path / "kept.parquet", 16)
    plain, decayed, few = (
        run(base, tmp_path / str(i), rows, per_device_train_batch_size=4, extra=extra)
        for i, extra in enumerate(({}, {"adam_beta1": 0.1}, {"max_steps": 1}))
    )
    assert plain["loss.final"] != decayed["loss.final"] and (plain["steps"], few["steps"]) == (4, 1)
    with pytest.raises(InputError, match=r"adam_beta_1.*did you mean adam_beta1"):
        run(base, tmp_path / "wrong", rows, extra={"adam_beta_1": 0.1})


def test_it_learns_from_the_assistants_words_alone(base: BaseConfig, tmp_path: Path) -> None:
    rows = tiny.kept(tmp_path / "kept.parquet", 64)
    metrics = run(base, tmp_path / "out", rows, per_device_train_batch_size=64, num_train_epochs=8)
    table = tables.read(rows)
    assert metrics["loss.first"] == pytest.approx(nll(policy(base, None), base, table), rel=1e-3)
    assert nll(policy(base, tmp_path / "out"), base, table) < 0.7 * metrics["loss.first"]
    chat = load_chat(base)
    responses = [len(chat.tokenizer(r["response"])["input_ids"]) + 1 for r in table]
    assert metrics["tokens.trained"] == sum(responses)
    assert metrics["steps"] == 8 and metrics["rows"] == 64


def test_the_log_is_a_table(base: BaseConfig, tmp_path: Path) -> None:
    run(base, tmp_path / "out", tiny.kept(tmp_path / "kept.parquet", 32), per_device_train_batch_size=8)
    log = tables.read(tmp_path / "out" / "training_log.parquet")
    assert [e["step"] for e in log if e["name"] == "loss"] == [1, 2, 3, 4]
    assert {"loss", "learning_rate", "grad_norm"} <= {e["name"] for e in log}
    assert all(math.isfinite(e["value"]) for e in log)


def test_equal_runs_give_equal_bytes(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    rows = tiny.kept(tmp_path / "kept.parquet", 40)
    a, b, c = (run(base, tmp_path / name, rows, adapter, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    a, b, c = map(tiny.measured, (a, b, c))
    assert a == b != c
    files = sorted(str(p.relative_to(tmp_path / "a")) for p in (tmp_path / "a").rglob("*") if p.is_file())
    same, different, _ = filecmp.cmpfiles(tmp_path / "a", tmp_path / "b", files, shallow=False)
    assert same == files and not different
    assert (
        "adapter/adapter_model.safetensors" in filecmp.cmpfiles(tmp_path / "a", tmp_path / "c", files, shallow=False)[1]
    )


def test_an_adapter_is_continued_not_replaced(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    rows = tiny.kept(tmp_path / "kept.parquet", 32)
    start = nll(policy(base, adapter), base, tables.read(rows))
    metrics = run(base, tmp_path / "out", rows, adapter, per_device_train_batch_size=32, learning_rate=1e-6)
    assert metrics["loss.first"] == pytest.approx(start, rel=1e-3)
    ids = torch.arange(5, 40)[None]
    with torch.no_grad():
        before, after = policy(base, adapter)(ids).logits, policy(base, tmp_path / "out")(ids).logits
    assert torch.allclose(before, after, atol=1e-2)


def test_another_shape_for_a_continued_adapter(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    rows = tiny.kept(tmp_path / "kept.parquet", 8)
    with pytest.raises(InputError, match="asks for r 8, but the adapter that is continued has r 16; leave lora out"):
        run(base, tmp_path / "out", rows, adapter, lora=LoraSettings(r=8))


def test_an_adapter_of_another_base(adapter: Path, tmp_path: Path) -> None:
    other = tiny.tiny_base(tmp_path / "other", seed=3)
    with pytest.raises(StageError, match="belongs to another base"):
        run(other, tmp_path / "out", tiny.kept(tmp_path / "kept.parquet", 8), adapter)


def test_the_shape_of_a_new_adapter(base: BaseConfig, tmp_path: Path) -> None:
    from peft import PeftConfig

    rows = tiny.kept(tmp_path / "kept.parquet", 8)
    run(base, tmp_path / "out", rows, lora=LoraSettings(r=4, lora_alpha=8, target_modules=("q_proj", "v_proj")))
    shape: Any = PeftConfig.from_pretrained(str(tmp_path / "out" / "adapter"))
    assert (shape.r, shape.lora_alpha, sorted(shape.target_modules)) == (4, 8, ["q_proj", "v_proj"])


def test_long_rows_are_counted_and_too_many_fail(base: BaseConfig, tmp_path: Path) -> None:
    rows = [tiny.row(i) for i in range(30)] + [tiny.row(99, response="word " * 200)]
    tables.write(tmp_path / "kept.parquet", rows, tables.KEPT)
    metrics = run(base, tmp_path / "out", tmp_path / "kept.parquet")
    assert (metrics["rows.read"], metrics["rows"], metrics["rows.too_long"]) == (31, 30, 1)
    (dropped,) = tables.read(tmp_path / "out" / "dropped.parquet")
    assert dropped["row_id"] == "r99" and dropped["reason"] == "too long" and dropped["n_tokens"] > 128
    with pytest.raises(StageError, match=r"1 of 31 rows \(3%\) are longer than max_length = 128"):
        run(base, tmp_path / "strict", tmp_path / "kept.parquet", max_truncated_share=0.01)


def test_nothing_to_train_on(base: BaseConfig, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="0 rows to train on"):
        run(base, tmp_path / "a", tiny.kept(tmp_path / "none.parquet", 0))
    tables.write(tmp_path / "long.parquet", [tiny.row(0, response="word " * 200)], tables.KEPT)
    with pytest.raises(StageError, match="0 steps"):
        run(base, tmp_path / "b", tmp_path / "long.parquet", max_truncated_share=1.0)
    tables.write(tmp_path / "mute.parquet", [tiny.row(0, response="")], tables.KEPT)
    with pytest.raises(StageError, match="1 rows have no response"):
        run(base, tmp_path / "c", tmp_path / "mute.parquet")


def test_markers_that_enclose_nothing_fail_before_training(base: BaseConfig, tmp_path: Path) -> None:
    file = tmp_path / "template.jinja"
    file.write_text(tiny.CHATML.replace("{% generation %}", "{% generation %}{% endgeneration %}", 1).replace(
        "<|end|>{% endgeneration %}", "<|end|>"))  # fmt: skip
    bare = base.model_copy(update={"chat_template": file})
    with pytest.raises(StageError, match="No token would be trained on"):
        run(bare, tmp_path / "out", tiny.kept(tmp_path / "kept.parquet", 8))


def test_earlier_turns_are_trained_on_only_where_all_are(base: BaseConfig, tmp_path: Path) -> None:
    ask = [*tiny.row(0)["messages"], {"role": "assistant", "content": "Nobody scored this."}, *tiny.row(1)["messages"]]
    tables.write(tmp_path / "kept.parquet", [tiny.row(i, messages=ask) for i in range(8)], tables.KEPT)
    chat = load_chat(base)
    earlier = len(chat.tokenizer("Nobody scored this.<|end|>")["input_ids"])
    last = sum(len(chat.tokenizer(f"It is {2 * i}.<|end|>")["input_ids"]) for i in range(8))
    every = run(base, tmp_path / "all", tmp_path / "kept.parquet")
    only = run(base, tmp_path / "last", tmp_path / "kept.parquet", train_on="last")
    assert (every["tokens.trained"], only["tokens.trained"]) == (8 * earlier + last, last)
    assert every["loss.first"] != only["loss.first"]


def test_without_quantisation(tmp_path: Path) -> None:
    base = tiny.tiny_base(tmp_path / "base", quantization="none", tie=False)
    metrics = run(base, tmp_path / "out", tiny.kept(tmp_path / "kept.parquet", 16), num_train_epochs=4)
    assert metrics["loss.final"] < metrics["loss.first"]
    policy(base, tmp_path / "out")


def test_bf16_on_a_cpu(base: BaseConfig, tmp_path: Path) -> None:
    half = base.model_copy(update={"dtype": "bfloat16"})
    metrics = run(half, tmp_path / "out", tiny.kept(tmp_path / "kept.parquet", 32), num_train_epochs=4)
    assert metrics["loss.final"] < 0.9 * metrics["loss.first"]
    assert policy(half, tmp_path / "out").dtype == torch.bfloat16


def test_limit_and_warmup(base: BaseConfig, tmp_path: Path) -> None:
    metrics = run(
        base,
        tmp_path / "out",
        tiny.kept(tmp_path / "kept.parquet", 30),
        limit=16,
        per_device_train_batch_size=4,
        warmup_steps=0.5,
    )
    assert metrics["rows"] == 16 and metrics["steps"] == 4
    log = tables.read(tmp_path / "out" / "training_log.parquet", name="learning_rate")
    rates = [e["value"] for e in log]
    assert rates[0] < rates[2] == max(rates) > rates[3]


@pytest.mark.skipif(not STORIES.is_dir(), reason="../shared/data is not there")
def test_a_real_pretrained_model(tmp_path: Path) -> None:
    from align.models.engine import Prompt, Sampling
    from align.models.generate import generate

    template = (
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}"
        "{% generation %}{{ m['content'] }}{{ eos_token }}{% endgeneration %}"
        "{% else %}{{ m['role'] }}: {{ m['content'] }}\n{% endif %}{% endfor %}"
    )
    (tmp_path / "template.jinja").write_text(template)
    base = BaseConfig(path=STORIES, chat_template=tmp_path / "template.jinja")
    metrics = run(base, tmp_path / "out", tiny.kept(tmp_path / "kept.parquet", 32), num_train_epochs=3)
    assert metrics["loss.final"] < metrics["loss.first"]
    prompt = Prompt("p", [{"role": "user", "content": "Tell me about a girl named Lily."}])
    (story,) = generate(base, None, [prompt], Sampling(max_new_tokens=40).greedy())
    assert story.n_tokens == 40 and " she " in story.text
