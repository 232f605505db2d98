"""A recipe: everything that a run depends on, in one YAML file. Loading says where a mistake is and what was meant."""

import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError, field_validator

from align.config import Config
from align.errors import InputError
from align.models.base import BaseConfig
from align.text import quote, short
from flows.chain import Chain, Champion, Controls
from flows.compute import Compute
from flows.explain import explain, listed
from flows.paths import Keys, changed
from tasks.diagnose import DiagnoseConfig
from tasks.dpo import DpoConfig
from tasks.evaluate import EvaluateConfig
from tasks.filter import FilterConfig
from tasks.fresh import FreshConfig
from tasks.grpo import GrpoConfig
from tasks.ingest import IngestConfig
from tasks.pairs import PairsConfig
from tasks.promote import PromoteConfig
from tasks.report import ReportConfig
from tasks.reward import RewardConfig
from tasks.sample import SampleConfig
from tasks.select import SelectConfig
from tasks.sft import SftConfig, SftRsConfig

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ROOT / "recipes"
MOST_BYTES, MOST_VALUES, MOST_LEVELS = 1_000_000, 20_000, 60  # of a recipe; real ones hold a few hundred values
_NO_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


class Recipe(Config):
    """One alignment run from data to report; every field is the config of the stage it names."""

    name: str
    """What runs of this recipe are called."""
    extends: str = ""
    """A recipe in the same folder, by its name, whose settings hold where this one says nothing."""
    description: str = ""
    """One sentence for people."""
    base: BaseConfig
    """The model that is aligned."""
    compute: Compute = Compute()
    """On how many devices training stages run; no part of what comes of them."""
    chain: Chain = Chain()
    """Which stages there are beside those of every recipe."""
    controls: Controls = Controls()
    """Which control arms are trained beside the pipeline's own."""
    ingest: IngestConfig
    """What is read."""
    fresh: FreshConfig = FreshConfig()
    """What stays of the rows that the champion knew, where chain.rows is new."""
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
    sft_rs: SftRsConfig = SftRsConfig()
    """Fine-tuning on what was selected."""
    sample_dpo: SampleConfig = SampleConfig(split="preference")
    """Drawing responses of the policy that dpo starts from, where chain.dpo_pairs asks for them."""
    pairs_dpo: PairsConfig = PairsConfig()
    """How those become chosen and rejected."""
    dpo: DpoConfig = DpoConfig()
    """Direct preference optimisation."""
    grpo: GrpoConfig = GrpoConfig()
    """Online RL, where chain.grpo asks for it."""
    sft_longer: SftConfig = SftConfig()
    """What controls.longer trains instead of grpo."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Which suites grade the policies."""
    diagnose: DiagnoseConfig = DiagnoseConfig()
    """What the reward model says of the evaluation's answers, where chain.diagnose asks for it."""
    promote: PromoteConfig = PromoteConfig()
    """When the final model becomes the recipe's champion."""
    report: ReportConfig = ReportConfig()
    """The page at the end."""
    champion: Champion | None = None
    """The champion that promote compares with, as the run finds it in the store: whatever stands here is replaced."""

    @field_validator("name")
    @classmethod
    def _one_word(cls, name: str) -> str:
        if not re.fullmatch(r"\w[\w .+-]{0,99}", name):
            raise ValueError("needs 1 to 100 letters, digits, spaces and any of _ . + -, a letter or digit first")
        return name


def find(name: str | Path) -> Path:
    """The file of a recipe: a path, or the name of a file in recipes/."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if _is(path, Path.is_file):
            return path
        kind = "is a directory" if _is(path, Path.is_dir) else "no such recipe file"
        raise InputError(f"{short(path)}: {kind}; `align plan NAME` takes a path or one of {', '.join(names())}.")
    if str(name) in names():
        return RECIPES / f"{name}.yaml"
    near = get_close_matches(str(name)[:100], names(), 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names())}."
    raise InputError(f"No recipe is called {quote(name)}; {hint}")


def _is(path: Path, what: Callable[[Path], bool]) -> bool:
    try:
        return what(path)
    except (OSError, ValueError):  # a name too long, or with a NUL byte
        return False


def names() -> list[str]:
    """The recipes in recipes/."""
    return sorted(p.stem for p in RECIPES.glob("*.yaml"))


def load(name: str | Path = "quickstart", overrides: Sequence[str] = ()) -> Recipe:
    """Read, override (`dotted.key=value`, the value being YAML) and validate a recipe.

    Relative paths in the file are relative to the file; those in overrides to the working directory. Raises InputError
    with a line per mistake: file and line, key, and the nearest valid key.
    """
    path = find(name)
    data = _read(path)
    plain = _plain(data, str(path))
    if plain.get("extends"):
        plain = _over(_extended(path, plain["extends"]), plain)
    given: dict[tuple[str, ...], str] = {}
    wrong = []
    for text in overrides:
        try:
            given[_override(plain, text)] = text
        except InputError as error:
            wrong.append(str(error))
    if wrong:
        raise InputError(listed(wrong))
    try:
        recipe = Recipe.model_validate(plain)
    except ValidationError as error:
        raise InputError(explain(error, Recipe, path, data, given)) from None
    except (re.error, RecursionError, OverflowError) as error:
        raise InputError(f"{short(path)}: a regular expression in it cannot be used: {error}.") from None
    return rooted(recipe, path.parent, frozenset(given))


def _extended(path: Path, name: Any) -> dict[str, Any]:
    """The settings of the recipe that the one at `path` extends, after its own mistakes were looked for."""
    beside = path.with_name(f"{name}.yaml")
    if Path(str(name)).name != name or beside == path or not _is(beside, Path.is_file):
        raise InputError(f"{short(path)}: extends: {quote(name)} is no other recipe in {short(path.parent)}.")
    data = _read(beside)
    plain = _plain(data, str(beside))
    if plain.get("extends"):
        raise InputError(f"{short(path)}: extends: {quote(name)} extends one itself; name that, or write it out.")
    try:
        Recipe.model_validate(plain)
    except ValidationError as error:
        raise InputError(explain(error, Recipe, beside, data, {})) from None
    return plain


def _over(lower: dict[str, Any], upper: dict[str, Any]) -> dict[str, Any]:
    """`lower` with what `upper` says; mappings are merged, all else takes the place of what was there."""
    both = {k: _over(lower[k], v) for k, v in upper.items() if isinstance(v, dict) and isinstance(lower.get(k), dict)}
    return lower | upper | both


def _read(path: Path) -> dict[Any, Any]:
    """The mapping in a recipe file, which knows its lines."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{short(path)}: cannot be read ({error.strerror}).") from None
    if len(raw) > MOST_BYTES:
        raise InputError(f"{short(path)}: {len(raw)} bytes are no recipe; the limit is {MOST_BYTES}.")
    try:
        data = YAML().load(_shallow(raw.decode()))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(f"{short(path)}:{line}: not UTF-8; save the recipe as UTF-8 text.") from None
    except (YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        raise InputError(f"{short(path)}{f':{mark.line + 1}' if mark else ''}: not YAML ({_problem(error)}).") from None
    if not isinstance(data, dict):
        held = "nothing" if data is None else type(data).__name__.removeprefix("Commented").lower()
        raise InputError(f"{short(path)}: a recipe is a mapping of stages to settings; this file holds {held}.")
    return data


def _shallow(text: str) -> str:
    """The text. RecursionError at once where its brackets nest so deeply that a parser would first work for seconds."""
    depth = 0
    for bracket in re.findall(r"[\[\]{}]", text):
        depth += 1 if bracket in "[{" else -1
        if depth > 10 * MOST_LEVELS:
            raise RecursionError
    return text


def _problem(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"nested more than {MOST_LEVELS} levels deep"
    return " ".join(short(getattr(error, "problem", None) or getattr(error, "reason", None) or error, 200).split())


def _plain(value: Any, source: str) -> Any:
    """The value in Python's own types. Raises InputError for what no recipe holds; aliases may not multiply it."""
    left = MOST_VALUES

    def copy(value: Any, level: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise InputError(f"{short(source)}: holds more than {MOST_VALUES} values; aliases (*name) multiply them.")
        if level > MOST_LEVELS:
            raise InputError(f"{short(source)}: is nested more than {MOST_LEVELS} levels deep.")
        if isinstance(value, dict):
            return {copy(str(k), level + 1): copy(v, level + 1) for k, v in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [copy(v, level + 1) for v in value]
        if isinstance(value, str) and (bad := _NO_TEXT.search(value)):
            raise InputError(f"{short(source)}: {quote(value)} holds {bad.group()!r}, which is not text.")
        return value

    return copy(value, 0)


def _override(data: dict[str, Any], text: str) -> tuple[str, ...]:
    """Set what `text` says; returns the keys of what was set, lists by position."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    told = f"--set {short(text)}"
    dotted, equals, written = text.partition("=")
    *parents, last = dotted.split(".")
    if not equals or not all([*parents, last]):
        raise InputError(f"{told}: write it as dotted.key=value, for instance --set dpo.beta=0.2.")
    if _NO_TEXT.search(dotted):
        raise InputError(f"{told}: the key holds a character that is not text.")
    try:
        value = _plain(YAML(typ="safe", pure=True).load(_shallow(written)), told)
    except (YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{told}: the value is not YAML ({_problem(error)}).") from None
    at: Any = data
    keys: list[str] = []
    for part in parents:
        found: Any = _index(at, part, told) if isinstance(at, list) else part
        at = at[found] if isinstance(at, list) else at.setdefault(found, {})
        keys.append(str(found))
        if not isinstance(at, dict | list):
            raise InputError(f"{told}: {short(part)} has no keys below it.")
    found = _index(at, last, told) if isinstance(at, list) else last
    at[found] = value
    return (*keys, str(found))


def _index(at: list[Any], part: str, told: str) -> int:
    """A list is addressed by position, or by the `rule` or `name` of its entries."""
    for i, item in enumerate(at):
        if part == str(i) or (isinstance(item, dict) and part in (item.get("rule"), item.get("name"))):
            return i
    raise InputError(f"{told}: {short(part)} is not in the list; write its position, or the rule's or source's name.")


def rooted(recipe: Recipe, root: Path, given: frozenset[Keys]) -> Recipe:
    """The recipe with absolute paths: relative ones are below `root`, those `given` on the way below where we are."""

    def absolute(path: Path, where: Keys) -> Path:
        if path.is_absolute():
            return path
        here = Path.cwd() if any(where[: len(keys)] == keys for keys in given) else root
        return (here / path).resolve()

    found: Recipe = changed(recipe, absolute)
    return found
