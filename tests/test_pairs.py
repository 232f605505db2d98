"""Pairs: who is chosen, who is rejected, who is neither, and what is said when there is nothing."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from align import tables
from align.data.pairing import similarity
from align.errors import InputError, StageError
from align.grading.graders import ExactGrader, NoGrader, PythonGrader
from tasks.pairs import PairsConfig, pairs

SCORE = PythonGrader(function=f"{__name__}:by_number")


def by_number(prompt: str, response: str, reference: str | None, meta: dict[str, Any]) -> float | None:
    """Scores are written into the responses: `0.5 some text`; `?` is ungraded."""
    return None if response.startswith("?") else float(response.split()[0])


def row(row_id: str, **values: Any) -> dict[str, Any]:
    prompt = values.get("prompt", f"question {row_id}")
    messages = [{"role": "user", "content": prompt}]
    default = {"use": "prompts", "split": "preference", "reference": "yes", "meta": "{}"}
    return {"row_id": row_id, "source": "s", "messages": messages, "prompt": prompt, **default, **values}


class Bench:
    """Writes inputs and runs the stage."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.rows: list[dict[str, Any]] = []
        self.samples: list[dict[str, Any]] = []

    def ask(self, row_id: str, *texts: str, cut: tuple[int, ...] = (), **values: Any) -> None:
        self.rows.append(row(row_id, **values))
        for i, text in enumerate(texts):
            self.samples.append({
                "row_id": row_id, "sample_id": f"{row_id}-{i}", "sample_index": i, "text": text,
                "finish_reason": "truncated" if i in cut else "stop", "n_tokens": len(text.split()),
            })  # fmt: skip

    def run(self, name: str = "out", **config: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        out = self.folder / name
        out.mkdir()
        tables.write(self.folder / "rows.parquet", self.rows, tables.ROWS)
        tables.write(self.folder / "samples.parquet", self.samples, tables.SAMPLES)
        config = {"grader": ExactGrader(), "held_out": 0.0, **config}
        metrics = pairs(
            PairsConfig(**config), out, rows=self.folder / "rows.parquet", samples=self.folder / "samples.parquet",
            cache=self.folder / "cache",
        )  # fmt: skip
        assert all(isinstance(v, (int, float, str)) for v in metrics.values())
        return tables.read(out / "pairs.parquet"), metrics


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_correct_against_wrong(bench: Bench) -> None:
    bench.ask("a", "no", "Yes!", "maybe so")
    bench.ask("right", "yes", "YES")
    bench.ask("wrong", "no", "nope")
    (pair,), metrics = bench.run()
    assert (pair["chosen"], pair["chosen_id"], pair["row_id"]) == ("Yes!", "a-1", "a")
    assert pair["rejected_id"] in ("a-0", "a-2") and pair["margin"] == 1 and pair["labelled_by"] == "exact"
    assert pair["messages"] == [{"role": "user", "content": "question a"}]
    assert metrics | {
        "prompts": 3, "prompts.paired": 1, "prompts.all_correct": 1, "prompts.all_wrong": 1, "prompts.ungraded": 0,
        "samples": 7, "correct": 3, "wrong": 4, "ungraded": 0, "pairs": 1, "pairs.train": 1, "pairs.held_out": 0,
        "chosen.tokens.mean": 1.0,
    } == metrics  # fmt: skip
    scores = tables.read(bench.folder / "out" / "scores.parquet")
    assert [(s["sample_id"], s["score"], s["status"]) for s in scores[:3]] == [
        ("a-0", 0, "wrong"), ("a-1", 1, "correct"), ("a-2", 0, "wrong")]  # fmt: skip
    assert len(scores) == 7 and {s["scored_by"] for s in scores} == {"exact"}


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("best_vs_worst", {("0.9 a", "0.1 d")}),
        ("best_vs_random", {("0.9 a", "0.1 d"), ("0.9 a", "0.5 b"), ("0.9 a", "0.5 c")}),
        ("all", {("0.9 a", "0.1 d"), ("0.9 a", "0.5 b"), ("0.9 a", "0.5 c"), ("0.5 b", "0.1 d"), ("0.5 c", "0.1 d")}),
    ],
)
def test_strategies(bench: Bench, strategy: str, expected: set[tuple[str, str]]) -> None:
    bench.ask("q", "0.5 b", "0.9 a", "? u", "0.1 d", "0.5 c")
    made, metrics = bench.run(grader=SCORE, strategy=strategy, max_pairs_per_prompt=99)
    assert {(p["chosen"], p["rejected"]) for p in made} == expected and len(made) == len(expected)
    assert all(p["margin"] == pytest.approx(float(p["chosen"][:3]) - float(p["rejected"][:3])) for p in made)
    assert metrics["ungraded"] == 1
    (first,), _ = bench.run("one", grader=SCORE, strategy=strategy)
    assert (first["chosen"], first["rejected"]) in expected


def test_margins_below_the_minimum_make_no_pair(bench: Bench) -> None:
    bench.ask("q", "0.5 b", "0.9 a", "0.8 c")
    made, _ = bench.run(grader=SCORE, strategy="all", max_pairs_per_prompt=9, min_margin=0.2)
    assert {(p["chosen"], p["rejected"]) for p in made} == {("0.9 a", "0.5 b"), ("0.8 c", "0.5 b")}


def test_several_pairs_use_responses_evenly(bench: Bench) -> None:
    bench.ask("q", *(f"1 right {i}" for i in range(2)), *(f"0 wrong {i}" for i in range(4)))
    made, _ = bench.run(grader=SCORE, max_pairs_per_prompt=4)
    assert len({p["pair_id"] for p in made}) == 4
    assert set(Counter(p["chosen"] for p in made).values()) == {2}
    assert set(Counter(p["rejected"] for p in made).values()) == {1}
    every, _ = bench.run("more", grader=SCORE, max_pairs_per_prompt=99)
    assert len({(p["chosen"], p["rejected"]) for p in every}) == len(every) == 8


def test_random_choices_vary_by_prompt_and_seed_but_not_by_run(bench: Bench) -> None:
    for i in range(20):
        bench.ask(f"q{i}", "1 right", *(f"0 wrong {k}" for k in range(4)))
    made, metrics = bench.run(grader=SCORE)
    assert len({p["rejected"] for p in made}) > 1
    again, same = bench.run("again", grader=SCORE)
    assert (again, same) == (made, metrics)
    assert (bench.folder / "out/pairs.parquet").read_bytes() == (bench.folder / "again/pairs.parquet").read_bytes()
    other, _ = bench.run("other", grader=SCORE, seed=1)
    assert [p["rejected"] for p in other] != [p["rejected"] for p in made]


def test_truncated_samples_are_never_chosen_nor_rejected_by_default(bench: Bench) -> None:
    bench.ask("cut best", "1 a", "0.5 b", "0 c", cut=(0,))
    bench.ask("cut worst", "1 a", "0.5 b", "0 c", cut=(2,))
    made, metrics = bench.run(grader=SCORE)
    assert [(p["chosen"], p["rejected"]) for p in made] == [("0.5 b", "0 c"), ("1 a", "0.5 b")]
    assert metrics["truncated"] == 2
    allowed, _ = bench.run("allowed", grader=SCORE, reject_truncated=True)
    assert [(p["chosen"], p["rejected"]) for p in allowed] == [("0.5 b", "0 c"), ("1 a", "0 c")]


def test_identical_and_empty_texts(bench: Bench) -> None:
    bench.ask("q", "1 a", "1 a ", "0 b", "0 b", cut=(0,))
    bench.ask("empty", "", "no")
    made, metrics = bench.run(grader=PythonGrader(function=f"{__name__}:empty_is_best"))
    assert [(p["chosen_id"], p["rejected_id"]) for p in made] == [("q-1", "q-2")], (
        "a complete copy stands for a cut one"
    )
    assert metrics["identical"] == 2


def empty_is_best(prompt: str, response: str, reference: str | None, meta: dict[str, Any]) -> float:
    return 1.0 if not response else float(response.split()[0] == "1")


def test_the_reference_may_stand_in(bench: Bench) -> None:
    bench.ask("wrong", "no", "nope")
    bench.ask("mixed", "no", "yes")
    bench.ask("none", "?", reference=None)
    grader = PythonGrader(function=f"{__name__}:yes_or_no")
    made, metrics = bench.run(grader=grader, use_reference=True)
    by_prompt = {p["row_id"]: p for p in made}
    assert set(by_prompt) == {"wrong", "mixed"} and metrics["reference_chosen"] == 1
    stand_in = by_prompt["wrong"]
    assert (stand_in["chosen"], stand_in["chosen_id"], stand_in["labelled_by"]) == ("yes", None, "reference")
    assert by_prompt["mixed"]["chosen_id"] == "mixed-1"
    without, _ = bench.run("without", grader=grader)
    assert {p["row_id"] for p in without} == {"mixed"}


def yes_or_no(prompt: str, response: str, reference: str | None, meta: dict[str, Any]) -> float | None:
    return None if response == "?" else float(response == "yes")


def test_held_out_is_by_prompt(bench: Bench) -> None:
    for i in range(200):
        bench.ask(f"q{i}", "1 a", "0 b", "0 c", prompt=f"Question {i // 2}" + ("?" if i % 2 else ""))
    made, metrics = bench.run(grader=SCORE, held_out=0.3, max_pairs_per_prompt=2)
    by_prompt: dict[int, set[bool]] = {}
    for p in made:
        by_prompt.setdefault(int(p["row_id"][1:]) // 2, set()).add(p["held_out"])
    assert all(len(sides) == 1 for sides in by_prompt.values()), "the same question must not be on both sides"
    assert 0.2 < metrics["pairs.held_out"] / metrics["pairs"] < 0.4
    assert metrics["pairs.train"] + metrics["pairs.held_out"] == metrics["pairs"] == 400


def preference(row_id: str, chosen: str | None, rejected: str | None) -> dict[str, Any]:
    return row(row_id, use="preferences", reference=None, chosen=chosen, rejected=rejected)


def test_imported_pairs(bench: Bench) -> None:
    bench.rows += [
        preference("p1", "good answer", "bad"), preference("p2", "same", "same "), preference("p3", "", "bad"),
        preference("p4", "good", None), row("not one", chosen="x", rejected="y"),
    ]  # fmt: skip
    made, metrics = bench.run(origin="imported", grader=NoGrader())
    (pair,) = made
    assert (pair["row_id"], pair["chosen"], pair["rejected"], pair["labelled_by"]) == (
        "p1",
        "good answer",
        "bad",
        "imported",
    )
    assert pair["chosen_id"] is pair["rejected_id"] is pair["margin"] is None
    assert metrics | {"imported.read": 4, "imported.identical": 1, "imported.empty": 1, "imported.kept": 1} == metrics
    assert (metrics["imported.labels"], metrics["labels.desirable"], metrics["labels.undesirable"]) == (1, 1, 0)
    assert metrics["chosen.characters.mean"] == 11 and metrics["chosen.longer.share"] == 1
    assert tables.read(bench.folder / "out" / "scores.parquet") == []


def test_both_origins(bench: Bench) -> None:
    bench.rows.append(preference("p1", "good answer", "bad"))
    bench.ask("q", "yes", "no")
    made, _ = bench.run(origin="both")
    assert [p["labelled_by"] for p in made] == ["exact", "imported"]


def test_people_overrule_graders(bench: Bench) -> None:
    """Of the same two responses nothing is learned both ways, nor twice; other pairs of the prompt stay."""
    bench.ask("a", "no", "yes ")
    bench.ask("b", "no", "yes")
    bench.ask("c", "caf\u0065\u0301", "yes")
    same = {"use": "preferences", "reference": None}
    bench.rows.append(row("d", prompt="question a", chosen="no", rejected="yes", **same))
    bench.rows.append(row("e", prompt="question b", chosen="never", rejected="yes", **same))
    bench.rows.append(row("f", prompt="question c", chosen="caf\u00e9", rejected="yes", **same))
    made, metrics = bench.run(origin="both")
    assert metrics["overruled"] == 2
    assert {(p["chosen"], p["rejected"], p["labelled_by"]) for p in made} == {
        ("no", "yes", "imported"), ("yes", "no", "exact"), ("never", "yes", "imported"), ("caf\u00e9", "yes", "imported"),
    }  # fmt: skip


def test_nothing_says_what_became_of_the_prompts(bench: Bench) -> None:
    bench.ask("a", "yes")
    bench.ask("b", "no", "nope")
    bench.ask("c", "yes", "no", cut=(0,))
    with pytest.raises(StageError) as raised:
        bench.run()
    assert str(raised.value) == (
        "0 pairs: of 3 prompts 1 have only correct responses, 1 only wrong ones, 0 none that was graded, "
        "and 1 none that may be paired (1 of 5 samples are truncated). "
        "To get some, change sample.temperature, raise sample.n, or train the policy further before sampling."
    )
    assert not list((bench.folder / "out").iterdir())


def test_nothing_graded_or_imported_or_left(bench: Bench) -> None:
    bench.ask("a", "? x")
    with pytest.raises(StageError, match="1 none that was graded.*To get some, set pairs.grader"):
        bench.run(grader=SCORE)
    with pytest.raises(StageError, match="of 0 preference rows.*add a source with use: preferences"):
        bench.run("imported", origin="imported", grader=NoGrader())
    bench.ask("b", "yes", "no")
    with pytest.raises(StageError, match="All 1 pairs are held out"):
        bench.run("held out", grader=PythonGrader(function=f"{__name__}:yes_or_no"), held_out=0.9999)


def test_inputs_that_do_not_fit(bench: Bench, tmp_path: Path) -> None:
    bench.ask("a", "yes", "no")
    bench.rows.clear()
    with pytest.raises(StageError, match="1 prompts of the samples are not among the rows, such as a"):
        bench.run()
    with pytest.raises(InputError, match="needs samples"):
        pairs(PairsConfig(), tmp_path, rows=tmp_path / "rows.parquet")


def test_a_grader_that_raises_names_the_row(bench: Bench) -> None:
    bench.ask("a77", "not a number", "0 b")
    with pytest.raises(StageError, match="raised ValueError for row a77"):
        bench.run(grader=SCORE)


def test_pairs_that_hardly_differ_are_dropped(bench: Bench) -> None:
    same = " ".join(f"word{i}" for i in range(40))
    bench.ask("a", f"1 {same}", f"0 {same}")
    bench.ask("b", "1 quite another", "0 thing altogether")
    made, metrics = bench.run(grader=SCORE, max_similarity=0.8)
    assert [p["row_id"] for p in made] == ["b"] and metrics["dropped.similar"] == 1
    assert len(bench.run("all", grader=SCORE)[0]) == 2
    assert similarity("a b c d", "a b c d") == 1 and similarity("a", "b") == 0 and similarity("", "") == 0


def test_the_longer_one_is_chosen_as_often_as_the_shorter(bench: Bench) -> None:
    for i in range(60):
        long, short = f"{'1' if i % 4 else '0'} long {'x' * 20} {i}", f"{'0' if i % 4 else '1'} {i}"
        bench.ask(f"q{i}", long, short)
    bench.ask("even", "1 abc", "0 abd")
    made, metrics = bench.run(grader=SCORE, balance_length=True, held_out=0.3)
    longer = [len(p["chosen"]) > len(p["rejected"]) for p in made if not p["held_out"] and p["row_id"] != "even"]
    assert sum(longer) * 2 == len(longer) > 0 and metrics["dropped.length"] > 5
    before, _ = bench.run("all", grader=SCORE, held_out=0.3)
    assert sum(p["held_out"] for p in before) == sum(p["held_out"] for p in made)
    assert any(p["row_id"] == "even" for p in made)
    assert made == bench.run("again", grader=SCORE, balance_length=True, held_out=0.3)[0]
