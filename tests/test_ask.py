"""`align ask`: how questions are written and read, which are kept and why, and who draws them."""

import json
import threading
from collections.abc import Iterator, Sequence
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import sandboxes
from endpoints import ChatHandler
from tiny import tiny_base

from align.asking import sift
from align.asking.forms import Example, query_of, read, shown, written
from align.asking.sift import Sieve
from align.asking.writers import Policy
from align.errors import InputError
from align.grading.sandbox import Sandbox
from flows.ask import examples_of, failing, schema_of
from flows.cli import main
from flows.recipe import ROOT, load

WAREHOUSE = ROOT / "quickstart" / "warehouse"
EXAMPLES = [
    Example("서울에 사는 고객은 몇 명인가요?", "SELECT COUNT(*) FROM customers WHERE city = 'Seoul'"),
    Example("취소된 주문은 몇 건인가요?", "SELECT COUNT(*) FROM orders WHERE status = 'cancelled';"),
    Example("가장 비싼 상품 세 개의 이름을 알려 주세요.", "SELECT name FROM products ORDER BY price DESC LIMIT 3;"),
    Example("브랜드마다 상품이 몇 개인가요?", "SELECT brand, COUNT(*) FROM products GROUP BY brand;"),
]


def test_what_is_written_is_read_again() -> None:
    many = [*EXAMPLES, Example("two\nlines?", "SELECT 1 -- one\n\n, 2;")]
    found, cut = read(shown(many, "CREATE TABLE t (x INTEGER);"))
    assert cut == 0 and [e.question for e in found] == [*(e.question for e in EXAMPLES), "two lines?"]
    assert found[0].answer == EXAMPLES[0].answer + ";" and found[-1].answer == "SELECT 1 -- one\n, 2;"
    assert read(written(found[-1])) == ([found[-1]], 0)


@pytest.mark.parametrize(
    ("text", "answers", "cut"),
    [
        ("-- a?\nSELECT 1;\n-- b?\nSELECT 2;", ["SELECT 1;", "SELECT 2;"], 0),
        ("-- a?\n\nSELECT 1\nFROM t;\nThat is all.", ["SELECT 1\nFROM t;"], 0),
        ("Sure!\n```sql\n-- a?\nSELECT 1;\n```", ["SELECT 1;"], 0),
        ("-- a?\nSELECT 1\n-- a comment\n;", ["SELECT 1\n-- a comment\n;"], 0),
        ("-- a?\nSELECT 1;\n-- b?\nSELECT", ["SELECT 1;"], 1),
        ("-- a?\nSELECT 1\n\n-- b?\nSELECT 2;", ["SELECT 2;"], 1),
        ("-- a?\n-- b?\nSELECT 2;", ["SELECT 2;"], 1),
        ("-- a?", [], 1),
        ("no question", [], 0),
    ],
)
def test_what_models_write(text: str, answers: list[str], cut: int) -> None:
    found, left = read(text)
    assert [e.answer for e in found] == answers and left == cut


def test_a_second_answer_may_repeat_its_question() -> None:
    assert query_of("a?", "SELECT 1;\n\n-- b?\nSELECT 2;") == query_of("a?", "-- a?\nSELECT 1;") == "SELECT 1;"
    assert query_of("a?", "I do not know.") == ""


@pytest.fixture(scope="module")
def shop() -> Iterator[Sandbox]:
    with Sandbox(WAREHOUSE) as box:
        yield box


GOOD = Example("재고가 50개 미만인 상품은 몇 개인가요?", "SELECT COUNT(*) FROM products WHERE stock < 50;")
DRAWN = {
    sift.KNOWN: Example("서울에 사는 고객은   몇 명인가요", "SELECT COUNT(*) FROM customers;"),
    sift.AGAIN: Example(f"{GOOD.question}!", GOOD.answer),
    sift.SCRIPT: Example("How many orders are there?", "SELECT COUNT(*) FROM orders;"),
    sift.FAILS: Example("배송이 늦은 주문은 무엇인가요?", "SELECT id FROM orders WHERE late;"),
    sift.EMPTY: Example(
        "화성에 사는 고객의 포인트 합계는 얼마인가요?", "SELECT SUM(points) FROM customers WHERE city = 'Mars';"
    ),
    sift.LIKE_EXAMPLE: Example("취소된 주문은 몇 건인가", "SELECT COUNT(*) FROM orders WHERE status = 'cancelled';"),
    sift.LIKE_DRAWN: Example("재고가 50개 미만인 상품은 몇 개인가", "SELECT COUNT(*) FROM products WHERE stock < 50;"),
    sift.OTHERWISE: Example(
        "여성 고객의 평균 포인트는 얼마인가요?", "SELECT AVG(points) FROM customers WHERE gender = 'M';"
    ),
}


def test_each_reason_drops_what_it_is_for(shop: Sandbox) -> None:
    asked: list[str] = []

    def again(questions: Sequence[str]) -> list[str]:
        asked.extend(questions)
        right = {
            GOOD.question: "SELECT COUNT(id) FROM products WHERE 50 > stock;",
            DRAWN[sift.OTHERWISE].question: "SELECT AVG(points) FROM customers WHERE gender = 'F';",
        }
        return [right.get(q, "") for q in questions]

    sieve = Sieve(EXAMPLES, shop, again)
    sieve.add([GOOD, *DRAWN.values()], cut=2)
    found = sieve.sifted
    assert found.kept == [GOOD] and found.drawn == 11
    assert found.dropped == {**dict.fromkeys(DRAWN, 1), sift.CUT: 2} and set(found.told) == set(found.dropped)
    assert {reason: found.told[reason][0] for reason in DRAWN} == {r: e.question for r, e in DRAWN.items()}
    assert "late" in found.told[sift.FAILS][1] and EXAMPLES[1].question == found.told[sift.LIKE_EXAMPLE][1]
    assert "gender = 'M'; and SELECT AVG(points) FROM customers WHERE gender = 'F';" in found.told[sift.OTHERWISE][1]
    assert asked == [GOOD.question, DRAWN[sift.OTHERWISE].question]
    sieve.add([Example(GOOD.question, "SELECT 1;")])
    assert found.dropped[sift.AGAIN] == 2 and found.kept == [GOOD]
    sieve.only(0)
    assert not found.kept and found.dropped[sift.SPARE] == 1 and found.drawn == sum(found.dropped.values()) == 12


def test_the_schema_of_a_warehouse_is_its_own_or_what_its_files_hold(shop: Sandbox, tmp_path: Path) -> None:
    assert schema_of(shop) == (WAREHOUSE / "schema.sql").read_text()
    with Sandbox(sandboxes.build(tmp_path / "w")) as box:
        lines = schema_of(box).splitlines()
        assert lines[0] == "CREATE TABLE city (id BIGINT, name VARCHAR);" and lines[1].startswith("CREATE TABLE t (")
        assert list(
            failing([Example("몇?", "SELECT nothing FROM t"), Example("몇?", "SELECT id FROM t LIMIT 1")], box)
        ) == [line for line in failing([Example("몇?", "SELECT nothing FROM t")], box) if "'몇?' does not run" in line]


def test_draws_depend_on_seed_and_number_alone_and_what_has_no_room_is_said(tmp_path: Path) -> None:
    options: dict[str, Any] = {"name": "tiny", "temperature": 1.0, "max_new_tokens": 12}
    base = tiny_base(tmp_path / "base")
    policy = Policy(base, None, EXAMPLES, "", seed=0, **options)
    texts = policy.write(0, 5)
    assert len(set(texts)) == 5 and all(t.startswith("-- ") for t in texts)
    assert policy.write(3, 1) == texts[3:4] and policy.write(1, 3) == texts[1:4]
    assert Policy(base, None, EXAMPLES, "", seed=1, **options).write(0, 5)[0] != texts[0]
    with pytest.raises(InputError, match="The schema and an example are .* tokens, and tiny reads 244 .*--schema"):
        Policy(base, None, EXAMPLES, "CREATE TABLE t (x INTEGER); " * 50, seed=0, **options).write(0, 1)


@pytest.fixture
def written_examples(tmp_path: Path) -> Path:
    file = tmp_path / "written.jsonl"
    file.write_text("".join(json.dumps({"question": e.question, "query": e.answer}) + "\n" for e in EXAMPLES))
    return file


def test_the_base_draws_what_ingest_reads_and_the_same_command_the_same(written_examples, tmp_path, capsys) -> None:
    to = tmp_path / "drawn.jsonl"
    words = ["ask", "--examples", str(written_examples), "--to", str(to), "--n", "3", "--schema", "none", "--temperature",
             "0.7", "--max-new-tokens", "96"]  # fmt: skip
    main([*words, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["kept"] == 3 and told["drawn"] == 3 + sum(told["dropped"].values())
    rows = [json.loads(line) for line in to.read_text().splitlines()]
    assert [set(row) for row in rows] == [{"question", "answer", "drawn_by"}] * 3
    assert [e.question for e in examples_of(to)] == [row["question"] for row in rows]
    assert not {row["question"] for row in rows} & {e.question for e in EXAMPLES}
    with Sandbox(WAREHOUSE) as box:
        assert [r.status for r in box.run(row["answer"] for row in rows)] == ["ok"] * 3
    first = to.read_bytes()
    with pytest.raises(SystemExit) as ended:
        main(words)
    said = capsys.readouterr()
    assert ended.value.code == 2 and "is there already; name another file, or add --overwrite" in said.err
    assert to.read_bytes() == first
    main([*words, "--overwrite"])
    said = capsys.readouterr()
    assert to.read_bytes() == first
    assert said.out.startswith(f"{told['drawn']} drawn, 3 kept: {to}\n")
    assert all(reason in said.out for reason in told["dropped"])


class Handler(ChatHandler):
    """Writes two questions when asked for some, one of them wrong, and answers a question right."""

    def do_POST(self) -> None:
        server: Any = self.server
        text = self.asked()["messages"][0]["content"]
        server.seen.append(text)
        if "Answer the last question" in text:
            return self.say(f"```sql\n{GOOD.answer}\n```" if GOOD.question in text.splitlines()[-1] else "SELECT 0;")
        return self.say("\n\n".join(map(written, server.writes)))


@pytest.fixture
def server() -> Iterator[Any]:
    made: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.seen, made.writes = [], [GOOD, DRAWN[sift.OTHERWISE]]
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def test_an_endpoint_is_asked_with_schema_and_examples_and_asked_again(
    server, written_examples, tmp_path, capsys
) -> None:
    to, url = tmp_path / "drawn.jsonl", f"http://127.0.0.1:{server.server_port}/v1"
    words = ["ask", "--examples", str(written_examples), "--to", str(to), "--endpoint", url, "--model", "big", "--json"]
    main([*words, "--n", "1"])
    told = json.loads(capsys.readouterr().out)
    assert told["kept"] == 1 and told["dropped"] == {sift.OTHERWISE: 1} and told["drawn_by"] == "big"
    assert json.loads(to.read_text()) == {"question": GOOD.question, "answer": GOOD.answer, "drawn_by": "big"}
    wanted, *answered = server.seen
    assert "Write 10 more" in wanted and "CREATE TABLE customers" in wanted and len(answered) == 2
    assert all(written(e) in wanted for e in EXAMPLES) and f"\n\n-- {GOOD.question}" in "".join(answered)
    server.writes = [DRAWN[sift.FAILS]]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--n", "2", "--overwrite"])
    said = capsys.readouterr()
    assert ended.value.code == 1 and "None of 20 questions was kept" in said.err
    assert json.loads(said.out)["dropped"] == {sift.AGAIN: 19, sift.FAILS: 1} and GOOD.question in to.read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--examples", "nothing.jsonl"], "there is no file .*nothing.jsonl"),
        (["--n", "0"], "--n is a number from 1"),
        (["--temperature", "-1"], "--temperature is a number from 0"),
        (["--model", "sft"], "--model is a policy of --run, or a model behind --endpoint"),
        (["--endpoint", "http://127.0.0.1:9/v1"], "--endpoint goes with --model"),
        (["--endpoint", "127.0.0.1", "--model", "big"], "--endpoint: '127.0.0.1' is no address such as"),
        (["--to", "no/folder/x.jsonl"], "its folder does not exist"),
        (["--schema", "nothing.sql"], "--schema nothing.sql cannot be read"),
        (["--warehouse", "nothing"], "nothing: no such warehouse"),
        (["--run", "nothing"], "There is no store"),
        (["--set", "evaluate.suites={}", "--set", "pairs.grader={kind: exact}", "--set", "pairs_dpo.grader={kind: exact}",
          "--set", "select.grader={kind: none}"], "grades no SQL; name the data .* --warehouse"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(words, message, written_examples, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"--examples": str(written_examples), "--to": "drawn.jsonl"} | dict(
        zip(words[::2], words[1::2], strict=True)
    )
    rest = words if words[0] == "--set" else []
    with pytest.raises(SystemExit) as ended:
        main(["ask", *(w for pair in given.items() if pair[0] != "--set" for w in pair), *rest])
    told = capsys.readouterr().err
    assert ended.value.code == 2 and not (tmp_path / "drawn.jsonl").exists() and len(told.splitlines()) == 1
    with pytest.raises(InputError, match=message):
        raise InputError(told)


def test_an_example_that_does_not_run_is_named(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("e.jsonl").write_text('{"question": "몇 명?", "answer": "SELECT COUNT(*) FROM people;"}\n')
    with pytest.raises(SystemExit) as ended:
        main(["ask", "--examples", "e.jsonl", "--to", "drawn.jsonl"])
    assert ended.value.code == 2 and "The SQL of the example '몇 명?' does not run" in capsys.readouterr().err


def test_the_recipe_knows_the_warehouse() -> None:
    assert load().pairs.grader.warehouse == WAREHOUSE  # type: ignore[union-attr]
