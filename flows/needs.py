"""What the stages of a recipe need of a GPU: by `align memory`, and as a warning before a run."""

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator

from align.errors import InputError
from align.models.arguments import Training
from align.models.memory import PROMPT, Estimate, Need, estimates
from align.text import quote
from flows.ranks import nodes
from flows.recipe import Recipe
from flows.slots import devices
from flows.stages import TABLE, Stage, present, row
from tasks.pairs import PairsConfig
from tasks.select import SelectConfig

UNITS = {"gib": 1 << 30, "mib": 1 << 20, "gb": 10**9, "mb": 10**6, "": 1}


def needs(recipe: Recipe) -> dict[str, Need]:
    """What each stage that wants a GPU loads, by its row in the table of stages; controls need what their arms do."""
    return {s.name: _need(recipe, s.name) for s in present(recipe) if s.load and not s.control and _loads(recipe, s)}


def _loads(recipe: Recipe, stage: Stage) -> bool:
    """Whether it loads a model at all: pairs do where the reward model scores them."""
    config = stage.config_of(recipe)
    return config.reward if isinstance(config, PairsConfig) else True


def _need(recipe: Recipe, name: str) -> Need:
    stage = TABLE[name]
    assert stage.load is not None
    config = stage.config_of(recipe)
    if isinstance(config, PairsConfig):
        config = SelectConfig()  # by which the reward model scores here, too
    continued = name != "sft" and getattr(config, "init_from_sft", True)
    if continued and "lora" in type(config).model_fields:  # the adapter that sft made, whose shape stays
        config = config.model_copy(update={"lora": recipe.sft.lora})
    longest = getattr(config, "max_length", PROMPT + recipe.resample.max_new_tokens)
    if not isinstance(config, Training):
        return Need(stage.load, config, tokens=longest)
    compute = recipe.compute
    many = compute.of(len(devices())) * nodes()
    return Need(stage.load, config, longest, many, compute.strategy == "fsdp", compute.offload)


def given_bytes(text: str) -> int:
    """Bytes in words such as 24GiB, 80GB or 16384MiB. Raises InputError for others."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    if found is None or found[2] not in UNITS or not float(found[1]):
        raise InputError(f"--gpu: {quote(text)} is no size; write 24GiB or 80GB.")
    return int(float(found[1]) * UNITS[found[2]])


def gpu_bytes() -> int | None:
    """Bytes of the smallest GPU that stages may get; None without one. No library that touches it is loaded."""
    if not devices() or shutil.which("nvidia-smi") is None:
        return None
    words = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    sizes = [int(line) << 20 for line in done.stdout.split() if line.isdigit()] if done.returncode == 0 else []
    return min(sizes, default=None)


def warnings(recipe: Recipe, names: Iterable[str], gpu: int) -> list[str]:
    """A sentence for each of the stages called so (as nodes of the DAG) that will not fit on a GPU of so many bytes."""
    wanted = {stage.name if not stage.control else stage.field for stage in map(row, names) if stage.load}
    found = estimates(recipe.base, {n: need for n, need in needs(recipe).items() if n in wanted}, gpu)
    return [sentence for name, estimate in found.items() for sentence in _sentence(recipe, name, estimate, gpu)]


def _sentence(recipe: Recipe, name: str, estimate: Estimate, gpu: int) -> Iterator[str]:
    if estimate.fits is not False:
        return
    total = estimate.parts["total"] / 1e9
    yield f"{name} needs about {total:.1f} GB of {gpu / 1e9:.1f} GB: {advice(recipe, name, estimate)}"


def advice(recipe: Recipe, name: str, estimate: Estimate) -> str:
    """What to set so that a stage that does not fit does."""
    field = TABLE[name].field
    if estimate.fitting:
        return "set " + " and ".join(f"{field}.{key} to {value}" for key, value in estimate.fitting.items()) + "."
    if "gradients" not in estimate.parts:
        length = f"lower {field}.max_new_tokens, or " if TABLE[name].load == "sample" else ""
        return f"no batch fits; {length}take a smaller base."
    checkpointing = getattr(TABLE[name].config_of(recipe), "gradient_checkpointing", True)
    first = f"set {field}.gradient_checkpointing to auto" if checkpointing is False else f"lower {field}.max_length"
    return f"not even a micro-batch of 1 fits; {first}, or take a smaller base."
