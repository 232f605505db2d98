"""The forms of an export: what plain libraries load is the policy that was trained, and nothing is left half."""

import ast
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import families
import pytest
import tiny
import torch

from align.errors import InputError, StageError
from align.handover import export as exporting
from align.handover import gguf, plain_worker
from align.handover.certificate import Certificate, Held, choose
from align.handover.export import export, new_directory, weights
from align.models.base import BaseConfig, load_chat
from align.models.engine import Prompt, Sampling
from align.models.generate import Sampler
from align.models.trained import policy
from flows.handover import verdict
from tasks.sft import SftConfig, sft

ASK = [{"role": "user", "content": "What is 3 plus 3?"}]
PROMPTS = [Prompt(f"r{i}", [{"role": "user", "content": f"What is {i} plus {i}?"}]) for i in range(30)]
TURNS = [*ASK, {"role": "assistant", "content": "It is 6."}, {"role": "user", "content": "Sure?"}]
FORGETS = {"Qwen3"}  # its own template leaves the reasoning of earlier turns out, the one of training does not
LINES = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}Answer:\n{{ m['content'] }}{{ eos_token }}\n"
    "{% else %}Question: {{ m['content'] }}\n{% endif %}{% endfor %}{% if add_generation_prompt %}Answer:\n{% endif %}"
)
CONVERTER = "import sys; open(sys.argv[3], 'wb').write(b'GGUF' + open(sys.argv[1] + '/config.json', 'rb').read())"


@pytest.fixture(scope="module")
def merged(base: BaseConfig, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(base, adapter, tmp_path_factory.mktemp("merged") / "model")


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=ids).logits
    return found


def test_merged_weights_are_the_policy_that_was_graded(merged: Path, base: BaseConfig, adapter: Path) -> None:
    from transformers import AutoModelForCausalLM

    plain, graded = AutoModelForCausalLM.from_pretrained(merged), policy(base, adapter)
    ids = torch.tensor([load_chat(base).prompt(ASK)])
    assert torch.equal(logits(plain, ids), logits(graded, ids))
    assert not torch.equal(logits(policy(base, None), ids), logits(graded, ids))


def test_it_ends_and_pads_as_the_policy_does(merged: Path, base: BaseConfig) -> None:
    chat, settings = load_chat(base), json.loads((merged / "generation_config.json").read_text())
    assert settings["eos_token_id"] == sorted({chat.end_id, chat.tokenizer.eos_token_id})
    assert settings["pad_token_id"] == chat.pad_id and not settings.get("do_sample") and "temperature" not in settings
    assert json.loads((merged / "config.json").read_text())["eos_token_id"] == chat.end_id
    assert json.loads((merged / "tokenizer_config.json").read_text())["padding_side"] == "left"
    assert (merged / "model.safetensors").stat().st_mode & 0o777 == 0o644


def test_sampling_of_the_base_is_left_behind(base: BaseConfig, adapter: Path) -> None:
    from transformers import GenerationConfig

    own = GenerationConfig(eos_token_id=[7, 1], temperature=0.6, top_p=0.9, do_sample=True, bos_token_id=3)
    made = exporting.generation(own, load_chat(base)).to_diff_dict()
    assert made["eos_token_id"] == [1, 7] and made["bos_token_id"] == 3
    assert not {"temperature", "top_p"} & made.keys() and not made.get("do_sample")


def test_the_template_only_asks(merged: Path, base: BaseConfig) -> None:
    from transformers import AutoTokenizer

    chat, tokenizer = load_chat(base), AutoTokenizer.from_pretrained(merged)
    assert "generation %}" in chat.template and "generation %}" not in tokenizer.chat_template
    asked: Any = tokenizer.apply_chat_template(ASK, add_generation_prompt=True, return_dict=True)
    assert asked["input_ids"] == chat.prompt(ASK)


@pytest.mark.parametrize("family", families.BY_NAME)
def test_the_template_of_a_family_asks_as_in_training(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = families.chat_of(family)
    said = [families.ASK, [{"role": "user", "content": "가 나?\n"}], *([] if family in FORGETS else [TURNS])]
    trained = [chat.render(messages, generation_prompt=True) for messages in said]
    monkeypatch.setattr(chat.tokenizer, "chat_template", chat.inference)
    assert [chat.render(messages, generation_prompt=True) for messages in said] == trained
    assert "endgeneration" not in chat.inference


def test_an_adapter_loads_on_the_base_that_is_not_quantised(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM, PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    made = export(base, adapter, tmp_path / "adapter", "adapter")
    assert sorted(p.name for p in made.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "generation_config.json",
        "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    facts = json.loads((made / "adapter_config.json").read_text())
    assert facts["base_model_name_or_path"] == str(base.path)
    by_itself: Any = AutoPeftModelForCausalLM.from_pretrained(made)
    on_base = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(str(base.path)), str(made))
    ids = torch.tensor([load_chat(base).prompt(ASK)])
    assert torch.equal(logits(by_itself, ids), logits(on_base, ids))
    assert not torch.allclose(logits(on_base.unload(), ids), logits(by_itself, ids))
    assert GenerationConfig.from_pretrained(made).eos_token_id == [load_chat(base).end_id]
    assert "generation %}" not in AutoTokenizer.from_pretrained(made).chat_template


def test_an_adapter_of_a_base_on_the_hub_names_it(
    base: BaseConfig, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("align.models.base.directory", lambda _: base.path)
    monkeypatch.setattr(exporting, "directory", lambda _: base.path)
    hub = BaseConfig(hub="org/base", revision="abc", chat_template=base.chat_template)
    facts = json.loads((export(hub, adapter, tmp_path / "a", "adapter") / "adapter_config.json").read_text())
    assert (facts["base_model_name_or_path"], facts["revision"]) == ("org/base", "abc")
    assert str(base.path) not in (tmp_path / "a" / "tokenizer_config.json").read_text()


def test_all_weights_have_no_adapter(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    full = base.model_copy(update={"adapter": "none", "quantization": "none"})
    with pytest.raises(InputError, match="there is no adapter"):
        export(full, adapter, tmp_path / "a", "adapter")
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_left_alone(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("full", "file", "link"):
        with pytest.raises(InputError, match="exists; give --to"):
            export(base, adapter, tmp_path / name)
    with pytest.raises(InputError, match="cannot be written"):
        export(base, adapter, tmp_path / "file" / "below")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "full", "link", "mine"]
    (tmp_path / "empty").mkdir()
    assert (export(base, adapter, tmp_path / "empty", "adapter") / "adapter_config.json").is_file()


def test_nothing_is_written_half(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), new_directory(tmp_path / "a" / "b") as draft:
        (draft / "file").write_text("x")
        assert not (tmp_path / "a" / "b").exists()
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.rglob("*")] == ["a"]


def test_gguf_is_made_by_the_converter_of_what_is_merged(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-c", CONVERTER]
    made = export(base, adapter, tmp_path / "gguf", "gguf", converter=words)
    assert b"LlamaForCausalLM" in (made / gguf.FILE).read_bytes()
    assert [p.name for p in tmp_path.rglob("*")] == ["gguf", gguf.FILE], "the merged weights are gone"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise SystemExit('BPE pre-tokenizer was not recognized')", "status 1: BPE pre-tokenizer was not recognized"),
        ("print('done')", "wrote no GGUF file: done"),
        ("import sys; open(sys.argv[3], 'w').write('no')", "wrote no GGUF file: it said nothing"),
    ],
)
def test_a_converter_that_fails_says_why(code: str, said: str, merged: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=said):
        gguf.convert([sys.executable, "-c", code], merged, tmp_path)


def test_a_converter_is_found_or_the_command_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"use --form merged and then `python llama.cpp/convert_hf_to_gguf.py DIR"):
        gguf.converter(None)
    with pytest.raises(InputError, match="no such command"):
        gguf.converter("nothing here")
    found = tmp_path / gguf.NAMES[0]
    found.write_text("#!/bin/sh\n")
    found.chmod(0o755)
    assert gguf.converter(None) == [str(found)]
    assert gguf.converter(f"{sys.executable} x.py") == [sys.executable, "x.py"]


STORIES = Path(__file__).parents[2] / "shared" / "data" / "stories260K"


@pytest.mark.skipif(not STORIES.is_dir(), reason="without the shared data")
@pytest.mark.skipif(not any(map(shutil.which, gguf.NAMES)), reason="without llama.cpp's converter")
def test_the_converter_of_llama_cpp_makes_a_file_that_ends_where_the_policy_ends(tmp_path: Path) -> None:
    reader = pytest.importorskip("gguf").GGUFReader
    template = tmp_path / "lines.jinja"
    template.write_text(LINES, encoding="utf-8")
    base = BaseConfig(path=STORIES, chat_template=template, quantization="none")
    (tmp_path / "out").mkdir()
    config = SftConfig(max_length=128, per_device_train_batch_size=16)
    sft(config, tmp_path / "out", base=base, rows=tiny.kept(tmp_path / "kept.parquet", 16))
    made = export(base, tmp_path / "out", tmp_path / "gguf", "gguf", converter=gguf.converter(None))
    fields = reader(made / gguf.FILE).fields
    assert fields["tokenizer.ggml.eos_token_id"].contents() == load_chat(base).end_id
    assert fields["tokenizer.chat_template"].contents() == load_chat(base).inference


@pytest.fixture(scope="module")
def held(base: BaseConfig, adapter: Path) -> list[Held]:
    """Items that the policy mostly answers in the form that it has learned, which is what counts as right."""
    drawn = Sampler(base, adapter).draw(PROMPTS, Sampling(n=1, temperature=0, max_new_tokens=12))
    return [Held("sums", p.row_id, p.messages, s.text, score(s.text)) for p, s in zip(PROMPTS, drawn, strict=True)]


def score(text: str) -> float:
    return float(text.startswith("It is"))


def certified(
    form: Any, base: BaseConfig, adapter: Path, held: list[Held], to: Path, certificate: Certificate | None = None
) -> dict[str, Any]:
    known = certificate or Certificate(held, lambda _, said: [score(text) for text in said], 12)
    with new_directory(to) as draft, weights(base, adapter, draft, form, look=known.look) as loadable:
        return known.plain(loadable, form)


def test_plain_transformers_says_what_was_graded(
    base: BaseConfig, adapter: Path, held: list[Held], tmp_path: Path
) -> None:
    found = certified("merged", base, adapter, held, tmp_path / "m")
    assert found["items"] == found["prompts_alike"] == len(held)
    assert found["same_text"] > 0.95 and found["same_tokens"] > 0.95 and found["mean_graded"] > 0.8
    assert found["drift"]["tokens"] > 100 and found["drift"]["max"] < 1e-4
    assert verdict("merged", found, {})["certified"] is True


def test_the_drift_of_an_adapter_is_measured(base: BaseConfig, adapter: Path, held: list[Held], tmp_path: Path) -> None:
    found = certified("adapter", base, adapter, held, tmp_path / "a")
    assert found["dtype"] == "float32" and found["prompts_alike"] == len(held)
    assert 1e-4 < found["drift"]["mean"] < found["drift"]["max"]


def test_other_weights_are_not_certified(
    base: BaseConfig, adapter: Path, held: list[Held], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = exporting._merged

    def wrong(model: Any, *more: Any) -> None:
        write(policy(base, None), *more)

    monkeypatch.setattr(exporting, "_merged", wrong)
    found = certified("merged", base, adapter, held, tmp_path / "m")
    assert found["verdict"] == "worse" and found["difference"] < -0.5 and found["drift"]["mean"] > 0.1
    assert verdict("merged", found, {})["certified"] is False
    graded = {k: v for k, v in found.items() if k != "same_tokens"}
    assert "evaluation items worse than what was graded, by" in verdict("merged", graded, {})["because"]


def test_a_server_that_answers_worse_counts_too_and_nothing_graded_certifies_nothing() -> None:
    fine = {"items": 100, "graded": 100, "verdict": "not shown", "same_tokens": 1.0}
    worse = fine | {"verdict": "worse", "difference": -0.2, "low": -0.3, "high": -0.1}
    assert verdict("merged", fine, {"failed": "no memory"})["certified"] is True
    assert "behind a server" in verdict("merged", fine, worse)["because"]
    assert verdict("merged", {"items": 9, "same_tokens": 1.0}, {})["certified"] is None
    assert verdict("adapter", fine | {"same_tokens": 0.1}, {})["certified"] is True, "its base is another one"
    assert verdict("merged", fine | {"same_tokens": 0.1}, {})["certified"] is False


def test_items_are_chosen_by_hash() -> None:
    held = [Held("s", f"r{i}", ASK, "x", 1.0) for i in range(200)]
    few, more = choose(held, 20), choose(held, 100)
    assert len(few) == 20 and len(more) == 100 and {h.name for h in few} <= {h.name for h in more}
    assert few != held[:20] and len(choose(held, 1000)) == 200


def test_the_process_that_stands_for_others_imports_nothing_of_this_package() -> None:
    tree = ast.parse(Path(plain_worker.__file__).read_text(encoding="utf-8"))
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    found |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in found} == {"json", "os", "sys", "typing", "torch", "transformers", "peft"}


def test_an_export_that_others_cannot_load_fails_in_a_sentence(held: list[Held], tmp_path: Path) -> None:
    known = Certificate(held[:1], lambda *_: [None], 4)
    known._prompts, known._context = [[1]], 10
    with pytest.raises(StageError, match="Plain transformers could not use the export"):
        known.plain(tmp_path, "merged")
