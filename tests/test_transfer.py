"""Runs between stores, and what was made elsewhere into one."""

from pathlib import Path

import pytest
from test_records import record
from test_shared import machine

from align import tables
from align.errors import InputError
from flows.cli import main
from storage import room, runs
from storage.runs import Run
from storage.store import Store
from storage.transfer import bring, copy
from storage.upkeep import verify
from storage.views import ask


def test_a_run_goes_to_a_bucket_and_from_there_to_another_machine(tmp_path, any_url):
    here, there = Store(tmp_path / "here"), machine(any_url, tmp_path / "cache")
    record(here, 1)
    run = record(here, 4)
    done = copy(here, there, run)
    assert len(done.artifacts) == 1 and done.there == 0 and done.bytes > 0
    assert copy(here, there, run).there == 1
    assert [r["run_id"] for r in runs.history(there)] == [run] and not [n for n, wrong in verify(there) if wrong]
    other = Store(tmp_path / "other")
    copy(machine(any_url, tmp_path / "cache 2"), other, run)
    for store in (here, there, other):
        assert runs.stages(store, run) == runs.stages(here, run)
        assert ask(store, "SELECT count(*) FROM rows", run)[1] == [(4,)]
        room.collect(store)
        key = runs.stages(here, run)[0]["key"]
        assert store.lookup(key)[0] == here.lookup(key)[0] and here.lookup(key)[0]


def test_only_a_whole_run_is_copied(tmp_path):
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    going = Run(here, "r", {})
    with pytest.raises(InputError, match="going on"):
        copy(here, there, going.id)
    going.finish("done")
    run = record(here, 4)
    with pytest.raises(InputError, match="Both stores"):
        copy(here, here, run)
    (here.root / "artifacts" / runs.stages(here, run)[0]["artifact"] / "rows.parquet").write_bytes(b"x")
    with pytest.raises(InputError, match=r"rows.parquet is not what was written"):
        copy(here, there, run)
    assert not runs.history(there) and not list(there.artifacts())


def test_what_was_made_elsewhere_is_an_artifact_with_its_origin(tmp_path, capsys):
    store = Store(tmp_path / "store")
    (tmp_path / "data").mkdir()
    tables.write(tmp_path / "data" / "rows.parquet", [{"row_id": "a"}, {"row_id": "b"}], tables.ROWS)
    artifact, run = bring(store, tmp_path / "data", "https://example.org/data", "CC-BY-4.0")
    assert ask(store, "SELECT row_id FROM rows ORDER BY 1", run)[1] == [("a",), ("b",)]
    assert store.content(artifact, "origin.json") == {"origin": "https://example.org/data", "license": "CC-BY-4.0"}
    assert bring(store, tmp_path / "data", "https://example.org/data", "CC-BY-4.0")[0] == artifact
    assert not [p for p, _ in room.collect(store).paths if p.name == artifact]
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match=r"no .safetensors"):
        bring(store, adapter, "x")
    (adapter / "adapter_model.safetensors").write_bytes(b"w")
    (adapter / "optimizer.pt").write_bytes(b"a program")
    main(["import", str(adapter), "--origin", "hub: org/name", "--store", str(store.root)])
    found = store.artifact(capsys.readouterr().out.split()[0])
    assert found is not None and found.kind == "adapter"
    assert sorted(found.files) == ["adapter/adapter_config.json", "adapter/adapter_model.safetensors", "origin.json"]


@pytest.mark.parametrize(
    ("name", "says"), [("none", "does not exist"), ("notes.txt", "is no adapter"), ("x.parquet", "no Parquet file")]
)
def test_what_cannot_be_imported_is_said_in_a_sentence(tmp_path, name, says):
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "x.parquet").write_text("x")
    with pytest.raises(InputError, match=says):
        bring(Store(tmp_path / "store"), tmp_path / name, "x")
    assert not Path(tmp_path / "store").exists()
