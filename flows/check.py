"""What a run of a recipe would stumble on, found before its first stage: all of it at once, and without heavy work.

Only what settings and the places that they name decide is looked at. What depends on rows (a reference that is missing,
a model that never answers) is for the stage that reads them.
"""

import codecs
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

from align.config import Config
from align.data.readers import expand
from align.data.shapes import Use
from align.errors import InputError
from align.grading.graders import PythonGrader
from align.models.arguments import Training
from align.models.base import BaseConfig
from align.text import quote, short
from flows import check_base, check_promote, check_rounds, check_suites, check_training
from flows.check_suites import splits
from flows.explain import listed
from flows.recipe import Recipe
from tasks.grpo import GrpoConfig
from tasks.ingest import Source
from tasks.pairs import PairsConfig
from tasks.sample import SampleConfig


def check(recipe: Recipe) -> None:
    """Raises InputError with one line per mistake."""
    if found := list(problems(recipe)):
        raise InputError(listed(found))


def problems(recipe: Recipe) -> Iterator[str]:
    """Mistakes as sentences that begin with the key."""
    for where, config in configs(recipe, ""):
        yield from (f"{where}{problem}" for problem in _own(config))
    for rule in (
        _data,
        check_suites.problems,
        _samples,
        check_training.adapters,
        check_training.shares,
        _controls,
        check_rounds.rounds,
        _online,
        _encoders,
        check_promote.problems,
    ):
        yield from rule(recipe)


def configs(value: Any, where: str) -> Iterator[tuple[str, Config]]:
    """Every config in a recipe with what its keys begin with, as --set takes it: rules by name, not by position."""
    if isinstance(value, Config):
        yield where, value
        for name in type(value).model_fields:
            yield from configs(getattr(value, name), f"{where}{name}.")
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from configs(item, f"{where}{name}.")
    elif isinstance(value, tuple | list):
        for i, item in enumerate(value):
            yield from configs(item, f"{where}{getattr(item, 'rule', i)}.")


def _own(config: Config) -> Iterator[str]:
    """What is wrong with one config by itself."""
    yield from config.contradictions()
    if isinstance(config, BaseConfig):
        yield from check_base.problems(config)
        return
    if isinstance(config, Source):
        yield from _source(config)
        return
    for name in type(config).model_fields:
        value, look = getattr(config, name), PLACES.get(name)
        if isinstance(value, Path) and (problem := reading(partial(look or _there, value))):
            yield f"{name}: {problem}"
    if isinstance(config, PythonGrader) and (config.file is None or config.file.is_file()):
        yield from _python(config)
    if isinstance(config, Training):
        yield from check_training.problems(config)
    given: Callable[[str], Any] = partial(getattr, config)
    fields = type(config).model_fields
    if "base_url" in fields and (problem := address(given("base_url"))):
        yield f"base_url: {problem}"
    if {"min", "max"} <= fields.keys() and given("min") > given("max"):
        yield f"min: {given('min'):g} is above max, {given('max'):g}."
    if {"lowest", "highest"} <= fields.keys() and given("lowest") >= given("highest"):
        yield f"lowest: {given('lowest'):g} is not below highest, {given('highest'):g}."
    if {"min", "highest"} <= fields.keys() and given("min") > given("highest"):
        yield f"min: {given('min'):g} is above highest, {given('highest'):g}, so that no row would stay."
    if "ending" in fields and given("ending") is not None:
        yield from _ending(given("ending"))


def reading(look: Callable[[], str | None]) -> str | None:
    """What a look at a file finds, where what the file system refuses counts as found too."""
    try:
        return look()
    except InputError as error:
        return f"{error}."
    except ValueError as error:
        return f"cannot be read ({short(error)})."
    except OSError as error:
        return f"{short(error.filename or '')}: cannot be read ({error.strerror})."


def _there(path: Path) -> str | None:
    if not path.is_file():
        return f"{short(path)} does not exist." if not path.is_dir() else f"{short(path)} is a directory, not a file."
    return None if os.access(path, os.R_OK) else f"{short(path)} may not be read."


def _warehouse(path: Path) -> str | None:
    if not path.is_dir():
        return f"{short(path)}: no such warehouse; give a directory of <table>.parquet or <table>.csv files."
    tables = [p for p in path.iterdir() if p.suffix in (".parquet", ".csv")]
    if not tables:
        return f"{short(path)} holds no <table>.parquet or <table>.csv."
    for table in sorted(tables):
        with table.open("rb") as file:
            ends = file.read(4), file.seek(max(0, table.stat().st_size - 4)), file.read(4)
        if table.suffix == ".parquet" and not ends[0] == ends[2] == b"PAR1":
            return f"{short(table)} is no whole Parquet file."
    return None


def _model(path: Path) -> str | None:
    return None if (path / "config.json").is_file() else f"{short(path)} is no model directory (it has no config.json)."


def _folder(path: Path) -> str | None:
    return None if path.is_dir() else f"{short(path)} is no directory."


PLACES: dict[str, Callable[[Path], str | None]] = {"warehouse": _warehouse, "embedding": _model, "include": _folder}


def _source(source: Source) -> Iterator[str]:
    if source.path is not None:
        path = source.path
        if problem := reading(lambda: next((p for f in expand(path) if (p := _there(f))), None)):
            yield f"path: {problem}"
    try:
        text = codecs.lookup(source.encoding)._is_text_encoding  # what open() asks
    except (LookupError, ValueError):
        text = False
    if not text:
        yield f"encoding: no text encoding is called {quote(source.encoding)}; utf-8 and cp949 are some."


def _python(grader: PythonGrader) -> Iterator[str]:
    try:
        function = grader.load()
    except InputError as error:
        yield f"function: {' '.join(str(error).split())}."
    except BaseException as error:  # the code of a user may do anything, even exit
        if isinstance(error, KeyboardInterrupt):
            raise
        yield f"function: the grader {grader.function} cannot be imported: {type(error).__name__}."
    else:
        if not callable(function):
            yield f"function: {quote(grader.function)} is no function."


def address(url: str) -> str | None:
    """What is wrong with the URL of an endpoint; None where nothing is."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        sound = False
    return None if sound else f"{quote(url)} is no address such as http://localhost:8000/v1."


def _ending(pattern: str) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.compute as pc

    try:  # on nulls, because an array made of Python values imports pandas
        pc.match_substring_regex(pa.nulls(1, pa.string()), f"(?:{pattern})\\s*$")
    except pa.ArrowInvalid as error:
        yield f"ending: {quote(pattern)} is no regular expression (RE2): {short(error)}."


def _data(recipe: Recipe) -> Iterator[str]:
    sources = recipe.ingest.sources
    if not sources:
        yield "ingest.sources: is empty; name at least one file or Hub dataset."
        return
    if not any(s.use == "instructions" for s in sources.values()):
        yield "ingest.sources: none has use: instructions, which is what filter and sft work on."
    elif not recipe.ingest.split.get("sft"):
        yield "ingest.split: sft has no share, so that there is nothing to train on."


def _samples(recipe: Recipe) -> Iterator[str]:
    sources = recipe.ingest.sources.values()
    asked: dict[str, SampleConfig | GrpoConfig] = {"sample": recipe.sample, "resample": recipe.resample}
    if recipe.chain.grpo != "none":
        asked["grpo"] = recipe.grpo
    if recipe.chain.dpo_pairs != "pairs":
        asked["sample_dpo"] = recipe.sample_dpo
    for stage, config in asked.items():
        asked_of = {config.split} if isinstance(config.split, str) else set(config.split)
        unknown = [use for use in config.use if use not in get_args(Use)]
        if unknown:
            yield f"{stage}.use: {quote(unknown[0])} is none of {', '.join(get_args(Use))}."
        elif sources and not any(s.use in config.use and asked_of & splits(recipe, s) for s in sources):
            listing = " or ".join(sorted(asked_of))
            yield f"{stage}.split: no source of use {' or '.join(config.use) or 'any'} has rows in {listing}."
    if recipe.pairs.reward:
        yield "pairs.reward: the reward model is trained on these pairs; set pairs_dpo.reward, or leave it out."
    yield from _labelled(recipe, "pairs", recipe.pairs, "sample", recipe.sample)
    if recipe.chain.dpo_pairs != "pairs":
        yield from _labelled(recipe, "pairs_dpo", recipe.pairs_dpo, "sample_dpo", recipe.sample_dpo)
    if recipe.chain.rewards == 1 and recipe.select.changed("combine"):
        yield "select.combine: has no effect where chain.rewards is 1; leave it out, or raise that."


def _labelled(recipe: Recipe, name: str, pairs: PairsConfig, drawn: str, sample: SampleConfig) -> Iterator[str]:
    """Whether a stage that makes pairs of what another draws can make any."""
    if pairs.origin != "samples":
        sources = recipe.ingest.sources.values()
        if pairs.origin == "imported" and not any(s.use == "preferences" for s in sources):
            yield f"{name}.origin: is imported, but no source has use: preferences."
    elif pairs.grader.kind == "none" and pairs.judge is None and not pairs.reward:
        yield f"{name}.grader: is none, so that no sample would be chosen or rejected; name a grader."
    elif not pairs.use_reference and (sample.n == 1 or sample.temperature == 0):
        alike = "n is 1" if sample.n == 1 else "temperature is 0"
        yield f"{drawn}: {alike}, so that no two samples of a prompt differ and {name} makes none; raise it."


def _controls(recipe: Recipe) -> Iterator[str]:
    """Control arms that would be copies, and settings of an arm that is left out."""
    again, select = recipe.resample, recipe.select
    if not recipe.controls.random_of_n:
        if select.seed:
            yield "select.seed: decides the control arm alone, which controls.random_of_n leaves out; leave it out too."
    elif again.n == 1 or again.temperature == 0:
        alike = "n is 1" if again.n == 1 else "temperature is 0"
        yield (
            f"controls.random_of_n: in resample {alike}, so that a random response of the n is the best one and "
            "sft_random repeats sft_rs; raise it, or set this to false."
        )


def _online(recipe: Recipe) -> Iterator[str]:
    """Online RL that nothing rewards, or that cannot be done with this base, and its control without it."""
    grpo = recipe.grpo
    if recipe.chain.grpo == "none":
        if recipe.controls.longer:
            yield "controls.longer: is what online RL is compared with, and chain.grpo is none; set one of them."
        return
    if not grpo.rewarded:
        yield "chain.grpo: asks for online RL, but nothing rewards; set grpo.grader or grpo.reward_weight."
    if grpo.beta and recipe.base.adapter == "none":
        yield "grpo.beta: needs a reference, which is a copy of the adapter, and base.adapter is none; set it to 0."
    if recipe.compute.strategy == "fsdp":
        yield "compute.strategy: is fsdp, but grpo draws from whole weights; set it to ddp, or chain.grpo to none."


def _encoders(recipe: Recipe) -> Iterator[str]:
    """An encoder scores, and writes nothing."""
    base, own = recipe.base, recipe.reward.base
    if base.path is not None and check_base.encoder(base.path):
        yield "base: is an encoder, which writes nothing; name it in reward.base, and in base a language model."
    if own is not None and own.path is not None and check_base.encoder(own.path) and recipe.reward.kind == "likelihood":
        yield "reward.kind: is likelihood, but reward.base is an encoder, which writes nothing; set it to head."
