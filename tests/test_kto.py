"""KTO: labels of single responses come through ingest and pairs, and what is desirable becomes likelier than what is not."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from align import tables
from align.errors import InputError, StageError
from align.models.base import BaseConfig, load_chat
from align.models.kto import Collator, Label, columns, encode
from align.models.trained import policy
from flows.dag import Node, dag
from flows.recipe import load
from flows.stages import outline
from tasks.dpo import DpoConfig, dpo
from tasks.ingest import IngestConfig, Source, ingest
from tasks.pairs import PairsConfig, pairs

SETTINGS = {"loss_type": "kto", "learning_rate": 2e-3, "per_device_train_batch_size": 16, "max_length": 128}


def label(i: int, desirable: bool, **changes: Any) -> dict[str, Any]:
    """A row of LABELS. What the adapter of the tests has learned to say, the sum, is what is undesirable."""
    response = f"SELECT {i}" + " no" * (i % 3) if desirable else f"It is {2 * i}."
    return {
        "label_id": f"l{i}{desirable}", "row_id": f"r{i}", "messages": tiny.row(i)["messages"], "response": response,
        "desirable": desirable, "labelled_by": "test", "held_out": i % 4 == 0, **changes,
    }  # fmt: skip


def write(file: Path, n: int, *more: dict[str, Any]) -> Path:
    tables.write(file, [*(label(i, i % 2 == i // 4 % 2) for i in range(n)), *more], tables.LABELS)
    return file


def run(base: BaseConfig, out: Path, labels: Path, adapter: Path, **settings: Any) -> dict[str, Any]:
    out.mkdir()
    return dpo(DpoConfig(**SETTINGS | settings), out, base=base, labels=labels, adapter=adapter)


@pytest.fixture(scope="module")
def trained(base: BaseConfig, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("kto")
    more = label(201, True, response="word " * 200), label(202, False, response=" ")
    labels = write(folder / "labels.parquet", 96, *more)
    return folder / "out", run(base, folder / "out", labels, adapter, num_train_epochs=8)


def test_what_is_desirable_becomes_likelier_on_held_out_rows(
    base: BaseConfig, adapter: Path, trained: tuple[Path, dict[str, Any]]
) -> None:
    """Measured on the policy as it is saved, prompt by prompt, and beside the one that training started from."""
    chat, likelier = load_chat(base), []
    for model in (policy(base, adapter), policy(base, trained[0])):
        wins = 0
        for i in range(0, 96, 4):
            means = []
            for desirable in (True, False):
                (e,) = chat.examples([tiny.row(i)["messages"]], [label(i, desirable)["response"]])
                ids, at = torch.tensor([e.ids]), torch.arange(e.prompt, len(e.ids))
                with torch.no_grad():
                    means.append(float(model(ids).logits[0].log_softmax(-1)[at - 1, ids[0, at]].mean()))
            wins += means[0] > means[1]
        likelier.append(wins / 24)
    assert likelier[0] == 0 and likelier[1] > 0.9, likelier
    metrics = trained[1]
    assert metrics["accuracy.held_out"] > 0.95
    assert metrics["logps.chosen_shift.held_out"] > 0 > metrics["logps.rejected_shift.held_out"]
    assert metrics["loss.final"] < 0.35


def test_the_first_loss_is_half_the_weight(trained: tuple[Path, dict[str, Any]]) -> None:
    out, metrics = trained
    assert metrics["loss.initial"] == pytest.approx(0.5, abs=1e-5)
    assert metrics["loss.first"] == pytest.approx(0.5, abs=1e-5)  # what trl itself computed at step 1
    log = {e["name"]: e["value"] for e in tables.read(out / "training_log.parquet", step=1)}
    assert log["kl"] == pytest.approx(0, abs=1e-4) and {"rewards/chosen", "logps/rejected"} <= log.keys()


def test_what_is_counted_and_saved(trained: tuple[Path, dict[str, Any]]) -> None:
    out, metrics = trained
    assert (metrics["labels"], metrics["labels.held_out"], metrics["labels.read"]) == (72, 24, 98)
    assert (metrics["labels.too_long"], metrics["labels.faulty"]) == (1, 1)
    assert metrics["labels.desirable"] + metrics["labels.undesirable"] == 72
    assert sorted(p.name for p in out.iterdir()) == ["adapter", "dropped.parquet", "training_log.parquet"]
    assert all(p.is_file() for p in (out / "adapter").iterdir()), "the policy only"
    assert {d["reason"] for d in tables.read(out / "dropped.parquet")} == {"too long", "empty response"}


def test_a_reference_that_is_the_base(base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    """The reference is lost when trl makes it: training must not begin."""
    from peft import PeftModel

    add = PeftModel.add_adapter

    def lost(model: Any, name: str, config: Any, **options: Any) -> None:
        add(model, name, config, **options)
        real = model.get_parameter
        model.get_parameter = lambda key: (
            torch.nn.Parameter(real(key).detach().clone()) if ".ref." in key else real(key)
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PeftModel, "add_adapter", lost)
        with pytest.raises(StageError, match="KTO reference is not the policy"):
            run(base, tmp_path / "out", write(tmp_path / "l.parquet", 24), adapter)


def test_weights_and_balance(base: BaseConfig, adapter: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    few = [label(i, i % 3 == 0) for i in range(36)]
    tables.write(tmp_path / "labels.parquet", few, tables.LABELS)
    metrics = run(base, tmp_path / "a", tmp_path / "labels.parquet", adapter)
    assert metrics["labels.balance"] == pytest.approx(0.5) and "set desirable_weight to 2" in caplog.text
    caplog.clear()
    metrics = run(base, tmp_path / "b", tmp_path / "labels.parquet", adapter, desirable_weight=2.0)
    assert metrics["labels.balance"] == pytest.approx(1) and not caplog.text
    assert 0.5 < metrics["loss.initial"] < 1


def test_mismatched_responses_are_to_other_prompts(base: BaseConfig, tmp_path: Path) -> None:
    chat = load_chat(base)
    table = [label(i // 2, i % 2 == 0, label_id=str(i), held_out=False) for i in range(12)]
    labels, _ = encode(chat, table, DpoConfig(max_length=128), tmp_path)
    of = {tuple(x.completion_ids): x.prompt_ids for x in labels}
    rows = columns(labels)
    batch = Collator(chat.pad_id, 128)(rows[:4])
    assert batch["KL_input_ids"].shape[0] == 4
    for row in rows:
        assert of[tuple(row["other"])] != row["prompt_ids"]
    for at, row in enumerate(rows[:4]):
        start = len(row["prompt_ids"])
        assert batch["KL_input_ids"][at, :start].tolist() == row["prompt_ids"]
        said = batch["KL_input_ids"][at][batch["KL_completion_mask"][at].bool()].tolist()
        assert of[tuple(said)] != row["prompt_ids"], "two responses to one prompt say nothing of the others"
    assert Collator(chat.pad_id, 128)(rows[:1])["KL_input_ids"].shape[0] == 1
    short = Collator(chat.pad_id, max(len(r["prompt_ids"]) for r in rows) + 2)(rows)
    assert short["KL_input_ids"].shape[1] <= max(len(r["prompt_ids"]) for r in rows) + 2


@pytest.mark.parametrize(("table", "told"), [
    ([label(i, True) for i in range(9)], "0 undesirable labels"),
    ([label(i, False) for i in range(9)], "0 desirable labels"),
    ([], "0 desirable labels"),
    ([label(1, True), label(1, False)], "All labels have the same prompt"),
])  # fmt: skip
def test_labels_that_teach_nothing(table: Any, told: str, base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    tables.write(tmp_path / "labels.parquet", table, tables.LABELS)
    with pytest.raises(StageError, match=told):
        run(base, tmp_path / "out", tmp_path / "labels.parquet", adapter)


@pytest.mark.parametrize(("settings", "told"), [
    ({"nll": 0.1}, "nll: has no effect with loss_type kto"),
    ({"label_smoothing": 0.1}, "label_smoothing"),
    ({"per_device_train_batch_size": 1}, "per_device_train_batch_size: is 1"),
    ({"loss_type": "sigmoid", "undesirable_weight": 2.0}, "undesirable_weight: has no effect with loss_type sigmoid"),
    ({"loss_type": "sigmoid"}, "loss_type sigmoid needs pairs"),
    ({"extra": {"sync_ref_modell": True}}, "KTOConfig has no such argument; did you mean sync_ref_model"),
])  # fmt: skip
def test_settings(settings: Any, told: str, base: BaseConfig, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=told):
        run(base, tmp_path / "out", write(tmp_path / "l.parquet", 8), adapter, **settings)


def test_labelled_rows_come_through_ingest_and_pairs(tmp_path: Path) -> None:
    said = [{"prompt": f"Question {i}?", "completion": f"Answer {i}.", "label": i % 3 == 0} for i in range(30)]
    (tmp_path / "kto.jsonl").write_text("".join(json.dumps(row) + "\n" for row in said), encoding="utf-8")
    both = [{"prompt": f"Choice {i}?", "chosen": "Yes.", "rejected": "No."} for i in range(4)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in both), encoding="utf-8")
    sources = {n: Source(path=tmp_path / f"{n}.jsonl", use="preferences") for n in ("kto", "pairs")}
    for name in ("rows", "out"):
        (tmp_path / name).mkdir()
    assert ingest(IngestConfig(sources=sources), tmp_path / "rows")["rows.kto"] == 30
    metrics = pairs(
        PairsConfig(origin="imported", held_out=0.2), tmp_path / "out", rows=tmp_path / "rows" / "rows.parquet"
    )
    found = tables.read(tmp_path / "out" / "labels.parquet")
    assert {(x["messages"][0]["content"], x["response"], x["desirable"]) for x in found} == {
        (row["prompt"], row["completion"], row["label"]) for row in said
    }
    assert {x["labelled_by"] for x in found} == {"imported"} and 0 < sum(x["held_out"] for x in found) < 15
    assert (metrics["labels.desirable"], metrics["labels.undesirable"], metrics["pairs"]) == (10, 20, 4)
    assert (metrics["imported.labels"], metrics["imported.empty"], metrics["imported.kept"]) == (30, 0, 4)


def test_graded_samples_are_labels(tmp_path: Path) -> None:
    from align.grading.graders import ExactGrader

    rows = [tiny.row(i, use="prompts", response=None, reference="yes") for i in range(2)]
    texts = [
        ("yes", "stop"),
        ("no", "stop"),
        ("no", "stop"),
        ("never", "truncated"),
        ("yes", "truncated"),
        (" ", "stop"),
    ]
    samples = [
        {"row_id": row["row_id"], "sample_id": f"{row['row_id']}-{i}", "sample_index": i, "text": text,
         "finish_reason": reason, "n_tokens": 1}
        for row in rows for i, (text, reason) in enumerate(texts)
    ]  # fmt: skip
    tables.write(tmp_path / "rows.parquet", rows, tables.ROWS)
    tables.write(tmp_path / "samples.parquet", samples, tables.SAMPLES)
    for reject, wrong in ((False, {"no"}), (True, {"no", "never"})):
        config = PairsConfig(grader=ExactGrader(), held_out=0, reject_truncated=reject)
        pairs(config, tmp_path, rows=tmp_path / "rows.parquet", samples=tmp_path / "samples.parquet")
        found = [x for x in tables.read(tmp_path / "labels.parquet") if x["row_id"] == "r0"]
        assert [(x["response"], x["sample_id"]) for x in found if x["desirable"]] == [("yes", "r0-0")]
        assert {x["response"] for x in found if not x["desirable"]} == wrong
    tables.write(tmp_path / "samples.parquet", [s for s in samples if s["text"] == "no"], tables.SAMPLES)
    config = PairsConfig(grader=ExactGrader(), held_out=0, use_reference=True)
    pairs(config, tmp_path, rows=tmp_path / "rows.parquet", samples=tmp_path / "samples.parquet")
    found = [x for x in tables.read(tmp_path / "labels.parquet") if x["row_id"] == "r0"]
    assert [(x["response"], x["labelled_by"]) for x in found if x["desirable"]] == [("yes", "reference")]


@pytest.mark.parametrize(("loss", "role"), [("sigmoid", "pairs"), ("kto", "labels")])
def test_the_dag_hands_on_what_the_loss_reads(loss: str, role: str) -> None:
    given: dict[str, Any] = {}

    def walk(name: str, function: Any, config: Any, *gate: Node, **inputs: Any) -> Node:
        given[name] = inputs
        return Node(name)

    dag(load("quickstart", ["chain.dpo_pairs=pairs", "dpo.nll=0", f"dpo.loss_type={loss}"]), walk)
    assert given["dpo"][role] == Node("pairs", file=f"{role}.parquet")
    assert {"pairs", "labels"} & given["dpo"].keys() == {role}


def test_the_report_calls_it_by_its_name() -> None:
    words = ["chain.dpo_pairs=fresh", "dpo.nll=0", "dpo.loss_type=kto", "chain.rounds=2"]
    told = outline(load("quickstart", words))
    titles = {part.stage: part.title for part in told.parts}
    assert titles["dpo"] == titles["dpo_r2"] == "KTO" and titles["sample_dpo"] == "sampling for KTO"
    assert "DPO" not in " ".join([*titles.values(), *(question.topic for question in told.questions)])


def test_labels_are_what_they_say() -> None:
    from align.models.example import Example

    one = Label("l", Example([1, 2, 3], [0, 0, 1], 2), True, False)
    assert (one.prompt_ids, one.completion_ids) == ([1, 2], [3])
