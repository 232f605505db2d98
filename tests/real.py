"""Real data through stages: rows that ingest makes of the shared files, and pairs of responses to them."""

from pathlib import Path
from typing import Any

from align import tables
from tasks.ingest import IngestConfig, Source, ingest
from tasks.pairs import PairsConfig, pairs

SHARED = Path(__file__).parents[2] / "shared" / "data"
Row = dict[str, Any]


def rows_of(folder: Path, file: str, use: str, **source: Any) -> list[Row]:
    """The rows that ingest makes of a shared file; they are in `folder`/rows.parquet."""
    ingest(IngestConfig(sources={"real": Source(path=SHARED / file, use=use, **source)}), folder)
    return tables.read(folder / "rows.parquet")


def paired(folder: Path, responses: dict[str, list[str]], **config: Any) -> tuple[list[Row], list[Row], Row]:
    """Pairs, scores and metrics of the stage, of `responses` to the rows of `folder` by their ids."""
    samples = [
        {"row_id": i, "sample_id": f"{i}-{k}", "sample_index": k, "text": text, "finish_reason": "stop", "n_tokens": 5}
        for i, texts in responses.items() for k, text in enumerate(texts)
    ]  # fmt: skip
    tables.write(folder / "samples.parquet", samples, tables.SAMPLES)
    out = folder / "pairs"
    out.mkdir()
    settings = PairsConfig(held_out=0.0, **config)
    metrics = pairs(settings, out, rows=folder / "rows.parquet", samples=folder / "samples.parquet",
                    cache=folder / "cache")  # fmt: skip
    return tables.read(out / "pairs.parquet"), tables.read(out / "scores.parquet"), metrics
