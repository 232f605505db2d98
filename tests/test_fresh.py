"""What has come since the champion's run: which rows stay, and when a run cannot go on from it."""

from pathlib import Path
from typing import Any

import pytest
from test_promote import champion, ran

from align import tables
from align.errors import InputError, StageError
from flows.graph import parents
from flows.plan import plan
from flows.promotion import crowned
from flows.recipe import Recipe, load
from flows.run import run
from storage.store import Store
from tasks.fresh import FreshConfig, fresh

TINY = Path(__file__).with_name("tiny.yaml")


def row(number: int, use: str = "instructions", split: str = "sft") -> dict[str, Any]:
    return {"row_id": f"{use}{split}{number}", "source": "s", "use": use, "split": split, "prompt": str(number)}


def kept(folder: Path, new: list[dict[str, Any]], known: list[dict[str, Any]], replay: int) -> tuple[list[str], Any]:
    tables.write(folder / "known.parquet", known, tables.ROWS)
    tables.write(folder / "rows.parquet", [*known, *new], tables.ROWS)
    (folder / "out").mkdir(exist_ok=True)
    metrics = fresh(
        FreshConfig(replay=replay), folder / "out", rows=folder / "rows.parquet", known=folder / "known.parquet"
    )
    return [r["row_id"] for r in tables.read(folder / "out" / "rows.parquet")], metrics


KNOWN = [
    *(row(i) for i in range(50)), *(row(i, split="preference") for i in range(3)),
    *(row(i, "preferences", "preference") for i in range(20)), *(row(i, "evaluation", "evaluation") for i in range(9)),
]  # fmt: skip


def test_new_rows_every_item_and_some_of_the_known_stay(tmp_path):
    new = [row(100), row(101), row(7, "preferences", "rejection"), row(10, "evaluation", "evaluation")]
    ids, metrics = kept(tmp_path, new, KNOWN, 5)
    assert {r["row_id"] for r in new} <= set(ids) and len(ids) == 4 + 9 + 5 + 3 + 5
    assert metrics | {"rows": 26, "new": 3, "replayed": 13, "new.instructions": 2, "new.preferences": 1} == metrics
    again, _ = kept(tmp_path, new, KNOWN, 10)
    assert set(ids) < set(again), "more replay keeps what less did"
    assert kept(tmp_path, new, KNOWN, 0)[1]["replayed"] == 0


def test_new_items_alone_are_nothing_to_learn_from(tmp_path):
    with pytest.raises(StageError, match="No row and no label has come"):
        kept(tmp_path, [row(10, "evaluation", "evaluation")], KNOWN, 5)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def going_on(*more: str) -> Recipe:
    return load(TINY, ["chain.rows=new", "promote.against=champion", *more])


def test_without_a_champion_everything_is_run(store):
    recipe = crowned(store, going_on())
    assert recipe.champion is None and "fresh" not in parents(recipe)


def test_the_champion_is_where_sft_starts_and_its_rows_are_what_is_known(store):
    recipe = load(TINY, ["promote.against=sft"])
    ran(store, recipe, "one")
    with pytest.raises(InputError, match="What run .* read, which made the champion of tiny, is not in"):
        plan(store, going_on())
    with store.draft("ingest") as out:
        tables.write(out / "rows.parquet", KNOWN, tables.ROWS)
        read = store.publish("ingest", out).id
    ran(store, recipe, "two", more={"ingest": read})
    found = crowned(store, going_on())
    assert found.champion is not None and (found.champion.number, found.champion.rows) == (2, read)
    edges = parents(found)
    assert edges["fresh"] == ["ingest"] and edges["filter"] == ["fresh"] and edges["answer_champion"] == ["fresh"]
    planned = {p.stage: p for p in plan(store, going_on())}
    assert planned["ingest"].status == "run" and planned["fresh"].status == "waits"


def test_a_champion_of_another_base_is_nothing_to_go_on_from(store, tmp_path):
    ran(store, load(TINY, ["promote.against=sft", "base.quantization=none"]), "one")
    with pytest.raises(
        InputError, match=r"The champion of tiny \(run .*\) is of another base, .*set chain.rows to all"
    ):
        plan(store, going_on())
    assert crowned(store, load(TINY, ["promote.against=champion"])).champion, "to compare with, it may be"


def test_nothing_new_is_said_without_a_run(store):
    recipe = going_on("ingest.sources.instructions.limit=40", "ingest.sources.questions.limit=40")
    overrides = ["chain.rows=new", "promote.against=champion", "ingest.sources.instructions.limit=40",
                 "ingest.sources.questions.limit=40"]  # fmt: skip
    done = run(str(TINY), [*overrides[2:], "chain.rows=all"], store, "ingest")
    (read,) = [s.artifact for s in done.stages]
    assert read is not None
    ran(store, recipe.model_copy(update={"champion": None}), "one", more={"ingest": read})
    before = len(list((store.root / "runs").iterdir()))
    said = run(str(TINY), overrides, store)
    assert said.note.startswith(f"nothing new: no row and no label has come to tiny since run {champion(store).run_id}")
    assert not said.stages and len(list((store.root / "runs").iterdir())) == before
    assert run(str(TINY), [*overrides, "sft.seed=3"], store).note
    with pytest.raises(InputError, match="chain.rows: is new"):
        plan(store, load(TINY, ["chain.rows=new"]))
