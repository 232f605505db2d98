"""`align compare`: two runs of a store beside each other. What they differ in is found by align/comparison."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from align.comparison import data, graded
from align.comparison.found import Answers, Comparison, Difference, Note, Pairs, Part, Side, Stage
from align.comparison.settings import settings
from align.errors import InputError
from align.redact import redact
from flows.seeds import of_seed
from flows.show import final_of, run_of
from flows.stages import STAGES, row
from storage import build, runs
from storage.store import Attempt, Store

Found = TypeVar("Found")


class Compared:
    """A run with what is on record about its stages."""

    def __init__(self, store: Store, run: dict[str, Any], name: str):
        self.store, self.run, self.name = store, run, name
        self.id: str = run["run_id"]
        self.source = runs.source(store, self.id)
        self.stages = {s["stage"]: s for s in runs.stages(store, self.id) if s["artifact"]}

    def attempt(self, stage: str) -> Attempt | None:
        """The newest attempt that answers for a stage; None where its record is gone or damaged."""
        return runs.attempt_of(self.store, self.stages[stage])

    def file(self, stage: str, name: str, columns: Iterable[str]) -> Path:
        """A table of a stage. Raises InputError with what is wrong where it is not there, or not as it was written."""
        made = self.stages.get(stage)
        if made is None:
            raise InputError(f"Run {self.id} has not finished {stage}.")
        artifact = self.store.artifact(made["artifact"])
        if artifact is None:
            raise InputError(f"{made['artifact']} of run {self.id} was removed; `align run` makes it again.")
        if name not in artifact.files:
            raise InputError(f"{artifact.id} of run {self.id} holds no {name}.")
        if wrong := self.store.damage(artifact, name):
            raise InputError(f"{wrong}; `align run` makes damaged artifacts again.")
        path = self.store.fetch(artifact.id, name)
        if lacks := [c for c in columns if c not in pq.read_schema(path).names]:
            raise InputError(f"{artifact.id}/{name} is of another version: it has no column {lacks[0]}.")
        return path

    def holds(self, name: str) -> list[str]:
        """The stages whose artifacts hold a file of that name."""
        found = ((stage, self.store.artifact(made["artifact"])) for stage, made in self.stages.items())
        return [stage for stage, artifact in found if artifact and name in artifact.files]

    def seeds(self, side: Side) -> dict[str, list[str]]:
        """The policy that the run ends with, and its further seeds; empty where it has one."""
        chain = self.source.get("chain")
        many = chain.get("seeds") if isinstance(chain, dict) else None
        if side.final is None or not isinstance(many, int) or many < 2:
            return {}
        return {side.final: [of_seed(side.final, k) for k in range(2, many + 1)]}

    @property
    def side(self) -> Side:
        """What the comparison says of the run itself."""
        final = None
        with suppress(InputError):
            final = final_of(self.store, self.id)
        evaluated = self.source.get("evaluate")
        primary = evaluated.get("primary") if isinstance(evaluated, dict) else None
        told = {name: self.run[name] for name in ("recipe", "status", "started_at")}
        return Side(run_id=self.id, name=self.name, **told, final=final, primary=primary)


def two(store: Store, one: str, other: str | None) -> tuple[Compared, Compared]:
    """The runs that are meant, in the order given; one alone and the latest of the others, the older first.

    Raises InputError where there are no two.
    """
    first = run_of(store, one)
    if other is not None:
        second = run_of(store, other)
        if second["run_id"] == first["run_id"]:
            raise InputError(
                f"{one} and {other} are the same run, {first['run_id']}; name two, `align runs` lists them."
            )
        return Compared(store, first, one), Compared(store, second, other)
    for run in reversed(runs.history(store)):
        if run["run_id"] != first["run_id"] and any(s["artifact"] for s in runs.stages(store, run["run_id"])):
            found = [Compared(store, first, one), Compared(store, run, run["run_id"])]
            found.sort(key=lambda r: (r.run["started_at"], r.id))
            return found[0], found[1]
    raise InputError(
        f"There is no other run than {first['run_id']} in {store.where} to compare with; `align run` makes one."
    )


def compare(before: Compared, after: Compared, n: int) -> Comparison:
    """Everything that two runs differ in, with up to `n` examples of each kind. What cannot be read is a note."""
    notes: list[Note] = []

    def part(name: Part, found: Callable[[], Found]) -> Found | None:
        try:
            return found()
        except InputError as error:
            notes.extend(Note(name, line) for line in str(error).split("\n"))
        except duckdb.ProgrammingError:
            raise
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            notes.append(Note(name, f"The files could not be read: {str(error).splitlines()[0]}"))
        return None

    def tables(stage: str, name: str, columns: Iterable[str]) -> tuple[Path, Path]:
        """A table of both runs; what is wrong with either is said."""
        found, wrong = [], []
        for run in (before, after):
            try:
                found.append(run.file(stage, name, columns))
            except InputError as error:
                wrong.append(str(error))
        if wrong:
            raise InputError("\n".join(dict.fromkeys(wrong)))
        return found[0], found[1]

    sides = before.side, after.side
    rows = part("rows", lambda: data.rows(*tables("ingest", "rows.parquet", data.ROWS), n))
    verdicts = part("verdicts", lambda: data.verdicts(*tables("filter", "instructions.parquet", data.VERDICTS), n))
    labelled = _ordered([*before.holds("pairs.parquet"), *after.holds("pairs.parquet")]) or ["pairs"]

    def pairs(stage: str) -> Pairs:
        return data.pairs(stage, *tables(stage, "pairs.parquet", data.PAIRS), n)

    paired = [part("pairs", partial(pairs, stage)) for stage in labelled]

    def scored() -> tuple[list[Difference], list[Answers]]:
        evaluated = tables("evaluate", "evaluations.parquet", graded.EVALUATIONS)
        prompts = []
        for run in (after, before):
            with suppress(InputError):
                prompts.append(run.file("ingest", "rows.parquet", graded.PROMPTS))
        differ, code = graders(before, after)
        notes.extend(code)
        further = before.seeds(sides[0]), after.seeds(sides[1])
        return graded.graded(*evaluated, prompts, (sides[0].final, sides[1].final), differ, n, further)

    differences, answers = part("scores", scored) or ([], [])
    if not differences and not any(note.part == "scores" for note in notes):
        notes.append(Note("scores", "No policy is evaluated in both runs."))
    return Comparison(
        before=sides[0], after=sides[1], settings=settings(before.source, after.source),
        stages=[_stage(before, after, name) for name in _ordered([*before.stages, *after.stages])],
        rows=rows, verdicts=verdicts, pairs=[p for p in paired if p],
        differences=differences, answers=answers, notes=notes,
    )  # fmt: skip


def _ordered(names: Iterable[str]) -> list[str]:
    """Names of stages in the order of the table of stages, each once."""
    order = [stage.name for stage in STAGES]

    def place(name: str) -> tuple[int, str]:
        try:
            return order.index(row(name).name), name
        except KeyError:  # of another version
            return len(order), name

    return sorted(set(names), key=place)


def _stage(before: Compared, after: Compared, name: str) -> Stage:
    """What became of a stage in both runs, and why it is not the same attempt."""
    old, new = (run.stages.get(name) for run in (before, after))
    was_made, is_made = (made["artifact"] if made else None for made in (old, new))
    told = partial(Stage, name, before=was_made, after=is_made)
    if old is None or new is None:
        return told(kind="before only" if new is None else "after only")
    if (old["key"], old["artifact"]) == (new["key"], new["artifact"]):
        return told(kind="same")
    told = partial(told, kind="equal" if old["artifact"] == new["artifact"] else "different")
    was, now = before.attempt(name), after.attempt(name)
    if was is None or now is None:
        return told(note="why is not known: the record of an attempt is gone or damaged")
    libraries = [
        f"{library} {was.versions[library]} → {version}"
        for library, version in now.versions.items()
        if was.versions.get(library, version) != version
    ]
    return told(
        settings=_cleaned(build.differences(now.config, was.inputs, was.code, was)),
        inputs=_cleaned(build.differences(was.config, now.inputs, was.code, was)),
        code=_cleaned(build.differences(was.config, was.inputs, now.code, was)),
        libraries=libraries,
        note="the same settings, inputs and code gave other contents" if old["key"] == new["key"] else "",
    )


def _cleaned(words: Iterable[str]) -> list[str]:
    return [redact(word) for word in words]


def graders(before: Compared, after: Compared) -> tuple[dict[str, str], list[Note]]:
    """How the graders of suites differ, suite to words, and a note where their code does.

    Files that graders read count by their contents.
    """
    was, now = (run.attempt("evaluate") for run in (before, after))
    if was is None or now is None:
        return {}, [Note("scores", "Whether the graders are the same is not known: the record of an attempt is gone.")]
    suites = [attempt.config.get("suites", {}) for attempt in (was, now)]
    found: dict[str, str] = {}
    for name in {*suites[0], *suites[1], *_suites(before), *_suites(after)} - {"*"}:
        one, other = ({k: v for k, v in (s.get(name) or s.get("*") or {}).items() if k != "limit"} for s in suites)
        words = build.differences(other, {}, {}, replace(was, config=one, inputs={}, code={}))
        if words:
            found[name] = redact("; ".join(words))
    code = [
        path for path in sorted({*was.code, *now.code})
        if path.startswith("align/grading/") and was.code.get(path) != now.code.get(path)
    ]  # fmt: skip
    changed = f"The code of the graders differs ({', '.join(code)}), by which equal answers may have unequal scores."
    return found, [Note("scores", changed)] if code else []


def _suites(run: Compared) -> list[str]:
    """The names of the suites that a run graded."""
    try:
        path = run.file("evaluate", "evaluations.parquet", ["suite"])
        return pq.read_table(path, columns=["suite"]).column("suite").unique().to_pylist()
    except InputError:
        return []
