"""Duplicates: exact, near, in which the best row stays, and conflicts; MinHash against what a plain loop finds."""

import random

import numpy as np
import pyarrow as pa
import pytest
from pools import dropped, pool

from align.rules.duplicates import Duplicates, NearDuplicates
from align.rules.minhash import alike, bands, jaccard, signatures
from align.rules.shingles import all_units, grams, sets, text_hashes, units
from align.text import normalise

WORDS = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in "rstvz"]


def sentence(rng: random.Random, n: int) -> list[str]:
    return [rng.choice(WORDS) for _ in range(n)]


def test_units_are_those_of_normalise() -> None:
    texts = ["Hello,  World!", "ＦＵＬＬ width", "STRASSE straße", "a_b c-d", "ÉTÉ été", "", "...", "x", "don't 3.14"]
    for text in texts:
        u = units(pa.array([text, "next text"]), "word")
        assert u.counts[0] == len(normalise(text).split()), text
    u = units(pa.array(["Été  FULL!", "été ｆｕｌｌ"]), "word")
    assert (u.hashes[:2] == u.hashes[2:]).all()


def test_spacing_never_matters_without_word_spaces() -> None:
    u = units(pa.array(["오늘 날씨가 좋아요", "오늘날씨가 좋아요!", "今天天气很好", "good day to you"]))
    assert u.chars.tolist() == [True, True, True, False]
    assert (u.hashes[:8] == u.hashes[8:16]).all()


def test_chunks_of_texts_give_the_same_hashes_as_one() -> None:
    texts = [" ".join(sentence(random.Random(i), i % 40)) for i in range(9000)]
    whole = all_units(pa.chunked_array([texts]))
    for i in (0, 1, 39, 4001, 8999):
        one = units(pa.array([texts[i]]))
        assert (whole.hashes[whole.offsets[i] : whole.offsets[i + 1]] == one.hashes).all()
        assert (sets(*grams(one, 3))[0] == sets(*grams(whole.take(np.array([i])), 3))[0]).all()


def test_text_hashes() -> None:
    a, b, c, d, e = text_hashes(pa.array(["SELECT a\n FROM t", "select A from T", "select a from t;", None, ""]))
    assert a == b != c and d == e


def test_exact_duplicates() -> None:
    rows = [("Name a colour.", "Red"), ("name a colour", "RED "), ("Name a colour!", "Blue"), ("Other", "Red"),
            ("Is 3 > 2?", "a > b"), ("Is 3 > 2?", "a < b")]  # fmt: skip
    p = pool(rows)
    found = dict(Duplicates().drops(p))
    assert found == {1: {"duplicate_of": p.row_id(0), "similarity": 1.0}}
    assert p.remarks == {4: {"conflicts_with": p.row_id(5)}, 5: {"conflicts_with": p.row_id(4)}}
    assert p.notes == {"conflicts": 1}
    assert dropped(Duplicates()) == {}


def test_the_best_row_of_a_cluster_stays() -> None:
    base = "the quick brown fox jumps over the lazy dog near the old river bank today"
    rows = [(base, "yes"), (base + " ok", "yes"), (base.upper() + "!", "yes"), ("something else entirely", "yes")]
    for best in range(3):
        p = pool(rows)
        p.rate(np.array([1.0 if i == best else 0.0 for i in range(4)]))
        for rule in (NearDuplicates(on="prompt"), NearDuplicates()):
            found = dict(rule.drops(p))
            assert set(found) == {0, 1, 2} - {best}
            assert {e["duplicate_of"] for e in found.values()} == {p.row_id(best)}


def test_a_chain_of_likenesses_does_not_drop_what_is_unlike_the_kept_row() -> None:
    words = [f"w{i}" for i in range(30)]
    shifted = [" ".join(words[i : i + 20]) for i in (0, 3, 6)]  # the first and the last share 12 of 24 3-grams
    p = pool([(s, "yes") for s in shifted])
    found = dict(NearDuplicates(on="prompt", threshold=0.7).drops(p))
    assert set(found) == {1} and found[1]["similarity"] == pytest.approx(15 / 21, abs=1e-4)


def test_on_prompt_response_or_both() -> None:
    long = "count all of the orders that were paid by card in the year twenty twenty one"
    rows = [(long, "alpha beta gamma delta epsilon"), (long + " please", "one two three four five six"),
            ("unlike anything", "alpha beta gamma delta epsilon")]  # fmt: skip
    assert set(dropped(NearDuplicates(on="prompt"), *rows)) == {1}
    assert set(dropped(NearDuplicates(on="response"), *rows)) == {2}
    assert set(dropped(NearDuplicates(on="both"), *rows)) == set()
    signs = [(long, "amount < 3"), (long + " please", "amount > 3"), (long + " now", "AMOUNT <  3")]
    assert set(dropped(NearDuplicates(response_threshold=1.0), *signs)) == {2}


def test_korean_near_duplicates_by_characters() -> None:
    rows = [("서울에 사는 고객의 총 주문 금액은 얼마인가요?", "네"), ("서울에사는 고객의 총주문 금액은 얼마인가요", "네"),
            ("서울에 사는 고객의 총 주문 금액은 얼마입니까?", "네"), ("부산에서 가장 많이 팔린 상품은 무엇인가요?", "네")]  # fmt: skip
    assert set(dropped(NearDuplicates(on="prompt", threshold=0.6), *rows)) == {1, 2}


def test_minhash_estimates_jaccard() -> None:
    rng = random.Random(0)
    a = sentence(rng, 300)
    texts = [" ".join(a), " ".join(a[:250] + sentence(rng, 50))]
    h, o = sets(*grams(all_units(pa.chunked_array([texts])), 3))
    exact = jaccard(h, o, np.array([[0, 1]]))[0]
    assert exact == len(set(h[: o[1]]) & set(h[o[1] :])) / len(set(h))
    estimates = [np.mean(s[0] == s[1]) for s in (signatures(h, o, seed, 4)[0] for seed in range(20))]
    assert abs(np.mean(estimates) - exact) < 0.03


@pytest.mark.parametrize("threshold", [0.4, 0.7, 0.9])
def test_all_pairs_are_found_and_no_others(threshold: float) -> None:
    """Against every pair compared: precision 1, recall at least 0.995."""
    rng = random.Random(1)
    texts = []
    for _ in range(150):
        words = sentence(rng, rng.randint(6, 200))
        texts.append(" ".join(words))
        for _ in range(3):
            for _ in range(rng.randint(1, max(1, len(words) // 20))):
                words[rng.randrange(len(words))] = rng.choice(WORDS)
            texts.append(" ".join(words))
    h, o = sets(*grams(all_units(pa.chunked_array([texts])), 3))
    every = np.stack(np.triu_indices(len(texts), 1), axis=1)
    true = {tuple(p) for p in every[jaccard(h, o, every) >= threshold]}
    pairs, similar = alike(h, o, np.arange(len(texts)), threshold, seed=0)
    found = {tuple(sorted(p)) for p in pairs.tolist()}
    assert len(found) == len(pairs) and found <= true and similar.min() >= threshold
    assert len(found) >= 0.995 * len(true) > 50


def test_bands() -> None:
    assert bands(0.7) == (32, 4) and bands(1.0)[1] == 16 and bands(0.2)[1] == 1


def test_a_crowd_of_copies_takes_linear_time() -> None:
    """5,000 rows of one template, all alike: pairs stay a multiple of the rows."""
    rows = [(f"write a nice little story about the number {i} for my class of pupils at the old school", "yes")
            for i in range(5_000)]  # fmt: skip
    found = dropped(NearDuplicates(on="prompt", threshold=0.5), *rows)
    assert len(found) == len(rows) - 1
