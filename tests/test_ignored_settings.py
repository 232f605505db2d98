"""Settings that would have no effect, or another than is meant, are refused: all at once by the preflight, and by the
stage that is called directly."""

from pathlib import Path
from typing import Any

import pytest
import tiny
from hostile_words import refused

from align.config import Config
from align.errors import InputError
from align.grading.graders import ExactGrader
from align.grading.suites import Asked
from align.models.arguments import LoraSettings
from align.models.base import BaseConfig, load_model
from align.models.trainable import adapt
from flows.check import check, problems
from flows.recipe import load, names
from tasks.answer import AnswerConfig, answer
from tasks.dpo import DpoConfig, dpo
from tasks.evaluate import EvaluateConfig, evaluate
from tasks.pairs import PairsConfig, pairs
from tasks.reward import RewardConfig, reward
from tasks.sample import SampleConfig, sample
from tasks.select import SelectConfig, select
from tasks.sft import SftConfig, sft

IGNORED = {
    # what is set -> the key that is refused
    "dpo.label_smoothing=0.1": "dpo.label_smoothing: has no effect with loss_type sigmoid",
    "dpo={loss_type: hinge, label_smoothing: 0.1}": "dpo.label_smoothing",
    "dpo={loss_type: robust}": "dpo.label_smoothing: is 0, with which robust is sigmoid",
    "dpo.loss_type=ipo": "dpo.beta: 0.1 is the default",
    "dpo={loss_type: ipo}": "1 / (2 beta) nats per token (here 5)",
    "dpo.loss_type=sigmoid_norm": "dpo.beta: 0.1 is too small for sigmoid_norm",
    "dpo={loss_type: sigmoid_norm, beta: 0.5}": "dpo.beta: 0.5 is too small",
    "dpo.lora={lora_dropout: 0.1}": "dpo.lora.lora_dropout: asks for 0.1, but the adapter of sft that is continued has 0.0",
    "sft_rs.lora={target_modules: [q_proj]}": "sft_rs.lora.target_modules",
    "reward.lora={lora_dropout: 0.1}": "reward.lora.lora_dropout",
    "dpo.lora={r: 3}": "dpo.lora.r: asks for 3",
    "reward={kind: likelihood, center_rewards_coefficient: 0.02}": "reward.center_rewards_coefficient",
    "sample={temperature: 0, top_p: 0.9}": "sample.top_p: has no effect at temperature 0",
    "resample={temperature: 0, seed: 1}": "resample.seed: has no effect at temperature 0",
    "evaluate={n: 0, primary: greedy, temperature: 0.3}": "evaluate.temperature: has no effect where n is 0",
    "evaluate={n: 0, top_p: 0.3}": "evaluate.top_p",
    "pairs.origin=imported": "pairs.grader: has no effect where origin is imported",
    "pairs={origin: imported, min_margin: 0.1}": "pairs.min_margin",
    "pairs={origin: imported, strategy: all, use_reference: true, reject_truncated: true}": "pairs.strategy",
    "select.by=score": "select.by: ranks the prompts",
    "resample.n=1": "controls.random_of_n: in resample n is 1",
    "resample={temperature: 0}": "controls.random_of_n: in resample temperature is 0",
}


@pytest.mark.parametrize("setting", IGNORED)
def test_what_is_ignored_is_refused(setting: str) -> None:
    before = list(problems(load("quickstart")))
    found = [p for p in problems(load("quickstart", [setting])) if p not in before]
    assert any(IGNORED[setting] in p for p in found), found


def test_the_seed_of_a_control_that_is_left_out() -> None:
    with pytest.raises(InputError, match=r"select\.seed: decides the control arm"):
        check(load("quickstart", ["controls.random_of_n=false", "select.seed=1"]))
    check(load("quickstart", ["select.seed=1"]))
    check(load("quickstart", ["controls.random_of_n=false", "resample.n=1"]))


EFFECTIVE = [
    "dpo={loss_type: robust, label_smoothing: 0.1}", "dpo={loss_type: ipo, beta: 0.5}",
    "dpo={loss_type: sigmoid_norm, beta: 5}", "dpo={loss_type: hinge}", "dpo.lora={r: 16, lora_alpha: 16}",
    "dpo.lora={target_modules: all-linear}", "reward={init_from_sft: false, lora: {r: 4, lora_dropout: 0.1}}",
    "reward={kind: head, center_rewards_coefficient: 0.02}", "reward={kind: likelihood, center_rewards_coefficient: 0}",
    "resample={temperature: 0.5, top_p: 0.9, seed: 1}", "sample={limit: 5, temperature: 0.7, seed: 1}",
    "select={top: 0.5, by: score}", "evaluate.seed=1",
]  # fmt: skip


@pytest.mark.parametrize("setting", EFFECTIVE)
def test_what_has_an_effect_is_not(setting: str) -> None:
    check(load("quickstart", [setting]))


@pytest.mark.parametrize("name", names())
def test_recipes_that_ship(name: str) -> None:
    assert not [p for p in problems(load(name)) if "effect" in p or "beta" in p or "lora" in p]


def test_a_form_that_gives_every_setting_is_no_mistake() -> None:
    """What a deployment sends is the whole of a stage's settings, defaults among them."""
    recipe = load("quickstart")
    given = [f"{s}={getattr(recipe, s).model_dump_json()}" for s in ("pairs", "reward", "dpo", "sample", "select")]
    check(load("quickstart", given))


def test_all_at_once(tmp_path: Path, capsys: Any) -> None:
    wrong = ["dpo.label_smoothing=0.1", "select.by=score", "sft_rs.lora={lora_dropout: 0.1}", "resample.n=1"]
    err = refused(["plan", *(w for s in wrong for w in ("--set", s)), "--store", str(tmp_path / "s")], capsys)
    assert len(err.splitlines()) == 4
    assert all(key in err for key in ("dpo.label_smoothing", "select.by", "sft_rs.lora", "controls.random_of_n"))


NO, BASE = Path("nothing"), BaseConfig(path=Path("nothing"))
DIRECT: list[tuple[Any, Config, dict[str, Any], str]] = [
    (dpo, DpoConfig(label_smoothing=0.1), {"base": BASE, "pairs": NO, "adapter": NO}, "label_smoothing"),
    (dpo, DpoConfig(loss_type="ipo"), {"base": BASE, "pairs": NO, "adapter": NO}, "beta"),
    (reward, RewardConfig(kind="likelihood", center_rewards_coefficient=1), {"base": BASE, "pairs": NO, "adapter": NO},
     "center_rewards_coefficient"),
    (sample, SampleConfig(temperature=0, top_p=0.5), {"base": BASE, "rows": NO}, "top_p"),
    (sample, SampleConfig(temperature=0, seed=1), {"base": BASE, "rows": NO}, "seed"),
    (answer, AnswerConfig(suites={"*": Asked()}, n=1, temperature=0, top_p=0.5), {"base": BASE, "rows": NO}, "top_p"),
    (evaluate, EvaluateConfig(n=0, temperature=0.3), {"rows": NO}, "temperature"),
    (pairs, PairsConfig(origin="imported", grader=ExactGrader()), {"rows": NO}, "grader"),
    (select, SelectConfig(by="score"), {"base": BASE, "rows": NO, "samples": NO, "reward": NO}, "by"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "config", "inputs", "key"), DIRECT, ids=[f"{s.__name__}-{k}" for s, _, _, k in DIRECT]
)
def test_a_stage_that_is_called_directly(stage: Any, config: Config, inputs: Any, key: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^{key}: "):
        stage(config, tmp_path, **inputs)
    assert not list(tmp_path.iterdir())


def test_a_continued_adapter_keeps_its_shape(base: BaseConfig, adapter: Path) -> None:
    model = load_model(base)
    for lora, told in (
        ({"lora_dropout": 0.1}, r"lora_dropout 0\.1, but the adapter that is continued has lora_dropout 0\.0"),
        ({"target_modules": ("q_proj",)}, "target_modules .*q_proj.*, but .* target_modules of other layers"),
        ({"r": 8, "lora_alpha": 4}, "r 8, lora_alpha 4, but .* r 16, lora_alpha 16"),
    ):
        with pytest.raises(InputError, match=told):
            adapt(model, SftConfig(lora=LoraSettings(**lora)), base, adapter)
    adapt(model, SftConfig(lora=LoraSettings()), base, adapter)


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), r".*\.(q|v)_proj"])
def test_an_adapter_of_some_layers_is_continued(targets: Any, base: BaseConfig, tmp_path: Path) -> None:
    """Also one whose layers were named by a regular expression."""
    train = SftConfig(max_length=128, num_train_epochs=1, lora=LoraSettings(r=4, target_modules=targets))
    rows = tiny.kept(tmp_path / "kept.parquet", 16)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    sft(train, tmp_path / "first", base=base, rows=rows)
    sft(train, tmp_path / "second", base=base, rows=rows, adapter=tmp_path / "first")
    with pytest.raises(InputError, match="target_modules"):
        adapt(load_model(base), SftConfig(lora=LoraSettings(r=4)), base, tmp_path / "second")
