"""A recipe: everything that a run depends on, in one YAML file. Loading says where a mistake is and what was meant."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from align.config import Config
from align.errors import InputError
from align.models.base import BaseConfig
from tasks.dpo import DpoConfig
from tasks.evaluate import EvaluateConfig
from tasks.filter import FilterConfig
from tasks.ingest import IngestConfig
from tasks.pairs import PairsConfig
from tasks.report import ReportConfig
from tasks.reward import RewardConfig
from tasks.sample import SampleConfig
from tasks.select import SelectConfig
from tasks.sft import SftConfig

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ROOT / "recipes"


class Controls(Config):
    """Which control arms are trained and evaluated beside the pipeline's own."""

    random_of_n: bool = True
    """SFT on a random response of the n instead of the best: what rejection sampling is compared with."""
    unfiltered: bool = False
    """SFT on an equal number of random unfiltered rows: what the filter is compared with."""


class Recipe(Config):
    """One alignment run from data to report; every field is the config of the stage it names."""

    name: str
    """What runs of this recipe are called."""
    description: str = ""
    """One sentence for people."""
    base: BaseConfig
    """The model that is aligned."""
    controls: Controls = Controls()
    """Which control arms are trained beside the pipeline's own."""
    ingest: IngestConfig
    """What is read."""
    filter: FilterConfig = FilterConfig()
    """Which rows are kept."""
    sft: SftConfig = SftConfig()
    """Supervised fine-tuning on what is kept."""
    sample: SampleConfig = SampleConfig(split="preference")
    """Drawing responses for pairs."""
    pairs: PairsConfig = PairsConfig()
    """How samples become chosen and rejected."""
    reward: RewardConfig = RewardConfig()
    """Training the reward model."""
    resample: SampleConfig = SampleConfig(split="rejection")
    """Drawing responses for selection."""
    select: SelectConfig = SelectConfig()
    """Rejection sampling."""
    sft_rs: SftConfig = SftConfig()
    """Fine-tuning on what was selected."""
    dpo: DpoConfig = DpoConfig()
    """Direct preference optimisation."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Which suites grade the policies."""
    report: ReportConfig = ReportConfig()
    """The page at the end."""


def find(name: str | Path) -> Path:
    """The file of a recipe: a path, or the name of a file in recipes/."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise InputError(f"{path}: no such recipe file; `align plan NAME` takes a path or one of {', '.join(names())}.")
    found = RECIPES / f"{name}.yaml"
    if found.is_file():
        return found
    near = get_close_matches(str(name), names(), 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names())}."
    raise InputError(f"No recipe is called {name!r}; {hint}")


def names() -> list[str]:
    """The recipes in recipes/."""
    return sorted(p.stem for p in RECIPES.glob("*.yaml"))


def load(name: str | Path = "quickstart", overrides: Sequence[str] = ()) -> Recipe:
    """Read, override (`dotted.key=value`, the value being YAML) and validate a recipe.

    Relative paths in the file are relative to the file; those in overrides to the working directory. Raises InputError
    with file, line and nearest valid key.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError

    path = find(name)
    yaml = YAML()
    try:
        data = yaml.load(path.read_text(encoding="utf-8"))
    except (MarkedYAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise InputError(f"{path}{line}: not YAML ({getattr(error, 'problem', error)}).") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: a recipe is a mapping of stages to settings; this file holds {type(data).__name__}.")
    plain = _plain(data)
    given = {key.split("=", 1)[0]: key for key in overrides}
    for dotted, text in given.items():
        _override(plain, dotted, text)
    try:
        recipe = Recipe.model_validate(plain)
    except ValidationError as error:
        raise InputError(_explain(error, path, data, given)) from None
    return _rooted(recipe, path.parent, (), frozenset(given))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list) else value


def _override(data: dict[str, Any], dotted: str, text: str) -> None:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if "=" not in text or not dotted:
        raise InputError(f"--set {text}: write it as dotted.key=value, for instance --set dpo.beta=0.2.")
    try:
        value = YAML(typ="safe").load(text.split("=", 1)[1])
    except YAMLError:
        raise InputError(f"--set {text}: the value is not YAML.") from None
    *parents, last = dotted.split(".")
    at: Any = data
    for part in parents:
        at = at[_index(at, part, text)] if isinstance(at, list) else at.setdefault(part, {})
        if not isinstance(at, dict | list):
            raise InputError(f"--set {text}: {part} has no keys below it.")
    if isinstance(at, list):
        at[_index(at, last, text)] = value
    else:
        at[last] = value


def _index(at: list[Any], part: str, text: str) -> int:
    """A list is addressed by position, or by the `rule` or `name` of its entries."""
    for i, item in enumerate(at):
        if part == str(i) or (isinstance(item, dict) and part in (item.get("rule"), item.get("name"))):
            return i
    raise InputError(f"--set {text}: {part} is not in the list; write its position, or the rule's or source's name.")


def _explain(error: ValidationError, path: Path, data: Any, given: dict[str, str]) -> str:
    first = error.errors(include_url=False)[0]
    where = [part for part in first["loc"] if not (isinstance(part, str) and part.endswith("]"))]
    real, line = _locate(data, where)
    dotted = ".".join(map(str, real))
    source = next((f"--set {text}" for key, text in given.items() if dotted.startswith(key)), f"{path}:{line}")
    if first["type"] == "extra_forbidden":
        known = list(_keys(Recipe, real[:-1], data))
        near = get_close_matches(str(real[-1]), known, 1, 0.5)
        hint = f"did you mean {near[0]}?" if near else f"the keys here are {', '.join(sorted(known))}."
        return f"{source}: unknown key {dotted}; {hint}"
    if first["type"] == "missing":
        return f"{source}: {dotted} is missing."
    got = f" (got {first['input']!r})" if not isinstance(first["input"], dict | list | BaseModel) else ""
    return f"{source}: {dotted}: {first['msg'][0].lower()}{first['msg'][1:]}{got}."


def _locate(data: Any, where: Sequence[Any]) -> tuple[list[Any], int]:
    """The part of a pydantic location that names keys of the file (union tags do not), and the line it stands on."""
    real: list[Any] = []
    line = 1
    lines: Any
    for i, part in enumerate(where):
        if isinstance(data, list) and isinstance(part, int) and part < len(data):
            lines = data
            line = lines.lc.item(part)[0] + 1
        elif isinstance(data, dict) and part in data:
            lines = data
            line = lines.lc.key(part)[0] + 1 if part in lines.lc.data else line
        elif i < len(where) - 1:
            continue
        real.append(part)
        data = data[part] if isinstance(data, dict | list) and _has(data, part) else None
    return real, line


def _has(data: Any, part: Any) -> bool:
    return part in data if isinstance(data, dict) else isinstance(part, int) and part < len(data)


def _keys(model: Any, where: Sequence[Any], data: Any) -> Iterator[str]:
    """Valid keys at a place in a recipe, through nested models, lists, mappings and unions."""
    from typing import get_args

    for i, part in enumerate(where):
        models = [m for m in _models(model) if isinstance(part, int) or part in m.model_fields]
        if isinstance(part, str) and models:
            model = tuple(m.model_fields[part].annotation for m in models)
        elif not isinstance(part, int):
            yield from _keys(get_args(model), where[i + 1 :], data)
            return
    for found in _models(model):
        yield from found.model_fields


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    from typing import get_args

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in annotation if isinstance(annotation, tuple) else get_args(annotation):
        yield from _models(inner)


def _rooted(value: Any, root: Path, where: tuple[str, ...], given: frozenset[str]) -> Any:
    """The same value with relative paths made absolute."""
    if isinstance(value, BaseModel):
        fields = {n: _rooted(getattr(value, n), root, (*where, n), given) for n in type(value).model_fields}
        return value.model_copy(update={n: v for n, v in fields.items() if v is not getattr(value, n)})
    if isinstance(value, dict):
        return {k: _rooted(v, root, (*where, str(k)), given) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_rooted(v, root, (*where, str(i)), given) for i, v in enumerate(value))
    if isinstance(value, Path) and not value.is_absolute():
        here = Path.cwd() if any(".".join(where).startswith(key) for key in given) else root
        return (here / value).resolve()
    return value
