"""ingest: read instruction, prompt, preference and evaluation data of any common shape into one schema.

Every row keeps its source and an id that is a hash of its content. Rows that cannot be read are quarantined with
file, line and reason; too many of them, or a file that is not what it claims to be, is an InputError.
"""

import heapq
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, field_validator, model_validator

from align.config import Config, Metrics, Seed
from align.data.readers import expand, read_file
from align.data.shapes import SHAPES, BadRow, Record, ShapeName, Target, Use, detect, mapped
from align.data.streams import Line, known
from align.data.turns import meta, only_system, plain, row_id, said, unicode, with_system
from align.errors import InputError, StageError
from align.tables import QUARANTINE, ROWS, bare, to_json
from align.text import SPLITS, digest, split_of

log = logging.getLogger(__name__)
SNIFF = 200  # rows by which the shape of a file is found
GROUP = 4_000  # rows held in memory and written at a time


class Hub(Config):
    """A dataset on the Hugging Face Hub, pinned."""

    id: str
    """The dataset's id, such as databricks/databricks-dolly-15k."""
    revision: str
    """The commit or tag: without it the data could change under the recipe."""
    split: str = "train"
    """Which split to read."""
    name: str | None = None
    """The dataset's configuration, where it has several."""


class Source(Config):
    """Where rows come from and what they are for."""

    path: Path | None = None
    """A file, or a glob over files: JSON, JSONL, CSV, TSV or Parquet, plain or as .gz or .zst."""
    hub: Hub | None = None
    """A dataset on the Hub, instead of a path."""
    use: Use = "instructions"
    """What the rows are for: instructions to train on, prompts to answer, preferences, or evaluation."""
    shape: ShapeName | None = None
    """How to read the columns; found from the first rows where it is not given."""
    columns: dict[Target, str] | None = None
    """Which column holds what, for data of no known shape."""
    system: str | None = None
    """A system message for every row that has none, such as the schema of a database."""
    encoding: str = "utf-8"
    """The encoding of text files; older Korean files are often cp949."""
    limit: int | None = Field(default=None, ge=1)
    """Take at most this many rows, chosen by hash."""
    weight: float | None = Field(default=None, ge=1e-9, le=1e9, allow_inf_nan=False)
    """The share of this source among the weighted sources: as many rows as fit these proportions are taken."""

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, encoding: str) -> str:
        if not known(encoding):
            raise ValueError("is no encoding of text that Python knows, such as utf-8, utf-16 or cp949")
        return encoding

    @model_validator(mode="after")
    def _one_place(self) -> "Source":
        if (self.path is None) == (self.hub is None):
            raise ValueError("give either path or hub")
        if self.shape and self.columns:
            raise ValueError("give either shape or columns")
        return self


class IngestConfig(Config):
    """What to read, and how prompts are shared out."""

    sources: dict[str, Source] = {}
    """The sources by name."""
    split: dict[str, float] = {"sft": 0.55, "preference": 0.15, "rejection": 0.15, "evaluation": 0.15}
    """The share of prompts for each purpose (sft, preference, rejection, evaluation), by hash of the prompt."""
    max_bad_share: float = Field(default=0.01, ge=0, le=1)
    """The share of rows of one source that may be unreadable before the stage fails."""
    seed: Seed = 0
    """Decides splits and which rows a limit or weight takes."""

    @field_validator("split")
    @classmethod
    def _sums_to_one(cls, split: dict[str, float]) -> dict[str, float]:
        if set(split) - set(SPLITS) or not abs(sum(split.values()) - 1) <= 1e-9 or min(split.values()) < 0:
            raise ValueError(f"needs shares of {', '.join(SPLITS)} that sum to 1")
        return split


def ingest(config: IngestConfig, out: Path) -> Metrics:
    """Write rows.parquet (ROWS) and quarantine.parquet (QUARANTINE) to `out`; returns counts per source.

    Raises InputError for a file that is missing, empty, damaged, of no known shape, or with too many bad rows.
    """
    if not config.sources:
        raise InputError("ingest.sources is empty: name at least one file or Hub dataset")
    metrics: Metrics = {}
    staged = {name: out / f"source.{i}.parquet" for i, name in enumerate(config.sources)}
    counts: dict[str, int] = {}
    quarantined = 0
    with pq.ParquetWriter(out / "quarantine.parquet", QUARANTINE, compression="zstd") as quarantine:
        for name, source in config.sources.items():
            reader = _Reader(name, source, config, quarantine)
            counts[name] = _write(staged[name], reader.rows())
            reader.set_aside()
            quarantined += reader.bad
            metrics |= reader.metrics(counts[name])
            reader.check(config.max_bad_share, counts[name])
    take = _mixture(config.sources, counts)
    splits: Counter[str] = Counter()
    with pq.ParquetWriter(out / "rows.parquet", bare(ROWS), compression="zstd") as writer:
        for name, path in staged.items():
            for batch in _sampled(path, take[name], counts[name], config.seed):
                splits.update(batch.column("split").to_pylist())
                writer.write_table(batch, row_group_size=GROUP)
            metrics[f"rows.{name}"] = take[name]
            path.unlink()
    metrics |= {f"split.{name}": n for name, n in sorted(splits.items())}
    metrics |= {"rows": splits.total(), "quarantined": quarantined}
    if not splits:
        raise StageError("ingest read no rows")
    return metrics


class _Reader:
    """One source: converts its lines to rows and sets aside what could not be converted."""

    def __init__(self, name: str, source: Source, config: IngestConfig, quarantine: pq.ParquetWriter):
        self.name, self.source, self.config, self.quarantine = name, source, config, quarantine
        self.waiting: list[dict[str, Any]] = []
        self.bad = self.skipped = self.tools = 0
        self.reasons: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self.shapes: dict[str, None] = {}
        self.also: dict[str, None] = {}

    def rows(self) -> Iterator[dict[str, Any]]:
        if self.source.hub:
            yield from self._file(f"hub:{self.source.hub.id}@{self.source.hub.revision}", _hub(self.source.hub))
        elif self.source.path:
            for file in expand(self.source.path):
                yield from self._file(str(file), read_file(file, self.source.encoding))

    def _file(self, file: str, lines: Iterable[Line]) -> Iterator[dict[str, Any]]:
        stream = iter(lines)
        head = list(islice(stream, SNIFF))
        if not head:
            raise InputError(f"{file} holds no rows")
        if self.source.columns:
            convert, self.shapes["columns"] = mapped(self.source.columns), None
        else:
            readable = [line.row for line in head if line.row is not None]
            if not readable:
                raise InputError(f"{file}:{head[0].number}: {head[0].problem}; none of the first rows can be read")
            shape, also = (self.source.shape, []) if self.source.shape else detect(readable, self.source.use, file)
            if also:
                log.warning("%s is read as %s; it also fits %s: choose with `shape`", file, shape, ", ".join(also))
            self.shapes[shape] = None
            self.also |= dict.fromkeys(also)
            convert = SHAPES[shape].convert
        for line in chain(head, stream):
            try:
                if line.row is None:
                    raise BadRow(line.problem or "is no row")
                yield self._row(convert(line.row), line)
            except BadRow as e:
                text, reason = line.text if line.row is None else to_json(line.row), plain(str(e)[:300])
                counts = not (e.skip or line.part)
                self.bad += 1
                self.skipped += not counts
                self.reasons[reason] += counts
                self.examples.setdefault(reason, f"{Path(file).name}:{line.number}")
                self.waiting.append({"source": self.name, "file": unicode(Path(file).name), "line": line.number,
                                     "reason": reason, "text": unicode(text[:2000])})  # fmt: skip
                if len(self.waiting) == GROUP:
                    self.set_aside()

    def set_aside(self) -> None:
        """Write the bad rows that wait to the quarantine."""
        if self.waiting:
            self.quarantine.write_table(pa.Table.from_pylist(self.waiting, schema=QUARANTINE))
        self.waiting = []

    def _row(self, record: Record, line: Line) -> dict[str, Any]:
        use = self.source.use
        assert line.row is not None
        self.tools += record.calls or any(m.keys() - {"role", "content"} for m in record.messages)
        if use == "preferences":
            if record.chosen is None and record.rejected is None:
                raise BadRow("holds no preference")
        else:
            if record.chosen is None and record.rejected is not None:
                raise BadRow("is labelled undesirable", skip=True)
            record.response = record.response if record.chosen is None else record.chosen
            record.chosen = record.rejected = None
        if use in ("instructions", "preferences") and only_system(record.messages):
            raise BadRow("holds no turn of a user, which only prompts and evaluation items may lack")
        if use in ("prompts", "evaluation"):
            if record.reference is None:
                record.reference = record.response
            else:
                record.calls = False
            record.response = None
        prompt = said(record.messages)
        # after `prompt`: what every row shares must not look like an overlap with the evaluation items
        record.messages = with_system(record.messages, self.source.system)
        seed = self.config.seed
        split = {"preferences": "preference", "evaluation": "evaluation"}.get(use) or split_of(
            prompt, self.config.split, seed
        )
        rest = {str(k): v for k, v in line.row.items() if k not in record.used and v is not None} | record.extra
        return {
            "row_id": row_id(record), "source": self.name, "use": use, "split": split,
            "messages": record.messages, "prompt": prompt, "response": record.response, "calls": record.calls,
            "chosen": record.chosen, "rejected": record.rejected, "reference": record.reference, "meta": meta(rest),
        }  # fmt: skip

    def metrics(self, rows: int) -> Metrics:
        found: Metrics = {
            f"read.{self.name}": rows + self.bad, f"shape.{self.name}": ", ".join(self.shapes),
            f"quarantined.{self.name}": self.bad,
        }  # fmt: skip
        if self.also:
            found[f"also_fits.{self.name}"] = ", ".join(self.also)
        if self.tools:
            found[f"tools.{self.name}"] = self.tools
        return found

    def check(self, allowed: float, rows: int) -> None:
        """InputError if too many rows were bad. Rows left out on purpose are not bad."""
        bad = self.bad - self.skipped
        if bad > allowed * (rows + self.bad):
            reason, n = self.reasons.most_common(1)[0]
            raise InputError(
                f"{bad} of {rows + self.bad} rows of source {self.name} are unreadable, more than "
                f"max_bad_share {allowed:g} allows; the commonest reason ({n} rows): {reason}, "
                f"as in {self.examples[reason]}"
            )


def _hub(hub: Hub) -> Iterator[Line]:
    from datasets import load_dataset

    try:
        data = load_dataset(hub.id, hub.name, revision=hub.revision, split=hub.split, streaming=True)
        for number, row in enumerate(data, 1):
            yield Line(number, dict(row))
    except Exception as e:  # datasets raises many unrelated types
        raise InputError(f"the Hub dataset {hub.id}@{hub.revision} ({hub.split}) cannot be read: {e}") from e


def _write(path: Path, rows: Iterator[dict[str, Any]]) -> int:
    n = 0
    with pq.ParquetWriter(path, ROWS, compression="zstd") as writer:
        while group := list(islice(rows, GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema=ROWS))
            n += len(group)
    return n


def _mixture(sources: dict[str, Source], counts: dict[str, int]) -> dict[str, int]:
    """How many rows to take of each source: its limit, and among weighted sources the largest exact proportions."""
    have = {name: min(counts[name], s.limit or counts[name]) for name, s in sources.items()}
    weights = {name: s.weight for name, s in sources.items() if s.weight}
    if weights:
        unit = min(have[name] / weight for name, weight in weights.items())
        have |= {name: min(have[name], round(unit * weight)) for name, weight in weights.items()}
    return have


def _sampled(path: Path, take: int, have: int, seed: int) -> Iterator[pa.Table]:
    """The rows of a staged source in order; where fewer are taken, those whose ids hash lowest."""
    file = pq.ParquetFile(path)
    if take < have:
        ids = chain.from_iterable(b.column(0).to_pylist() for b in file.iter_batches(columns=["row_id"]))
        ranked = ((digest(str(seed), row_id), at) for at, row_id in enumerate(ids))
        chosen = {at for _, at in heapq.nsmallest(take, ranked)}
    start = 0
    for batch in file.iter_batches(batch_size=GROUP):
        table = pa.Table.from_batches([batch])
        if take < have:
            table = table.filter(pa.array([start + i in chosen for i in range(len(batch))]))
        start += len(batch)
        if table.num_rows:
            yield table.combine_chunks()
