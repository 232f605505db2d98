"""The command line on a shared store, as people on two machines use it."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import buckets
import gcs
import pytest
import warm

from flows.cli import main
from storage import places, runs

TINY = str(Path(__file__).with_name("tiny.yaml"))


def align(cache: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return warm.align(*words, env={**os.environ, "ALIGN_CACHE_DIR": str(cache)})


@pytest.fixture(params=["s3", "gs"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A store on a real S3-compatible server, and on a stand-in for Google's, that is as strict as Google may be."""
    if request.param == "s3":
        yield request.getfixturevalue("url")
        return
    with gcs.serving(seldom=1) as address:
        gcs.known(address, tmp_path_factory.mktemp("account"), monkeypatch, buckets.SECRET)
        yield f"gs://{gcs.BUCKET}/a-team/store"


def test_what_was_run_here_is_cached_there_and_no_key_is_kept_anywhere(shared, tmp_path, monkeypatch, capsys):
    here, there = tmp_path / "here", tmp_path / "there"
    first = align(here, "run", TINY, "--select", "+filter", "--store", shared)
    assert first.returncode == 0 and "2 stages ran" in first.stdout, first.stderr
    again = align(there, "run", TINY, "--select", "+filter", "--store", shared)
    assert again.returncode == 0 and "0 stages ran in 0 s, 2 cached" in again.stdout, again.stderr
    monkeypatch.setenv("ALIGN_CACHE_DIR", str(there))
    main(["sql", "SELECT count(*) AS n, count(DISTINCT source) FROM rows", "--csv", "--store", shared])
    assert capsys.readouterr().out.splitlines()[1] == "400,2"
    run = runs.history(places.at(shared))[0]["run_id"]
    main(["pull", run, "--from", shared, "--store", str(tmp_path / "own")])
    main(["push", run, "--to", f"{shared}-2", "--store", str(tmp_path / "own")])
    for store in (shared, f"{shared}-2"):
        main(["verify", "--store", store])
        main(["gc", "--store", store])
        main(["sql", "SELECT count(*) FROM stage_runs", "--csv", "--store", store])
    assert "DAMAGED" not in (shown := capsys.readouterr().out) and shown.count("\n2\n") == 2
    bucket = places.at(shared).bucket  # type: ignore[attr-defined]
    kept = [bucket.get(found.name) for found in bucket.below()]
    kept += [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(kept) > 20 and not any(buckets.SECRET.encode() in data for data in kept)
    assert buckets.SECRET not in "".join([shown, *(done.stdout + done.stderr for done in (first, again))])


@pytest.mark.parametrize(
    ("store", "says"),
    [
        ("s3://no-such-bucket/x", "there is no such bucket"),
        ("s3://shared/nothing-here", "There is no store s3://shared/nothing-here"),
        ("s3://id:key@shared/x", "is no store"),
    ],
)
def test_a_store_that_cannot_be_used_is_one_sentence(url, monkeypatch, capsys, store, says):
    with pytest.raises(SystemExit) as ended:
        main(["runs", "--store", store])
    told = capsys.readouterr().err
    assert ended.value.code == 2 and says in told and len(told.splitlines()) == 1 and "id:key" not in told
