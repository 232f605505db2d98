"""Choosing rows: the best, the best that differ, those that cover the rest; shares among strata."""

import json
from pathlib import Path

import numpy as np
import pytest
from pools import dropped, pool, row

from align.errors import InputError
from align.models.base import BaseConfig
from align.rules.diversity import Budget, Embedder, fair, k_center

TOPICS = {
    "sea": "the ship sails over the deep blue ocean with its captain and crew number {}",
    "cake": "beat the eggs and sugar and bake this sweet chocolate cake at home number {}",
    "war": "the army general ordered soldiers to defend their castle against enemies number {}",
}
ROWS = [(TOPICS[t].format(i), "yes") for i in range(20) for t in TOPICS]


def chosen(rule: Budget, rows: list = ROWS, quality: np.ndarray | None = None, **options) -> list[int]:
    p = pool(rows, **options)
    if quality is not None:
        p.rate(quality)
    gone = dict(rule.drops(p))
    assert all(gone.values())
    return [i for i in range(len(rows)) if i not in gone]


def test_the_best_stay() -> None:
    quality = np.arange(60.0)
    assert chosen(Budget(rows=10), quality=quality) == list(range(50, 60))
    assert dropped(Budget(rows=60), *ROWS) == {}
    assert chosen(Budget(rows=10)) != list(range(10)), "without a score chance decides, not the order"
    order = [ROWS[i] for i in chosen(Budget(rows=10))]
    assert sorted(order) == sorted(ROWS[::-1][i] for i in chosen(Budget(rows=10), rows=ROWS[::-1]))


def test_greedy_keeps_a_distance_from_the_chosen() -> None:
    """Not to the pool: the best row of each topic stays, though all have near neighbours."""
    quality = np.arange(60.0)
    rule = Budget(rows=10, method="greedy", min_distance=0.5)
    assert chosen(rule, quality=quality) == [57, 58, 59]
    p = pool(ROWS)
    p.rate(quality)
    gone = dict(rule.drops(p))
    assert gone[0]["close_to"] == p.row_id(57) and 0 <= gone[0]["distance"] < 0.5
    assert len(chosen(Budget(rows=10, method="greedy", min_distance=0.0), quality=quality)) == 10
    embed = Embedder(p, "prompt", None)
    kept = embed(np.array(chosen(Budget(rows=30, method="greedy", min_distance=0.08))))
    likeness = kept @ kept.T - 2 * np.eye(len(kept))
    assert likeness.max() <= 1 - 0.08 + 1e-5


def test_greedy_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = chosen(Budget(rows=25, method="greedy", min_distance=0.1))
    monkeypatch.setattr("align.rules.diversity.BLOCK", 7)
    assert chosen(Budget(rows=25, method="greedy", min_distance=0.1)) == whole


def test_k_center_covers() -> None:
    assert {i % 3 for i in chosen(Budget(rows=3, method="k_center"))} == {0, 1, 2}
    points = np.eye(4, dtype=np.float32)[[0, 0, 1, 1, 2, 3]]
    assert set(points[k_center(points, 4)].argmax(1)) == {0, 1, 2, 3}
    assert len(chosen(Budget(rows=99, method="k_center"))) == 60


def test_strata() -> None:
    rows = [row(f"a {i}", source="big") for i in range(50)] + [row(f"b {i}", source="small") for i in range(4)]
    kept = chosen(Budget(rows=20, stratify="source"), rows=rows)
    assert sum(i >= 50 for i in kept) == 4 and len(kept) == 20
    rows = [row(f"the cat of the house {i}", meta=json.dumps({"level": i % 2})) for i in range(30)]
    assert sum(i % 2 for i in chosen(Budget(rows=10, stratify="level"), rows=rows)) == 5
    pairs = [("what is the name of the cat", "x")] * 20 + [("고양이의 이름은 무엇인가요", "x")] * 20
    numbered = [(p + str(i), r) for i, (p, r) in enumerate(pairs)]
    assert sum(i >= 20 for i in chosen(Budget(rows=10, stratify="language"), rows=numbered)) == 5
    with pytest.raises(InputError, match="no row has the column 'colour'"):
        chosen(Budget(rows=3, stratify="colour"), rows=numbered)


def test_shares() -> None:
    assert fair(np.array([50, 4]), 20).tolist() == [16, 4]
    assert fair(np.array([5, 5, 5]), 10).sum() == 10 and fair(np.array([1, 2]), 10).tolist() == [1, 2]


def test_embeddings_of_a_model(base: BaseConfig) -> None:
    p = pool(ROWS, base=base)
    vectors = Embedder(p, "prompt", base.path)(np.arange(8))
    one = Embedder(p, "prompt", base.path)(np.array([5]))
    assert vectors.shape == (8, 64) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(vectors[5], one[0], atol=1e-4)
    assert len(chosen(Budget(rows=5, method="greedy", min_distance=1e-6, embedding=base.path))) == 5
    with pytest.raises(InputError, match="is not a model directory"):
        chosen(Budget(rows=3, method="greedy", embedding=Path("nowhere")))


def test_hashed_ngrams_know_topics_in_both_languages() -> None:
    rows = [
        *ROWS[:6],
        ("바다를 건너는 배의 선장은 누구인가요", "x"),
        ("바다를 건너는 배의 선원은 누구인가요", "x"),
        ("케이크를 굽는 방법", "x"),
    ]
    vectors = Embedder(pool(rows), "both", None)(np.arange(len(rows)))
    like = vectors @ vectors.T
    assert like[0, 3] > 0.8 and like[0, 1] < 0.4 and like[6, 7] > 0.7 and like[6, 8] < 0.4
