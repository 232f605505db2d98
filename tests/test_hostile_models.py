"""Models that are damaged, of another architecture or hostile: one sentence that names the file, before any training."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from align.errors import AlignError, InputError, StageError
from align.grading.judge import JudgeGrader
from align.models.arguments import Training
from align.models.base import BaseConfig, load_chat, load_model
from align.models.memory import _config
from align.models.reward_model import load_reward
from align.models.template import check_template
from align.models.trainable import adapt
from align.models.trained import policy
from tasks.sft import SftConfig, sft

Change = Callable[[Path], Any]
QUERY = "model.layers.0.self_attn.q_proj.weight"


def truncated(share: float) -> Change:
    def change(file: Path) -> None:
        data = file.read_bytes()
        file.write_bytes(data[: int(len(data) * share)])

    return change


def tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Change:
    def apply(file: Path) -> None:
        weights = load_file(file)
        change(weights)
        save_file({k: v.contiguous() for k, v in weights.items()}, file, metadata={"format": "pt"})

    return apply


def text(content: str) -> Change:
    return lambda file: file.write_text(content)


def facts(**changes: Any) -> Change:
    """Change keys of a JSON file; a value of None takes the key out."""

    def change(file: Path) -> None:
        kept = {k: v for k, v in (json.loads(file.read_text()) | changes).items() if v is not None}
        file.write_text(json.dumps(kept))

    return change


def with_value(weights: dict[str, torch.Tensor], name: str, value: float) -> None:
    weights[name] = weights[name].clone()
    weights[name].view(-1)[7] = value


def directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def sharded(index: str) -> Change:
    def change(file: Path) -> None:
        file.rename(file.with_name("model-00001-of-00002.safetensors"))
        file.with_name("model.safetensors.index.json").write_text(index)

    return change


SHARDS = json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}})

BASES: list[tuple[str, str, Change, str]] = [
    ("cut in half", "model.safetensors", truncated(0.5), "no whole safetensors file.*fetch it again"),
    ("cut in its header", "model.safetensors", truncated(0.001), "no whole safetensors file"),
    ("empty", "model.safetensors", truncated(0), "no whole safetensors file"),
    ("no safetensors", "model.safetensors", text("version https://git-lfs.github.com/spec/v1\n"), "no whole safetensors"),
    ("absent", "model.safetensors", lambda file: file.unlink(), "is missing"),
    ("a directory", "model.safetensors", directory, "is missing"),
    ("missing shard", "model.safetensors", sharded(SHARDS), "weight file .*-00002-of-00002.safetensors is missing"),
    ("index that is no JSON", "model.safetensors", sharded("{"), "index.json cannot be read as JSON"),
    ("index without a map", "model.safetensors", sharded("{}"), "index.json has no weight_map"),
    ("matrix of another shape", "model.safetensors", tensors(lambda w: w.update({QUERY: torch.zeros(32, 64)})),
     r"q_proj.weight .*has the shape \[32, 64\] where config.json asks for \[64, 64\]"),
    ("norm of another shape", "model.safetensors", tensors(lambda w: w.update({"model.norm.weight": torch.ones(3)})),
     r"norm.weight .*has the shape \[3\] where config.json asks for \[64\]"),
    ("missing weight", "model.safetensors", tensors(lambda w: w.pop(QUERY)), "lack 1 weights.*such as .*q_proj.weight"),
    ("NaN", "model.safetensors", tensors(lambda w: with_value(w, QUERY, float("nan"))), "q_proj.weight in .*not finite"),
    ("infinity", "model.safetensors", tensors(lambda w: with_value(w, "model.norm.weight", float("inf"))),
     "norm.weight in .*model.safetensors holds numbers that are not finite"),
    ("config that is no JSON", "config.json", text("{"), "config.json cannot be read as JSON"),
    ("config that is a list", "config.json", text("[]"), "config.json does not hold a JSON object"),
    ("config of nested brackets", "config.json", text("[" * 100_000), "config.json cannot be read as JSON"),
    ("no model type", "config.json", facts(model_type=None), "config.json has no model_type"),
    ("model type of another kind", "config.json", facts(model_type=7), "config.json has no model_type"),
    ("unknown model type", "config.json", facts(model_type="no-such-model"), "cannot be loaded"),
    ("more layers than weights", "config.json", facts(num_hidden_layers=3), "lack 9 weights"),
    ("another width", "config.json", facts(intermediate_size=96), "has the shape .* where config.json asks for"),
    ("heads that do not divide", "config.json", facts(num_attention_heads=-1), "cannot be loaded|has the shape"),
    ("tokenizer that is no JSON", "tokenizer.json", text("{"), "tokenizer.json cannot be read as JSON"),
    ("tokenizer that is another thing", "tokenizer.json", text("{}"), "tokenizer of .* cannot be loaded"),
    ("tokenizer config that is no JSON", "tokenizer_config.json", text("no"), "tokenizer_config.json cannot be read"),
]  # fmt: skip


@pytest.mark.parametrize("quantization", ["nf4", "none"])
@pytest.mark.parametrize(("name", "change", "sentence"), [c[1:] for c in BASES], ids=[c[0] for c in BASES])
def test_a_base_that_is_damaged(
    base: BaseConfig, tmp_path: Path, name: str, change: Change, sentence: str, quantization: str
) -> None:
    assert base.path
    shutil.copytree(base.path, tmp_path / "base")
    change(tmp_path / "base" / name)
    broken = base.model_copy(update={"path": tmp_path / "base", "quantization": quantization})
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match=sentence) as caught:
        sft(SftConfig(max_length=128), tmp_path / "out", base=broken, rows=tiny.kept(tmp_path / "rows.parquet", 8))
    _one_sentence(caught.value)
    assert {p.name for p in (tmp_path / "out").iterdir()} <= {"dropped.parquet"}


def test_a_base_of_two_shards_loads(base: BaseConfig, tmp_path: Path) -> None:
    assert base.path
    plain = base.model_copy(update={"quantization": "none"})
    load_model(plain).save_pretrained(tmp_path / "base", max_shard_size="100KB")
    assert len(list((tmp_path / "base").glob("*.safetensors"))) > 1
    for file in base.path.glob("tokenizer*"):
        shutil.copy(file, tmp_path / "base")
    loaded = load_model(plain.model_copy(update={"path": tmp_path / "base"}))
    for (name, a), (_, b) in zip(load_model(plain).named_parameters(), loaded.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_the_estimate_of_memory_names_the_config(base: BaseConfig, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="config.json has no model_type"):
        _config(base.model_copy(update={"path": tmp_path}))


LORA = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"

ADAPTERS: list[tuple[str, str, Change, str]] = [
    ("cut in half", "adapter_model.safetensors", truncated(0.5), "no whole safetensors file.*made it again"),
    ("absent", "adapter_model.safetensors", lambda file: file.unlink(), "adapter_model.safetensors is missing"),
    ("wrong shape", "adapter_model.safetensors", tensors(lambda w: w.update({LORA: torch.zeros(16, 32)})),
     r"lora_A.weight in .* has the shape \[16, 32\] where the base model asks for \[16, 64\]"),
    ("missing weight", "adapter_model.safetensors", tensors(lambda w: w.pop(LORA)), "lacks the weight .*q_proj.lora_A"),
    ("one weight too many", "adapter_model.safetensors", tensors(lambda w: w.update({"x": torch.zeros(2)})),
     "no place for, such as x"),
    ("NaN", "adapter_model.safetensors", tensors(lambda w: with_value(w, LORA, float("nan"))), "lora_A.* not finite"),
    ("another rank", "adapter_config.json", facts(r=8), r"has the shape \[16, .* where the base model asks for \[8, "),
    ("no layer to adapt", "adapter_config.json", facts(target_modules=["nowhere"]), "does not fit the base model"),
    ("config that is no JSON", "adapter_config.json", text("{"), "adapter_config.json cannot be read as JSON"),
    ("config of no kind", "adapter_config.json", text("{}"), "adapter_config.json is no LoRA configuration"),
    ("base.json that is no JSON", "base.json", text("{"), "base.json cannot be read as JSON"),
    ("base.json without facts", "base.json", text("{}"), "belongs to another base model: its weights are None"),
    ("another base", "base.json", facts(weights="0" * 64), "belongs to another base model: its weights are 000000"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "sentence"), [c[1:] for c in ADAPTERS], ids=[c[0] for c in ADAPTERS])
def test_an_adapter_that_is_damaged(
    base: BaseConfig, adapter: Path, tmp_path: Path, name: str, change: Change, sentence: str
) -> None:
    """Both where it is continued and where it is merged."""
    shutil.copytree(adapter, tmp_path / "adapter")
    change(tmp_path / "adapter" / "adapter" / name)
    for use in (lambda a: adapt(load_model(base), Training(), base, a), lambda a: policy(base, a)):
        with pytest.raises(StageError, match=sentence) as caught:
            use(tmp_path / "adapter")
        _one_sentence(caught.value)


def test_an_adapter_that_makes_the_weights_infinite(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    """Finite itself, but not once it is merged."""
    shutil.copytree(adapter, tmp_path / "adapter")
    huge = tensors(lambda w: [w[k].fill_(1e30) for k in w])
    huge(tmp_path / "adapter" / "adapter" / "adapter_model.safetensors")
    with pytest.raises(StageError, match="merged into the base gives a weight that is not finite"):
        policy(base, tmp_path / "adapter")


def test_a_reward_model_of_no_kind(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    shutil.copytree(adapter, tmp_path / "adapter")
    for content, sentence in (("{", "cannot be read as JSON"), ('{"kind": "oracle"}', "names no kind of reward model")):
        (tmp_path / "adapter" / "adapter" / "reward.json").write_text(content)
        with pytest.raises(StageError, match=sentence):
            load_reward(base, tmp_path / "adapter")


LOOP = "{% for i in range(99999) %}"
END = "{% endfor %}"

TEMPLATES = [
    ("nested loops", LOOP * 4 + END * 4, "takes more than 2 seconds"),
    ("a list that doubles", "{% set x = namespace(a=[1]) %}" + LOOP + "{% set x.a = x.a + x.a %}" + END, "takes more"),
    ("endless output", LOOP + "{{ 'x' * 99999 }}" + END, "writes more than 1,000,000 characters"),
    ("a gigantic word", "{{ 'x' * (10 ** 10) }}", "takes more than 512 MiB of memory"),
    ("a gigantic field", "{{ '%99999999999d' | format(1) }}", "takes more than 512 MiB of memory"),
    (
        "a loop in long conversations",
        "{% if messages | length > 9 %}" + LOOP * 4 + END * 4 + "{% endif %}",
        "2 seconds",
    ),
    ("a loop before an answer", "{% if add_generation_prompt %}" + LOOP * 4 + END * 4 + "{% endif %}", "2 seconds"),
    ("syntax", "{% for m in messages %}", "cannot render a conversation"),
    ("no number", "{{ 1 / 0 }}", "cannot render a conversation: division by zero"),
    ("recursion", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "cannot render a conversation"),
    ("an own error", "{{ raise_exception('roles\nmust alternate') }}", "conversation: roles must alternate"),
]


@pytest.mark.parametrize(("template", "sentence"), [c[1:] for c in TEMPLATES], ids=[c[0] for c in TEMPLATES])
def test_a_template_that_does_not_end(base: BaseConfig, tmp_path: Path, template: str, sentence: str) -> None:
    file = tmp_path / "template.jinja"
    file.write_text(template)
    with pytest.raises(InputError, match=sentence) as caught:
        load_chat(base.model_copy(update={"chat_template": file}))
    assert str(file) in str(caught.value)
    _one_sentence(caught.value)


def test_a_template_that_is_no_text(base: BaseConfig, tmp_path: Path) -> None:
    file = tmp_path / "template.jinja"
    file.write_bytes(b"\xff\xfe{{")
    with pytest.raises(InputError, match="template.jinja cannot be read"):
        load_chat(base.model_copy(update={"chat_template": file}))


def test_a_template_is_tried_out_once(base: BaseConfig) -> None:
    load_chat(base)
    before = check_template.cache_info()
    load_chat(base)
    assert check_template.cache_info().hits == before.hits + 1
    assert check_template.cache_info().misses == before.misses


@pytest.mark.parametrize(
    "pattern", ["[[rating", "(", "(?P<a", "*", "(a{99999999999999999999})", "(" * 3000 + ")" * 3000]
)
def test_a_judge_with_a_bad_pattern(pattern: str) -> None:
    with pytest.raises(ValueError, match="judge.pattern is not a regular expression") as caught:
        JudgeGrader(base_url="http://localhost:1/v1", model="m", pattern=pattern)
    assert len(str(caught.value)) < 1000


def _one_sentence(error: AlignError) -> None:
    assert "\n" not in str(error) and len(str(error)) < 600
