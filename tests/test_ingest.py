"""ingest: sources become rows with an identity; mixtures, splits, quarantine, the Hub, and memory."""

import json
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from align.errors import InputError, StageError
from align.tables import QUARANTINE, ROWS, read
from align.text import split_of
from tasks.ingest import Hub, IngestConfig, Source, ingest

SHARED = Path(__file__).parents[2] / "shared" / "data"


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in rows) + "\n")
    return path


def run(tmp_path: Path, sources: dict[str, Source], **options: Any) -> tuple[dict, list[dict], list[dict]]:
    out = tmp_path / f"out{len(list(tmp_path.glob('out*')))}"
    out.mkdir()
    metrics = ingest(IngestConfig(sources=sources, **options), out)
    assert sorted(p.name for p in out.iterdir()) == ["quarantine.parquet", "rows.parquet"]
    rows, bad = pq.read_table(out / "rows.parquet"), pq.read_table(out / "quarantine.parquet")
    assert rows.schema == ROWS and bad.schema == QUARANTINE
    return metrics, read(out / "rows.parquet"), bad.to_pylist()


def questions(n: int, start: int = 0) -> list[dict]:
    return [{"question": f"What is {i}?", "answer": f"It is {i}.", "level": i % 3} for i in range(start, start + n)]


def test_rows_keep_their_source_and_their_identity(tmp_path: Path) -> None:
    a = lines(tmp_path / "a.jsonl", [*questions(50), {"question": "Cafe\u0301?", "answer": None}])
    b = lines(tmp_path / "b.jsonl", [{"instruction": "What is 3?", "input": "", "output": "It is 3."}] * 2)
    metrics, rows, bad = run(tmp_path, {"a": Source(path=a), "b": Source(path=b)})
    assert not bad and metrics["rows"] == len(rows) == 53
    assert metrics["shape.a"] == "question_answer" and metrics["shape.b"] == "alpaca" and metrics["rows.b"] == 2
    three = [r for r in rows if r["prompt"] == "What is 3?"]
    assert [r["source"] for r in three] == ["a", "b", "b"] and len({r["row_id"] for r in three}) == 1
    assert json.loads(three[0]["meta"]) == {"level": 0} and three[0]["messages"][0]["content"] == "What is 3?"
    assert rows[50]["prompt"] == "Caf\u00e9?" and rows[50]["response"] is None
    assert len({r["row_id"] for r in rows}) == 51
    shares = IngestConfig().split
    assert all(r["split"] == split_of(r["prompt"], shares, 0) for r in rows)


def test_uses(tmp_path: Path) -> None:
    asked = lines(tmp_path / "q.jsonl", questions(40))
    pairs = lines(tmp_path / "p.jsonl", [{"prompt": f"{i}?", "chosen": "yes", "rejected": "no"} for i in range(20)])
    metrics, rows, _ = run(tmp_path, {
        "ask": Source(path=asked, use="prompts"), "test": Source(path=asked, use="evaluation", limit=10),
        "like": Source(path=pairs, use="preferences"), "best": Source(path=pairs, use="instructions"),
    })  # fmt: skip
    by = {name: [r for r in rows if r["source"] == name] for name in ("ask", "test", "like", "best")}
    assert all(r["response"] is None and r["reference"].startswith("It is") for r in by["ask"] + by["test"])
    assert {r["split"] for r in by["test"]} == {"evaluation"} and {r["split"] for r in by["like"]} == {"preference"}
    assert len(by["test"]) == 10 and len({r["split"] for r in by["ask"]}) > 1
    assert all((r["chosen"], r["rejected"], r["response"]) == ("yes", "no", None) for r in by["like"])
    assert all((r["chosen"], r["response"]) == (None, "yes") for r in by["best"])
    assert sum(v for k, v in metrics.items() if k.startswith("split.")) == len(rows)


def test_copies_of_a_prompt_never_straddle_splits(tmp_path: Path) -> None:
    a = lines(tmp_path / "a.jsonl", questions(300))
    b = lines(tmp_path / "b.jsonl", [{"question": f"  what IS {i}!!", "answer": "x"} for i in range(300)])
    _, rows, _ = run(tmp_path, {"a": Source(path=a), "b": Source(path=b)}, seed=7)
    split = {r["prompt"]: r["split"] for r in rows}
    assert all(split[f"What is {i}?"] == split[f"  what IS {i}!!"] for i in range(300))
    shares = Counter(split.values())
    assert all(abs(shares[k] / 600 - v) < 0.08 for k, v in IngestConfig().split.items())


def test_mixtures(tmp_path: Path) -> None:
    for name, n in (("a", 900), ("b", 300), ("c", 100)):
        lines(tmp_path / f"{name}.jsonl", questions(n, start=10_000 * ord(name)))
    sources = {
        "a": Source(path=tmp_path / "a.jsonl", weight=2), "b": Source(path=tmp_path / "b.jsonl", weight=1),
        "c": Source(path=tmp_path / "c.jsonl", limit=30),
    }  # fmt: skip
    metrics, rows, _ = run(tmp_path, sources)
    assert {k: metrics[f"rows.{k}"] for k in "abc"} == {"a": 600, "b": 300, "c": 30}
    assert rows == run(tmp_path, sources)[1]
    other = run(tmp_path, sources, seed=1)[1]
    assert {r["row_id"] for r in rows} != {r["row_id"] for r in other}
    # a larger limit takes the same rows and more
    more = run(tmp_path, sources | {"c": Source(path=tmp_path / "c.jsonl", limit=60)})[1]
    assert {r["row_id"] for r in rows if r["source"] == "c"} < {r["row_id"] for r in more}


def test_bad_rows_are_quarantined_with_file_line_and_reason(tmp_path: Path) -> None:
    rows = [*questions(400), "{oops", '{"question": "a\\ud800", "answer": "b"}', {"question": 1.5, "answer": 2}]
    path = lines(tmp_path / "a.jsonl", rows)
    metrics, good, bad = run(tmp_path, {"a": Source(path=path)})
    assert len(good) == 401 and good[-1]["prompt"] == "1.5" and metrics["quarantined"] == metrics["quarantined.a"] == 2
    assert [(b["source"], b["file"], b["line"]) for b in bad] == [("a", "a.jsonl", 401), ("a", "a.jsonl", 402)]
    assert bad[0]["text"] == "{oops" and "not valid JSON" in bad[0]["reason"] and "surrogate" in bad[1]["reason"]
    with pytest.raises(InputError) as e:
        run(tmp_path, {"a": Source(path=path)}, max_bad_share=0.001)
    assert "2 of 403 rows of source a are unreadable" in str(e.value) and "a.jsonl:40" in str(e.value)
    lines(path, [*questions(50), *["{oops"] * 3, {"question": None, "answer": "x"}])
    with pytest.raises(InputError, match=r"the commonest reason \(3 rows\): is not valid JSON .* a.jsonl:51"):
        run(tmp_path, {"a": Source(path=path)})


def test_unwanted_labels_are_set_aside_but_not_bad(tmp_path: Path) -> None:
    rows = [{"prompt": f"{i}?", "completion": "x", "label": i % 2 == 0} for i in range(20)]
    metrics, good, bad = run(tmp_path, {"a": Source(path=lines(tmp_path / "a.jsonl", rows))})
    assert metrics["shape.a"] == "kto" and len(good) == len(bad) == 10
    assert {b["reason"] for b in bad} == {"is labelled undesirable"}


def test_globs_shapes_per_file_and_overrides(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines(tmp_path / "1.jsonl", questions(3))
    turns = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Ho."}]
    lines(tmp_path / "2.jsonl", [{"messages": turns, "instruction": "a", "output": "b"}])
    metrics, rows, _ = run(tmp_path, {"a": Source(path=tmp_path / "*.jsonl")})
    assert metrics["shape.a"] == "question_answer, messages" and metrics["also_fits.a"] == "alpaca"
    assert "choose with `shape`" in caplog.text and rows[-1]["prompt"] == "Hi?"
    _, rows, _ = run(tmp_path, {"a": Source(path=tmp_path / "2.jsonl", shape="alpaca")})
    assert rows[0]["prompt"] == "a"
    _, rows, _ = run(
        tmp_path, {"a": Source(path=tmp_path / "2.jsonl", columns={"prompt": "output", "response": "instruction"})}
    )
    assert (rows[0]["prompt"], rows[0]["response"]) == ("b", "a")


def test_system_message_of_a_source(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", questions(2))
    plain, told = (run(tmp_path, {"a": Source(path=path, system=s)})[1][0] for s in (None, "Be brief."))
    assert told["messages"][0] == {"role": "system", "content": "Be brief."} and told["prompt"] == plain["prompt"]
    assert told["split"] == plain["split"] and told["row_id"] != plain["row_id"]


def test_system_messages_alone_are_asked_and_not_trained_on(tmp_path: Path) -> None:
    system = {"role": "system", "content": "Name a colour."}
    path = lines(tmp_path / "a.jsonl", [{"messages": [system, {"role": "assistant", "content": "Red."}]}])
    for use in ("prompts", "evaluation"):
        _, (row,), _ = run(tmp_path, {"a": Source(path=path, use=use, system="Be brief.")})
        assert [m["role"] for m in row["messages"]] == ["system"] and row["prompt"] == "Name a colour."
        assert (row["response"], row["reference"]) == (None, "Red.")
    with pytest.raises(InputError, match="holds no turn of a user, which only prompts and evaluation items may lack"):
        run(tmp_path, {"a": Source(path=path, use="instructions")})


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sources is empty"):
        run(tmp_path, {})
    (tmp_path / "a.csv").write_text("q,a\n")
    with pytest.raises(InputError, match="a.csv holds no rows"):
        run(tmp_path, {"a": Source(path=tmp_path / "a.csv")})
    with pytest.raises(InputError, match="a.jsonl:1: is not valid JSON|not valid JSON"):
        run(tmp_path, {"a": Source(path=lines(tmp_path / "a.jsonl", ["{x", "{y"]))})
    with pytest.raises(StageError, match="no rows"):
        path = lines(tmp_path / "k.jsonl", [{"prompt": "x", "completion": "y", "label": False}])
        run(tmp_path, {"a": Source(path=path)})


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        ({}, "give either path or hub"),
        ({"path": "a", "hub": {"id": "x", "revision": "y"}}, "give either path or hub"),
        ({"hub": {"id": "x"}}, "revision"),
        ({"path": "a", "shape": "alpaca", "columns": {"prompt": "x"}}, "either shape or columns"),
        ({"path": "a", "shape": "alpacca"}, "alpaca"),
        *(({"path": "a", "weight": w}, "weight") for w in (0, -1, 5e-324, 1e308, float("inf"), float("nan"))),
        *(
            ({"path": "a", "encoding": e}, "is no encoding")
            for e in ("hex", "rot13", "undefined", "a\0b", "", "x" * 5000)
        ),
    ],
)
def test_wrong_sources(wrong: dict, sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        Source.model_validate(wrong)


def test_wrong_splits() -> None:
    for split in (
        {"sft": 0.5},
        {"sft": float("nan")},
        {"sft": float("inf")},
        {"sft": 0.5, "train": 0.5},
        {"sft": 1.5, "evaluation": -0.5},
    ):
        with pytest.raises(ValidationError, match="sum to 1|finite number"):
            IngestConfig(split=split)


def test_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through datasets itself, on a dataset directory as the Hub has them."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    lines(tmp_path / "train.jsonl", questions(5))
    lines(tmp_path / "test.jsonl", questions(3))
    hub = Hub(id=str(tmp_path), revision="0123abc", split="test")
    metrics, rows, _ = run(tmp_path, {"h": Source(hub=hub)})
    assert len(rows) == 3 and metrics["shape.h"] == "question_answer"
    with pytest.raises(InputError, match="The Hub dataset|the Hub dataset nobody/nothing@1 .* cannot be read"):
        run(tmp_path, {"h": Source(hub=Hub(id="nobody/nothing", revision="1"))})


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """An array of 120 MB takes hardly more memory than one of a tenth of that."""
    code = """
        import json, sys
        from pathlib import Path
        from tasks.ingest import IngestConfig, Source, ingest
        out = Path(sys.argv[2]); out.mkdir()
        ingest(IngestConfig(sources={"a": Source(path=Path(sys.argv[1]))}), out)
        # not getrusage, in which Linux remembers what the parent used before exec
        print(next(l.split()[1] for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmHWM")))
    """
    peaks = []
    for n in (30_000, 90_000):
        path = tmp_path / f"{n}.json"
        with path.open("w") as f:
            for i in range(n):
                answer = f"{i} is " + "a number " * 220
                row = {
                    "prompt": f"What is {i}?",
                    "completion": answer,
                    "label": i % 2 == 0,
                }  # every other one set aside
                f.write(("[" if not i else ",\n") + json.dumps(row))
            f.write("]")
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), str(path), str(tmp_path / f"out{n}")],
            capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1],
        )  # fmt: skip
        peaks.append(int(done.stdout) * 1024)
    assert path.stat().st_size > 170e6
    assert peaks[1] - peaks[0] < 50e6  # of 120e6 more on disk


REAL = {  # source: (file, use, shape, rows, quarantined)
    "alpaca": ("alpaca/alpaca_5000.json", "instructions", "alpaca", 5000, 0),
    "lima": ("lima/lima.json", "instructions", "alpaca", 1029, 0),
    "gsm8k": ("gsm8k/train.jsonl", "instructions", "question_answer", 7473, 0),
    "gsm8k_test": ("gsm8k/test.jsonl", "evaluation", "question_answer", 1319, 0),
    "korean": ("korean_chatbot/ChatbotData.csv", "instructions", "question_answer", 11_823, 0),
    "spider": ("spider/dev.json", "instructions", "question_query", 1034, 0),
    "hh": ("hh_rlhf/test.jsonl.gz", "preferences", "hh", 2303, 9),
    "dpo_en": ("preferences/dpo_en_demo.json", "preferences", "conversations_chosen_rejected", 300, 0),
    "dpo_zh": ("preferences/dpo_zh_demo.json", "preferences", "conversations_chosen_rejected", 300, 0),
    "kto": ("preferences/kto_en_demo.json", "preferences", "kto", 300, 0),
    "ranked": ("preferences/oaast_rm_zh.json", "preferences", "ranked", 775, 0),
    "ifeval": ("ifeval/input_data.jsonl", "evaluation", "prompt", 541, 0),
    "mt_bench": ("mt_bench/mt_bench__question.jsonl", "evaluation", "turns", 80, 0),
}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not here")
def test_real_data_needs_no_mapping(tmp_path: Path) -> None:
    sources = {name: Source(path=SHARED / file, use=use) for name, (file, use, *_) in REAL.items()}
    metrics, rows, bad = run(tmp_path, sources)
    for name, (_, _, shape, n, quarantined) in REAL.items():
        found = (metrics[f"shape.{name}"], metrics[f"rows.{name}"], metrics[f"quarantined.{name}"])
        assert found == (shape, n, quarantined), name
    assert Counter(b["reason"] for b in bad) == {
        "chosen and rejected share no prompt prefix": 5, "the final turn of chosen is empty": 4}  # fmt: skip
    assert sum(r["messages"][0]["role"] == "system" for r in rows if r["source"] == "dpo_en") > 0
    turns = next(r for r in rows if r["source"] == "mt_bench")
    assert len(json.loads(turns["meta"])["turns"]) == 2
