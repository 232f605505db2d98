"""`align ask`: questions for a task of one's own, drawn by a model from examples and validated by running their SQL."""

import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align import digests, tables, whole
from align.asking.forms import Example, read
from align.asking.sift import REASONS, Sieve, Sifted
from align.asking.writers import Asked, Policy, Writer
from align.config import LARGEST
from align.endpoint import Endpoint
from align.errors import InputError, StageError
from align.grading.sandbox import Sandbox
from align.grading.sql import SqlGrader
from align.text import quote, short
from flows import show
from flows.check import address, configs
from flows.explain import listed
from flows.recipe import Recipe, load
from storage.store import Store

MOST = 10  # questions that are drawn for each that is wanted, before it gives up
BATCH = 256  # texts that are written at a time
SCHEMA, NONE = "schema.sql", Path("none")
_COLUMNS = (
    "SELECT table_name, column_name, data_type FROM information_schema.columns ORDER BY table_name, ordinal_position"
)


@dataclass(frozen=True)
class Order:
    """What is asked for; the options of the verb."""

    recipe: str
    overrides: Sequence[str]
    examples: Path
    to: Path
    n: int
    run: str | None = None
    model: str | None = None
    endpoint: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    warehouse: Path | None = None
    schema: Path | None = None
    temperature: float = 0.8
    max_new_tokens: int = 192
    seed: int = 0
    overwrite: bool = False

    def check(self) -> None:
        """InputError for options that are no good, or do not go together."""
        if self.to.exists() and not self.overwrite:
            raise InputError(f"{short(self.to)} is there already; name another file, or add --overwrite to replace it.")
        if not self.to.absolute().parent.is_dir():
            raise InputError(f"{short(self.to)}: its folder does not exist; make it, or name another file.")
        if not 1 <= self.n <= 1_000_000 or not 0 <= self.seed <= LARGEST:
            raise InputError(f"--n is a number from 1 to 1000000, --seed one from 0 to {LARGEST}.")
        if not 0 <= self.temperature <= 10 or self.max_new_tokens < 1:
            raise InputError("--temperature is a number from 0 to 10, --max-new-tokens one of 1 or more.")
        if self.endpoint and (self.run or not self.model):
            raise InputError("--endpoint goes with --model, the name of the model there, and without --run.")
        if self.endpoint and (wrong := address(self.endpoint)):
            raise InputError(f"--endpoint: {wrong}")
        if self.model and not (self.endpoint or self.run):
            raise InputError("--model is a policy of --run, or a model behind --endpoint; name one of them.")


def draw(order: Order, store: Callable[[], Store], json_: bool) -> None:
    """Draw what is asked for, write it and say what happened. Raises StageError where nothing was kept."""
    order.check()
    recipe = load(order.recipe, order.overrides)
    examples = examples_of(order.examples)
    with _sandbox(order, recipe) as sandbox:
        if wrong := list(failing(examples, sandbox)):
            raise InputError(listed(wrong))
        writer = _writer(order, recipe, store, examples, "" if order.schema == NONE else _schema(order, sandbox))
        found = ask(writer, examples, sandbox, order.n)
    if found.kept:
        save(order.to, found.kept, writer.name)
    if json_:
        show.as_json(facts(found, order.to, writer.name))
    else:
        say(found, order.to, order.n)
    if not found.kept:
        raise StageError(f"None of {found.drawn} questions was kept, so that {short(order.to)} was not written.")


def _sandbox(order: Order, recipe: Recipe) -> Sandbox:
    """What SQL runs on: the data that is named, or that on which the recipe grades SQL."""
    if order.warehouse:
        return Sandbox(order.warehouse.absolute())
    found = next((config for _, config in configs(recipe, "") if isinstance(config, SqlGrader)), None)
    if found is None:
        raise InputError(f"The recipe {recipe.name} grades no SQL; name the data that answers run on with --warehouse.")
    return Sandbox(found.warehouse, found.limits)


def _schema(order: Order, sandbox: Sandbox) -> str:
    if order.schema is None:
        return schema_of(sandbox)
    try:
        return order.schema.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--schema {short(order.schema)} cannot be read as UTF-8 text: {error}.") from None


def _writer(
    order: Order, recipe: Recipe, store: Callable[[], Store], examples: Sequence[Example], schema: str
) -> Writer:
    """Who draws: a model behind an endpoint, a policy of a run, or the recipe's base."""
    if order.endpoint:
        assert order.model is not None
        try:
            there = Endpoint(base_url=order.endpoint, model=order.model, api_key_env=order.api_key_env)
        except ValueError as error:
            raise InputError(f"--endpoint {quote(order.endpoint)}: {_reason(error)}.") from None
        return Asked(there, examples, schema, order.seed)
    base, adapter, name = recipe.base, None, Path(recipe.base.name).name if recipe.base.path else recipe.base.name
    if order.run:
        opened = store()
        policy = order.model or show.final_of(opened, order.run)
        run = show.latest_run(opened, order.run, policy)["run_id"]
        base, adapter, name = show.base_of(opened, run), show.artifact_of(opened, run, policy), f"{policy} of run {run}"
        with digests.kept_in(opened.digests):
            return _policy(order, base, adapter, examples, schema, name)
    return _policy(order, base, adapter, examples, schema, name)


def _policy(
    order: Order, base: Any, adapter: Path | None, examples: Sequence[Example], schema: str, name: str
) -> Policy:
    return Policy(
        base, adapter, examples, schema, name=name, temperature=order.temperature, seed=order.seed,
        max_new_tokens=order.max_new_tokens,
    )  # fmt: skip


def _reason(error: ValueError) -> str:
    return "; ".join(e["msg"].removeprefix("Value error, ") for e in getattr(error, "errors", list)()) or str(error)


def examples_of(path: Path) -> list[Example]:
    """The questions of a file with their answers, in any shape that ingest reads. InputError where there are none."""
    from tasks.ingest import IngestConfig, Source, ingest

    with tempfile.TemporaryDirectory(prefix="ask-") as folder:
        ingest(IngestConfig(sources={"examples": Source(path=path.absolute())}, max_bad_share=0), Path(folder))
        rows = tables.read(Path(folder) / "rows.parquet", columns=["prompt", "response"])
    return [Example(row["prompt"], row["response"]) for row in rows]


def schema_of(sandbox: Sandbox) -> str:
    """The tables of a warehouse: its schema.sql, or what its files hold."""
    file = sandbox.warehouse / SCHEMA
    if file.is_file():
        return file.read_text(encoding="utf-8")
    (result,) = sandbox.run([_COLUMNS])
    found: dict[str, list[str]] = {}
    for table, column, kind in result.rows:
        found.setdefault(table, []).append(f"{column} {kind}")
    return "\n".join(f"CREATE TABLE {table} ({', '.join(columns)});" for table, columns in found.items())


def failing(examples: Sequence[Example], sandbox: Sandbox) -> Iterator[str]:
    """A sentence for each example whose SQL does not run."""
    for example, result in zip(examples, sandbox.run(e.answer for e in examples), strict=True):
        if result.status != "ok":
            why = short(" ".join(result.detail.split()), 200)
            yield f"The SQL of the example {quote(example.question)} does not run: {why}."


def ask(writer: Writer, examples: Sequence[Example], sandbox: Sandbox, n: int) -> Sifted:
    """Draw until `n` questions are kept, or MOST times as many were drawn."""
    sieve = Sieve(examples, sandbox, writer.answer)
    found, written = sieve.sifted, 0
    while len(found.kept) < n and found.drawn < MOST * n:
        share = max(1 / MOST, len(found.kept) / found.drawn) if found.drawn else 1 / 2  # of what is drawn is kept
        wanted = min(math.ceil((n - len(found.kept)) / share), MOST * n - found.drawn)
        texts = writer.write(written, min(BATCH, -(-wanted // writer.at_a_time)))
        written += len(texts)
        parts = [read(text) for text in texts]
        cut = sum(max(cut, not some) for some, cut in parts)  # a text without a question counts as one
        sieve.add([example for some, _ in parts for example in some], cut)
    sieve.only(n)
    return found


def save(to: Path, kept: Sequence[Example], writer: str) -> None:
    """Write questions as JSONL that ingest reads."""
    rows = [{"question": e.question, "answer": e.answer, "drawn_by": writer} for e in kept]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    try:
        whole.write(to.absolute(), text.encode("utf-8", "surrogatepass"))
    except OSError as error:
        raise InputError(f"{short(to)} cannot be written ({error.strerror}); name another file.") from None


def facts(found: Sifted, to: Path, writer: str) -> dict[str, Any]:
    """What happened, for programs."""
    dropped = {reason: found.dropped[reason] for reason in REASONS if found.dropped[reason]}
    told = {reason: {"question": question, "seen": seen} for reason, (question, seen) in found.told.items()}
    return {"to": str(to) if found.kept else None, "drawn_by": writer, "drawn": found.drawn, "kept": len(found.kept),
            "dropped": dropped, "first": told}  # fmt: skip


def say(found: Sifted, to: Path, n: int) -> None:
    """Print what happened: how many were drawn, kept and dropped, why, and the first of each as it was seen."""
    rows = [
        [reason, found.dropped[reason], short(question), short(seen, 200)]
        for reason in REASONS
        if found.dropped[reason]
        for question, seen in [found.told[reason]]
    ]
    show.say(f"{found.drawn} drawn, {len(found.kept)} kept" + (f": {to}" if found.kept else ""))
    if rows:
        show.table(["dropped because", "questions", "the first", "what was seen"], rows)
    if 0 < len(found.kept) < n:
        show.say(f"{n} were wanted; more examples or a larger model bring more.")
