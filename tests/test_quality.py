"""Scores by the base model: right numbers, batched as one by one, cached per row; ranks that length does not win."""

import math
import os
import resource
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pools
import pytest
from pools import dropped, pool
from pydantic import ValidationError

from align.kept import Kept
from align.models.base import BaseConfig, load_model
from align.rules.losses import Scorer, batches
from align.rules.mismatch import Mismatched
from align.rules.quality import IFD, Perplexity, within_length

ROWS = [(f"Which way is {i}?", "That way, up. " * (1 + i % 5)) for i in range(12)] + [
    ("한국어 질문?", "답은 다섯입니다."),
    ("x", "y"),
]


def one_by_one(base: BaseConfig, before: str, response: str) -> float:
    """The mean loss of a response as the model itself computes it."""
    import torch

    model = load_model(base).eval()
    scorer = Scorer(base, 256, 1024)
    head = [scorer.start, *scorer.tokens([before])[0]] if before else [scorer.start]
    tail = scorer.tokens([response])[0]
    ids = torch.tensor([head + tail])
    labels = torch.tensor([[-100] * len(head) + tail])
    with torch.no_grad():
        return float(model(input_ids=ids, labels=labels).loss)


def test_ifd_is_the_ratio_of_two_losses(base: BaseConfig) -> None:
    p = pool(ROWS, base=base)
    found = dict(IFD(template="{prompt}\n", min=0, max=99).drops(p))
    assert found == {}
    for i in (0, 4, 12):
        prompt, response = ROWS[i]
        ratio = one_by_one(base, prompt + "\n", response) / one_by_one(base, "", response)
        assert p.scores["ifd"][i] == pytest.approx(ratio, rel=2e-3)


def test_batches_change_nothing(base: BaseConfig) -> None:
    prompts, responses = zip(*ROWS, strict=True)
    found = []
    for budget in (1, 64, 100_000):
        scorer = Scorer(base, 256, budget)
        found.append(scorer.losses(scorer.pairs(prompts, responses), "test"))
    assert np.allclose(found[0], found[1], rtol=1e-4) and np.allclose(found[0], found[2], rtol=1e-4)


def test_batches_by_length() -> None:
    lengths = [5, 100, 7, 6, 300, 8]
    made = batches(lengths, 30)
    assert sorted(i for b in made for i in b) == list(range(6)) and made[0] == [0, 3, 2]
    assert all(len(b) == 1 or max(lengths[i] for i in b) * len(b) <= 30 for b in made)


def test_thresholds_and_evidence(base: BaseConfig) -> None:
    p = pool([*ROWS, ("Empty?", "")], base=base)
    found = dict(IFD(max=0.99).drops(p))
    assert 14 in found and math.isnan(p.scores["ifd"][14])
    for at, evidence in found.items():
        assert evidence["max"] == 0.99 and (at == 14 or p.scores["ifd"][at] > 0.99)
    p = pool(ROWS, base=base)
    found = dict(Perplexity(max=50).drops(p))
    assert set(found) == {int(i) for i in np.flatnonzero(p.scores["perplexity"] > 50)}


def test_long_rows_keep_their_response(base: BaseConfig) -> None:
    scorer = Scorer(base, 64, 1024)
    (head, tail), (short_head, _) = scorer.pairs(["way " * 200, "way"], ["up " * 10, "up " * 400])
    assert len(head) + len(tail) <= 64 and len(tail) == len(scorer.tokens(["up " * 10])[0])
    assert short_head[0] == scorer.start and len(short_head) > 1


def test_an_added_source_scores_only_its_rows(
    base: BaseConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import align.rules.losses as losses

    scored: list[int] = []
    real = losses.mean_losses

    def mean_losses(model: Any, pairs: list[Any], *rest: Any) -> Any:
        scored.append(len(pairs))
        return real(model, pairs, *rest)

    monkeypatch.setattr(losses, "mean_losses", mean_losses)
    monkeypatch.setattr(pools, "CACHE", tmp_path)
    first = pool(ROWS[:8], base=base)
    dict(IFD(max=99).drops(first))
    once = list(scored)
    assert once == [8, 5]  # responses that repeat are scored once
    again = pool([*ROWS[:8], ("New?", "Two: Phobos.")], base=base)
    dict(IFD(max=99).drops(again))
    assert scored[len(once) :] == [1, 1] and (again.scores["ifd"][:8] == first.scores["ifd"]).all()
    dict(Perplexity().drops(pool(ROWS[:8], base=base)))
    assert len(scored) == 4  # the same losses
    monkeypatch.setattr(pools, "CACHE", None)
    dict(IFD(max=99).drops(pool(ROWS[:8], base=base)))
    assert scored[4:] == [8, 5]


def cache(base: BaseConfig) -> Kept:
    """The losses that are kept for a base."""
    return Scorer(base, 256, 1024, pools.CACHE).kept


def kept(base: BaseConfig, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[bytes, tuple[Any, ...]], Path]:
    """Losses that a cache in `folder` holds, and its one file."""
    monkeypatch.setattr(pools, "CACHE", folder)
    losses = {bytes([i]) * 16: (float(value),) for i, value in enumerate(np.random.default_rng(0).exponential(2, 40))}
    cache(base).add(losses)
    (file,) = folder.rglob("*.parquet")
    return losses, file


def test_a_flipped_bit_never_changes_a_loss(base: BaseConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte of the file has one of its bits flipped once, and the file is cut at every hundredth byte."""
    losses, file = kept(base, tmp_path, monkeypatch)
    whole = file.read_bytes()
    assert cache(base).read() == losses
    damaged = [whole[:at] + bytes([byte ^ 1 << at % 8]) + whole[at + 1 :] for at, byte in enumerate(whole)]
    for data in [*damaged, *(whole[:n] for n in range(0, len(whole), 100))]:
        file.write_bytes(data)
        assert cache(base).read() == {} and not file.exists()
    cache(base).add(losses)
    assert cache(base).read() == losses and file.read_bytes() == whole


def test_a_damaged_file_is_computed_again_and_replaced(
    base: BaseConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pools, "CACHE", tmp_path)
    dict(IFD(max=99).drops(first := pool(ROWS[:8], base=base)))
    before = {f: f.read_bytes() for f in tmp_path.rglob("*.parquet")}
    for file, data in before.items():
        file.write_bytes(data[:100] + bytes([data[100] ^ 4]) + data[101:])
    dict(IFD(max=99).drops(again := pool(ROWS[:8], base=base)))
    assert (again.scores["ifd"] == first.scores["ifd"]).all() and "is damaged" in caplog.text
    assert {f: f.read_bytes() for f in tmp_path.rglob("*.parquet")} == before


def test_reading_losses_shows_that_they_are_used(
    base: BaseConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, file = kept(base, tmp_path, monkeypatch)
    os.utime(file, (1, 1))
    cache(base).read()
    assert file.stat().st_mtime > 1e9


@pytest.mark.parametrize("place", ["a file", "below a file", "a folder in a file's place", "full", "forbidden"])
def test_a_cache_of_losses_may_be_lost(
    base: BaseConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    losses, file = kept(base, tmp_path / "cache", monkeypatch)
    if place == "a file":
        shutil.rmtree(tmp_path / "cache")
        (tmp_path / "cache").write_text("")
    elif place == "below a file":
        shutil.rmtree(file.parent)
        file.parent.write_text("")
    elif place == "a folder in a file's place":
        file.unlink()
        file.mkdir()
    elif place == "full":
        file.unlink()
    elif os.geteuid() == 0:
        pytest.skip("nothing is forbidden to root")
    else:
        file.parent.chmod(0)
    lost = cache(base)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        if place == "full":
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        assert lost.read() == {}
        lost.add(losses)
        lost.add(losses)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        if place == "forbidden":
            file.parent.chmod(0o700)
    assert lost.read() == losses and len([r for r in caplog.records if "is not kept in" in r.message]) == 1
    assert not list(tmp_path.rglob(".*"))


def test_length_alone_does_not_win() -> None:
    rng = np.random.default_rng(0)
    length = rng.integers(5, 500, 5000)
    score = np.log(length) + rng.normal(0, 0.3, 5000)
    assert np.corrcoef(score, length)[0, 1] > 0.7
    rank = within_length(score, length)
    top = np.argsort(-rank)[:500]
    assert abs(np.corrcoef(rank, length)[0, 1]) < 0.1 and abs(length[top].mean() / length.mean() - 1) < 0.1
    assert 0 < rank.min() < rank.max() <= 1
    score[7] = np.nan
    assert np.isnan(within_length(score, length)[7]) and np.isnan(within_length(np.full(3, np.nan), length[:3])).all()


def test_prefer_decides_who_stays(base: BaseConfig) -> None:
    rows = [(f"Which way is {i}?", "That way, up.") for i in range(10)]
    for prefer, sign in (("high", 1), ("low", -1)):
        p = pool(rows, base=base)
        dict(IFD(max=99, prefer=prefer).drops(p))
        assert (np.argsort(p.quality) == np.argsort(sign * p.scores["ifd"])).all()
    p = pool(rows, base=base)
    dict(IFD(max=99, prefer="none").drops(p))
    assert (p.quality == 0).all()


def test_wrong_templates() -> None:
    with pytest.raises(ValidationError, match="needs {prompt}"):
        IFD(template="-- ")


COLOURS = {"red": "rot", "blue": "blau", "green": "gruen", "white": "weiss", "black": "schwarz", "brown": "braun"}
ANIMALS = {"dog": "Hund", "cat": "Katze", "horse": "Pferd", "cow": "Kuh", "bird": "Vogel", "fish": "Fisch"}


def test_answers_to_another_prompt_are_found_without_a_model() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(600):
        c, a, n = rng.choice(list(COLOURS)), rng.choice(list(ANIMALS)), int(rng.integers(2, 9))
        rows.append((f"There are {n} {c} {a}s on the farm", f"{ANIMALS[a]} {COLOURS[c]} {n}"))
    wrong = set(rng.choice(600, 40, replace=False).tolist())
    shuffled = [(p, rows[(i * 7 + 13) % 600][1]) if i in wrong else (p, r) for i, (p, r) in enumerate(rows)]
    wrong = {i for i in wrong if len(set(shuffled[i][1].split()) & set(rows[i][1].split())) == 0}
    found = dropped(Mismatched(min=0.0), *shuffled)
    assert wrong <= set(found) and len(set(found) - wrong) <= 45
    assert all(e["alignment"] < e["min"] for e in found.values())
    clean = dropped(Mismatched(min=0.0), *rows)
    assert len(clean) <= 6
    assert dropped(Mismatched(), *rows[:10]) == {}  # too few to learn from
