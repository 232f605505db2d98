"""The rules on real data: what is whole and good stays, and what is cut off between words is found."""

import json
import random
import re
from pathlib import Path

import pytest
from pools import dropped, pool

from align import tables
from align.rules.catalogue import DEFAULT
from align.rules.form import Echo, Repetition, Truncated
from align.rules.language import Language
from align.rules.texts import Mojibake
from tasks.ingest import IngestConfig, Source, ingest

SHARED = Path(__file__).parents[2] / "shared" / "data"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not here")
FILES = {"alpaca": "alpaca/alpaca_5000.json", "lima": "lima/lima.json", "gsm8k": "gsm8k/train.jsonl",
         "korean": "korean_chatbot/ChatbotData.csv"}  # fmt: skip
DUE = {"alpaca": 0.02, "lima": 0.02, "gsm8k": 0.0, "korean": 0.0}  # the most that may go, copies and length aside


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[str, str]]]:
    out = tmp_path_factory.mktemp("real")
    ingest(IngestConfig(sources={name: Source(path=SHARED / file) for name, file in FILES.items()}), out)
    found: dict[str, list[tuple[str, str]]] = {name: [] for name in FILES}
    for r in tables.read(out / "rows.parquet"):
        found[r["source"]].append((r["prompt"], r["response"]))
    return found


@pytest.mark.parametrize("source", FILES)
def test_good_rows_stay(data: dict[str, list[tuple[str, str]]], source: str) -> None:
    rules = [r for r in DEFAULT if r.rule not in ("length", "duplicate", "near_duplicate")]
    gone = {r.rule: len(dropped(r, *data[source])) for r in rules}
    print(f"\n{source}: { ({k: n for k, n in gone.items() if n}) } of {len(data[source])}")
    assert sum(gone.values()) <= DUE[source] * len(data[source])


@pytest.mark.parametrize("source, least", [("alpaca", 0.75), ("lima", 0.6)])
def test_prose_cut_off_between_words_is_found(
    data: dict[str, list[tuple[str, str]]], source: str, least: float
) -> None:
    rng = random.Random(0)
    code_or_list = re.compile(r"```|[{}]|^\s*(?:\d+[.)]|[-*•])", re.M)
    prose = [r for _, r in data[source] if len(r or "") > 200 and not code_or_list.search(r)][:1500]
    cut = [text[: text.rindex(" ", 0, rng.randrange(len(text) // 2, len(text) * 9 // 10))] for text in prose]
    cut = [text for text in cut if not re.search(r"[.!?:][\"')]?$", text)]  # a part of whole sentences is whole
    found = len(dropped(Truncated(), *(("Tell me.", text) for text in cut))) / len(cut)
    print(f"\n{source}: {found:.1%} of {len(cut)} found")
    assert found >= least


def test_planted_defects_are_found(data: dict[str, list[tuple[str, str]]]) -> None:
    rng = random.Random(0)
    korean, english = data["korean"][:2000], [(p, r) for p, r in data["alpaca"] if r and len(r) > 40][:2000]
    sentences = [(p, r, s) for p, r in english for s in [r.split(". ")[-1].rstrip(".")] if len(s.split()) > 5]
    planted = {
        "utf-8 as latin-1": (Mojibake(), [(p, r.encode().decode("latin-1")) for p, r in korean], 0.99),
        "utf-8 as cp1252": (Mojibake(), [(p, r.encode().decode("cp1252", "replace")) for p, r in korean], 0.99),
        "cp949 as latin-1": (
            Mojibake(),
            [(p, r.encode("cp949", "replace").decode("latin-1")) for p, r in korean],
            0.99,
        ),
        "a sentence three times": (Repetition(), [(p, f"{r} {s}. {s}. {s}.") for p, r, s in sentences], 0.98),
        "a loop in Korean": (Repetition(), [(p, f"{r} " * 10) for p, r in korean], 0.98),
        "Korean answers": (Language(), [(p, rng.choice(korean)[1]) for p, _ in english], 0.93),
        "English answers": (Language(), [(p, rng.choice(english)[1]) for p, _ in korean], 0.8),
        "the prompt": (Echo(), [(p, p) for p, _ in english], 0.98),
    }
    print()
    for name, (rule, rows, least) in planted.items():
        found = len(dropped(rule, *rows)) / len(rows)
        print(f"{name}: {found:.1%} of {len(rows)} found")
        assert found >= least, name


def test_placeholders_of_alpaca(data: dict[str, list[tuple[str, str]]]) -> None:
    from align.rules.prompts import Placeholder

    rows = pool(data["alpaca"])
    assert dict(Placeholder().drops(rows)) == {}
    removed = rows.notes["placeholders_removed"]
    assert isinstance(removed, int) and 50 <= removed <= 70
    for at, why in rows.remarks.items():
        assert "input" in why["removed"].lower() or why["removed"].lower() in ("n/a", "none"), json.dumps(why)
        assert len(rows.text("prompt", at)) > 10
