"""Limits: which rows they take, wherever a setting is called `limit`."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

from align import tables
from align.errors import StageError
from align.grading.suites import items
from align.models.base import BaseConfig, load_chat
from align.models.pairs import encode
from align.text import digest, taken
from tasks.dpo import DpoConfig
from tasks.sample import SampleConfig, sample
from tasks.sft import SftConfig, sft


def mixed(n: int) -> list[dict[str, Any]]:
    """Rows of two sources, one after the other, as ingest writes them."""
    return [tiny.row(i, source="early" if i < n // 2 else "late", split="preference") for i in range(n)]


def _trained(base: BaseConfig, rows: list[dict[str, Any]], limit: int, folder: Path) -> list[str]:
    """What sft trains on is told by what it sets aside: all that it read, where every row is too long."""
    long = [row | {"response": "moons " * 40} for row in rows]
    tables.write(folder / "kept.parquet", long, tables.KEPT)
    with pytest.raises(StageError, match=f"{limit} of {limit} rows"):
        sft(SftConfig(limit=limit, max_length=16), folder, base=base, rows=folder / "kept.parquet")
    return [r["row_id"] for r in tables.read(folder / "dropped.parquet")]


def _sampled(base: BaseConfig, rows: list[dict[str, Any]], limit: int, folder: Path) -> list[str]:
    tables.write(folder / "rows.parquet", rows, tables.ROWS)
    sample(SampleConfig(limit=limit, n=1, max_new_tokens=1), folder, base=base, rows=folder / "rows.parquet")
    return [s["row_id"] for s in tables.read(folder / "samples.parquet")]


def _paired(base: BaseConfig, rows: list[dict[str, Any]], limit: int, folder: Path) -> list[str]:
    pairs = [tiny.pair(i, pair_id=row["row_id"], held_out=False) for i, row in enumerate(rows)]
    found, _ = encode(load_chat(base), pairs, DpoConfig(limit=limit), folder)
    return [p.pair_id for p in found]


@pytest.mark.parametrize("takes", [_trained, _sampled, _paired])
def test_a_limit_takes_rows_of_every_source(takes: Callable[..., list[str]], base: BaseConfig, tmp_path: Path) -> None:
    rows = mixed(80)
    source = {r["row_id"]: r["source"] for r in rows}
    order = list(source)
    few, more = (takes(base, rows, limit, tmp_path) for limit in (20, 40))
    assert (len(few), len(more)) == (20, 40)
    assert set(Counter(source[i] for i in few)) == {"early", "late"}, "a source is left out"
    assert set(few) < set(more), "a larger limit keeps what a smaller one chose"
    assert more == sorted(more, key=order.index), "the order stays that of the source"
    turned = takes(base, rows[40:] + rows[:40], 20, tmp_path)
    assert set(turned) == set(few), "the order of the sources decides nothing"


def test_evaluation_takes_items_by_the_same_hash(tmp_path: Path) -> None:
    rows = [tiny.row(i, source="quiz", split="evaluation", use="evaluation") for i in range(40)]
    tables.write(tmp_path / "rows.parquet", rows, tables.ROWS)
    found, _ = items({"quiz": 8}, tmp_path / "rows.parquet", seed=3)
    assert set(found["quiz"]) == {rows[at]["row_id"] for at in taken([r["row_id"] for r in rows], 8, 3)}


def test_a_source_that_was_thinned_out_by_hash_is_not_preferred() -> None:
    """Ingest's limit takes the rows of a source whose hashes are low. A later limit must not take those first."""
    ids = [f"r{i}" for i in range(8000)]
    thinned = sorted(ids[:4000], key=lambda i: digest("0", i))[:1000]
    left = thinned + ids[4000:5000]
    share = sum(at < 1000 for at in taken(left, 500, 0)) / 500
    assert 0.4 < share < 0.6


def test_limits_that_take_all() -> None:
    assert taken(iter("abc"), None, 0) == taken(list("abc"), 3, 0) == taken(list("abc"), 9, 0) == [0, 1, 2]
    assert taken([str(i) for i in range(100)], 10, 0) != taken([str(i) for i in range(100)], 10, 1)
