"""Three stages called from plain Python, cell by cell: no Prefect, no store, nothing else running.

Open it in an editor that knows `# %%` cells, or run it: python docs/stages.py
"""

# %% A recipe is typed settings; a stage is a function (config, out, **inputs) -> metrics.
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from align import tables
from flows.recipe import load
from tasks.filter import filter
from tasks.ingest import ingest
from tasks.sft import sft

recipe = load("quickstart", ["ingest.sources.instructions.limit=300", "sft.limit=64", "sft.num_train_epochs=1"])
work = Path(tempfile.mkdtemp())


def folder(name: str) -> Path:
    """An empty directory for what a stage writes."""
    out = work / name
    out.mkdir()
    return out


# %% ingest reads the sources into one schema, rows.parquet.
print(ingest(recipe.ingest, folder("ingest")))
rows = work / "ingest" / "rows.parquet"
print(tables.read(rows)[0])

# %% filter keeps what is worth training on; every row has its reason in instructions.parquet.
counts = filter(recipe.filter, folder("filter"), rows=rows, base=recipe.base)
print(f"{counts['kept']} of {counts['read']} rows kept")
print([r["reason"] for r in tables.read(work / "filter" / "instructions.parquet")][:10])

# %% sft trains an adapter on what was kept.
trained = sft(recipe.sft, folder("sft"), base=recipe.base, rows=work / "filter" / "kept.parquet")
print(f"loss {trained['loss.first']:.3f} -> {trained['loss.final']:.3f} in {trained['steps']} steps")
