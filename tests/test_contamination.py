"""Contamination: every exact leak, nearly every altered one, and hardly a false alarm."""

import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pools import pool, row

from align.rules.contamination import Contamination
from tasks.ingest import IngestConfig, Source, ingest

SHARED = Path(__file__).parents[2] / "shared" / "data"
ITEM = (
    "A baker sells 12 loaves each morning and twice as many rolls. How many pieces of bread does she sell in a week?",
    "252",
)
KOREAN = ("지난달 서울에서 카드로 결제한 고객의 평균 주문 금액은 얼마인가요?", "1")


def found(rows: list, items: list = (ITEM, KOREAN), **options) -> dict:  # type: ignore[assignment]
    return dict(Contamination(**options).drops(pool(rows, items)))


@pytest.mark.parametrize(
    "prompt, how",
    [
        (ITEM[0], "exact"), (ITEM[0].upper(), "exact"), ("  " + ITEM[0].replace(".", " !"), "exact"),
        ("Solve this for me. " + ITEM[0] + " Think step by step.", "n-gram"),
        (ITEM[0].replace("baker", "farmer").replace("loaves", "eggs").replace("week", "month"), "altered"),
        (KOREAN[0].replace(" ", ""), "exact"), (KOREAN[0].replace("얼마인가요", "얼마입니까"), "altered"),
        ("질문: " + KOREAN[0] + " 답해 주세요.", "contained"),
    ],
)  # fmt: skip
def test_leaks(prompt: str, how: str) -> None:
    evidence = found([("Hello", "x"), (prompt, "x")])
    assert list(evidence) == [1] and evidence[1]["match"] in (how, "n-gram")
    assert evidence[1]["leaks"] in ("item0", "item1") and evidence[1]["overlap"] and evidence[1]["of"] == "exam"


def test_leaks_in_responses_and_turns() -> None:
    assert found([("Invent a word problem.", "Sure: " + ITEM[0])])[0]["field"] == "response"
    assert 0 in found([("user: Hi\n\nassistant: Ho\n\nuser: " + ITEM[0], "252")])
    assert 0 in found([("무엇을 물을까?", KOREAN[0])])


@pytest.mark.parametrize(
    "prompt",
    [
        "A gardener plants 12 rows each spring and twice as many in autumn. How many rows does he plant in five years?",
        "How many pieces of bread does she sell in a week?",
        "지난달 부산에서 가장 많이 팔린 상품의 이름은 무엇인가요?", "What?", "",
    ],
)  # fmt: skip
def test_what_only_sounds_alike_stays(prompt: str) -> None:
    assert found([(prompt, "252")]) == {}


def test_a_shared_form_is_no_leak() -> None:
    items = [(f"What is the difference between {a} and {b}?", None) for a, b in
             (("a virus", "a bacterium"), ("jazz", "blues"), ("an acid", "a base"), ("a hotel", "a hostel"))]  # fmt: skip
    rows = [(f"What is the difference between {a} and {b}?", "x") for a, b in
            (("a lake", "a river"), ("wine", "beer"), ("a comet", "an asteroid"), ("stocks", "bonds"))]  # fmt: skip
    assert found(rows, items) == {}
    assert found([*rows, items[2]], items)[4]["match"] == "exact"


def test_thresholds_are_the_recipes() -> None:
    part = "Yesterday a baker sells 12 loaves each morning and twice as many rolls, she said, laughing aloud at us all"
    assert found([(part, "x")], n=8)[0]["match"] == "n-gram" and found([(part, "x")], n=8, min_share=0.5) == {}
    assert found([(part, "x")], n=20) == {}
    altered = ITEM[0].replace("loaves", "eggs").replace("rolls", "pies").replace("bread", "food")
    assert 0 in found([(altered, "x")]) and found([(altered, "x")], similarity=1) == {}


def test_same_answer() -> None:
    """Of questions made from templates, one that differs in a word is another question, unless its answer is the same."""
    items = [
        ("How many orders were placed in Seoul in 2021?", "SELECT 1;"),
        ("How many orders were placed in Busan in 2022?", "SELECT 2;"),
    ]
    rows = [("How many orders were placed in Seoul in 2022?", "SELECT 3;"), ("how many orders got placed in Seoul in 2021", "select 1;"),
            ("How many orders were placed in Seoul in 2021??", "wrong")]  # fmt: skip
    assert set(found(rows, items, same_answer=True, similarity=0.5)) == {1, 2}


def test_a_row_reserved_for_evaluation_is_no_leak_of_itself() -> None:
    p = pool([row(*ITEM, split="evaluation"), row(*ITEM, split="sft")], [ITEM])
    p.items = p.items.set_column(2, "use", [["instructions"]])
    assert list(dict(Contamination().drops(p))) == [1]


def test_nothing_to_compare() -> None:
    assert found([("x", "y")], []) == {} and found([], [ITEM]) == {} and found([("", None)], [("", None), ITEM]) == {}


def altered(text: str, kind: str, words: list[str], rng: random.Random) -> str:
    if kind == "case":
        return text.upper() if rng.random() < 0.5 else text.lower()
    if kind == "punctuation":
        return "".join(rng.choice(["", "!", " - "]) if not (c.isalnum() or c.isspace()) else c for c in text) + "!"
    found = text.split()
    for _ in range(max(1, min(3, len(found) // 8))):
        at, what = rng.randrange(len(found)), rng.random()
        if what < 0.2 and len(found) > 3:
            found.pop(at)
        else:
            found[at : at + (what < 0.8)] = [rng.choice(words)]
    return " ".join(found)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not here")
def test_recall_and_false_alarms_on_real_data(tmp_path: Path) -> None:
    """Questions of GSM8K, MT-Bench, IFEval and Spider hidden in Alpaca, as they are and altered."""
    files = {"alpaca": "alpaca/alpaca_5000.json", "gsm8k": "gsm8k/test.jsonl", "ifeval": "ifeval/input_data.jsonl",
             "mt_bench": "mt_bench/mt_bench__question.jsonl", "spider": "spider/dev.json"}  # fmt: skip
    sources = {
        n: Source(path=SHARED / f, use="evaluation" if n != "alpaca" else "instructions") for n, f in files.items()
    }
    ingest(IngestConfig(sources=sources), tmp_path)
    rows = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    clean = [r for r in rows if r["source"] == "alpaca"]
    rng = random.Random(0)
    words = [w for r in clean[:500] for w in r["prompt"].split()]
    false = total = 0
    print("\nset        exact    case  punct.   words  false alarms")
    for name in ("gsm8k", "ifeval", "mt_bench", "spider"):
        items = [(r["prompt"], r["reference"]) for r in rows if r["source"] == name][:400]
        kinds = ("exact", "case", "punctuation", "words")
        leaks = [(k, p if k == "exact" else altered(p, k, words, rng)) for k in kinds for p, _ in items]
        hit = found([*[(p, "Some answer.") for _, p in leaks], *clean], items)
        recall = {k: sum(leaks[i][0] == k for i in hit if i < len(leaks)) / len(items) for k in kinds}
        alarms = sum(i >= len(leaks) for i in hit)
        print(f"{name:9} {' '.join(f'{v:7.1%}' for v in recall.values())}  {alarms} of {len(clean)}")
        assert recall["exact"] == recall["case"] == 1 and min(recall.values()) >= 0.95
        false, total = false + alarms, total + len(clean)
    assert false / total < 0.005


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not here")
def test_korean_leaks(tmp_path: Path) -> None:
    """Sentences of the Korean chatbot hidden among the others, many of which are paraphrases of one another."""
    ingest(IngestConfig(sources={"ko": Source(path=SHARED / "korean_chatbot/ChatbotData.csv")}), tmp_path)
    rows = [r["prompt"] for r in pq.read_table(tmp_path / "rows.parquet").to_pylist()]
    rng = random.Random(0)
    items = rng.sample(sorted({p for p in rows if len(p.replace(" ", "")) >= 14}), 300)
    clean = [(p, "A fine answer.") for p in rows if p not in set(items)]
    kinds = {
        "exact": lambda p: p, "spacing": lambda p: p.replace(" ", ""), "punctuation": lambda p: p.rstrip(".") + "?!",
        "words": lambda p: " ".join(w for i, w in enumerate(p.split()) if i != 1),
    }  # fmt: skip
    leaks = [(k, (alter(p), "A fine answer.")) for k, alter in kinds.items() for p in items]
    hit = found([*(row for _, row in leaks), *clean], [(p, None) for p in items])
    recall = {k: sum(leaks[i][0] == k for i in hit if i < len(leaks)) / len(items) for k in kinds}
    alarms = sum(i >= len(leaks) for i in hit)
    print(f"\n{ ({k: f'{v:.1%}' for k, v in recall.items()}) }, paraphrases dropped: {alarms} of {len(clean)}")
    assert min(recall["exact"], recall["spacing"], recall["punctuation"]) == 1 and recall["words"] >= 0.95
    assert alarms / len(clean) < 0.005
