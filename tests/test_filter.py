"""The filter as a stage: every row leaves with a decision, contamination comes first, what is written and counted."""

import hashlib
import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow.parquet as pq
import pytest
from pools import row
from pydantic import ValidationError

import align.rules.catalogue as rules
from align import tables
from align.errors import StageError
from align.models.base import BaseConfig
from align.tables import INSTRUCTIONS, KEPT, ROWS
from tasks.filter import FilterConfig, filter

NONE = BaseConfig(path=Path("no-model"))
LENGTH = {"rule": "length", "unit": "characters"}
RULES: list[str | dict[str, Any]] = [
    "empty", "mojibake", "refusal", "truncated", "broken", "repetition", "echo", LENGTH, "wrong_language", "duplicate",
    "near_duplicate"]  # fmt: skip


def config(*names: str | dict[str, Any], **options: Any) -> FilterConfig:
    listed = [{"rule": n} if isinstance(n, str) else n for n in names]
    return FilterConfig.model_validate({"rules": listed, **options})


def run(tmp_path: Path, config: FilterConfig, rows: list[dict], base: BaseConfig = NONE) -> tuple[dict, Path]:
    at = len(list(tmp_path.iterdir()))
    file, out = tmp_path / f"{at}.parquet", tmp_path / f"out{at}"
    out.mkdir()
    tables.write(file, rows, ROWS)
    return filter(config, out, rows=file, base=base), out


def data() -> list[dict]:
    colours = ["red", "blue", "green", "white", "black", "brown", "golden", "silver", "purple", "orange"]
    rows = [row(f"What is the name of the {c} {i} animal in the garden?", f"It is called {c}{i}, as all of them are.")
            for i, c in enumerate(colours * 3)]  # fmt: skip
    rows += [row("Empty?", ""), row("Null?", None), row("Do it.", "As an AI language model, I cannot help with that."),
             row("What is the name of the red 0 animal in the garden?", "It is called red0, as all of them are."),
             row("Wie heisst du?", "Text", split="rejection"), row("How many moons has Mars, all in all?", "Two"),
             row("HOW MANY MOONS has Mars all in all", ""), row("A question that is held back.", "x", split="evaluation"),
             row("a question that is held back!", "y")]  # fmt: skip
    rows += [row("How many moons has Mars, all in all?", None, use="evaluation", split="evaluation", reference="Two", source="exam"),
             row("Ask me", None, use="prompts"), row("Prefer", None, use="preferences", chosen="a", rejected="b")]  # fmt: skip
    return rows


def test_every_row_leaves_with_a_decision(tmp_path: Path) -> None:
    metrics, out = run(tmp_path, config(*RULES), data())
    found = tables.read(out / "instructions.parquet")
    assert [r["row_id"] for r in found] == [r["row_id"] for r in data() if r["use"] == "instructions"]
    assert metrics["read"] == len(found) == 39
    assert metrics["kept"] + sum(v for k, v in metrics.items() if k.startswith("dropped.")) == metrics["read"]
    for r in found:
        assert r["kept"] == (r["reason"] is None) and (r["kept"] or json.loads(r["evidence"]))
    reasons = [r["reason"] for r in found[30:]]
    assert reasons == ["empty", "empty", "refusal", "duplicate", "reserved", "contamination", "contamination", "reserved",
                       "contamination"]  # fmt: skip
    leak = json.loads(found[36]["evidence"])
    assert leak["leaks"] == row("How many moons has Mars, all in all?", None)["row_id"] and leak["of"] == "exam"
    assert json.loads(found[33]["evidence"])["duplicate_of"] == found[0]["row_id"]
    assert metrics["rules"].startswith("contamination, reserved, empty, mojibake")


def test_files_and_their_schemas(tmp_path: Path) -> None:
    metrics, out = run(tmp_path, config(*RULES), data())
    assert sorted(p.name for p in out.iterdir()) == [
        "control.parquet", "distributions.parquet", "instructions.parquet", "kept.parquet"]  # fmt: skip
    assert pq.read_schema(out / "instructions.parquet") == INSTRUCTIONS
    assert pq.read_schema(out / "kept.parquet") == pq.read_schema(out / "control.parquet") == KEPT
    kept, control = (tables.read(out / f"{n}.parquet") for n in ("kept", "control"))
    assert len(kept) == len(control) == metrics["kept"] == 30
    assert {r["row_id"] for r in kept} == {r["row_id"] for r in tables.read(out / "instructions.parquet", kept=True)}
    assert all(r["response"] is not None for r in control) and {r["row_id"] for r in control} != {
        r["row_id"] for r in kept
    }


def test_equal_survivors_give_equal_bytes(tmp_path: Path) -> None:
    def digests(*names: str | dict) -> dict[str, str]:
        _, out = run(tmp_path, config(*names), data())
        return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in out.iterdir()}

    first, again = digests(*RULES), digests(*RULES)
    assert first == again
    other = digests("refusal", "empty", *RULES[3:], LENGTH | {"max_prompt": 9999})
    assert other["kept.parquet"] == first["kept.parquet"] and other["control.parquet"] == first["control.parquet"]
    assert other["instructions.parquet"] == first["instructions.parquet"]


def test_scores_stay_out_of_what_is_trained_on(tmp_path: Path, base: BaseConfig) -> None:
    _, out = run(tmp_path, config(*RULES, {"rule": "ifd", "max": 99}), data(), base)
    rows = tables.read(out / "instructions.parquet")
    assert all((r["ifd"] is not None) == r["kept"] for r in rows)
    assert pq.read_schema(out / "kept.parquet") == KEPT


def test_the_best_of_copies_stays_by_a_score_before_it(tmp_path: Path, base: BaseConfig) -> None:
    rows = [row(f"Which way is {i} north of the river and the hill?", "That way, up.") for i in range(6)]
    copies = rows + [row(r["prompt"].upper(), "that way, UP.") for r in rows]
    _, out = run(tmp_path, config({"rule": "ifd", "max": 99}, "duplicate"), copies, base)
    found = tables.read(out / "instructions.parquet")
    for a, b in zip(found[:6], found[6:], strict=True):
        better, worse = (a, b) if a["kept"] else (b, a)
        assert better["kept"] and not worse["kept"] and better["ifd"] >= worse["ifd"]


def test_contamination_cannot_be_put_off(tmp_path: Path) -> None:
    """A leak is counted as one, though an earlier-listed rule would drop it too, and no rule sees it."""
    metrics, out = run(tmp_path, config("empty", {"rule": "budget", "rows": 5}), data())
    found = tables.read(out / "instructions.parquet", reason="contamination")
    assert len(found) == metrics["dropped.contamination"] == 3
    with pytest.raises(ValidationError):
        config("contamination")


def test_distributions(tmp_path: Path) -> None:
    metrics, out = run(tmp_path, config(*RULES, {"rule": "budget", "rows": 10}), data())
    table = tables.read(out / "distributions.parquet")
    totals: dict[tuple[str, str], int] = {}
    for r in table:
        totals[r["which"], r["measure"]] = totals.get((r["which"], r["measure"]), 0) + r["count"]
    for measure in ("prompt_chars", "response_chars", "prompt_language", "response_language", "source"):
        counted = [totals[which, measure] for which in ("before", "after", "random")]
        assert counted == [39, 10, 10]
    languages = {r["bucket"]: r["count"] for r in table if (r["which"], r["measure"]) == ("after", "prompt_language")}
    assert languages == {"en": 10}
    chars = [r for r in table if r["measure"] == "prompt_chars" and r["which"] == "after"]
    assert all(r["low"] == 32.0 for r in chars)


def test_programs_are_of_no_language(tmp_path: Path) -> None:
    answers = ["SELECT name FROM staff AS s", "def f(x):\n    return x", "With the help of the staff, it is done."]
    _, out = run(tmp_path, config(*RULES), [row(f"Which of the {i} is it?", a) for i, a in enumerate(answers)])
    found = [r for r in tables.read(out / "distributions.parquet") if r["measure"] == "response_language"]
    assert {r["bucket"]: r["count"] for r in found if r["which"] == "before"} == {"code": 2, "en": 1}


def test_masked_rows_stay_masked_downstream(tmp_path: Path) -> None:
    rows = [row("Who is it?", "Ask kim@naver.com about it."), row("Mail lee@naver.com, will you?", "I will do that.")]
    metrics, out = run(tmp_path, config({"rule": "personal_data", "action": "mask"}), rows)
    kept = tables.read(out / "kept.parquet")
    assert (
        kept[0]["response"] == "Ask [email] about it."
        and kept[1]["messages"][0]["content"] == "Mail [email], will you?"
    )
    assert metrics["masked"] == 2 and kept[0]["row_id"] == rows[0]["row_id"]
    found = tables.read(out / "instructions.parquet")
    assert json.loads(found[0]["evidence"]) == {"masked": ["email"]} and found[0]["kept"]


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="kept none of 1 rows; 1 were dropped as empty"):
        run(tmp_path, config("empty"), [row("x", "")])
    with pytest.raises(StageError, match="no rows of use: instructions"):
        run(tmp_path, config("empty"), [row("x", "y", use="prompts")])


def test_a_misspelt_rule_or_threshold() -> None:
    with pytest.raises(ValidationError, match="near_duplicat'"):
        config("near_duplicat")
    with pytest.raises(ValidationError, match="treshold"):
        config({"rule": "near_duplicate", "treshold": 1})


def test_every_rule_is_described() -> None:
    """A sentence for the rule and for each of its settings, which the UI shows as help."""
    for rule in get_args(get_args(rules.AnyRule)[0]):
        assert rule.__doc__ and rule.model_fields["rule"].default
        for name, field in rule.model_fields.items():
            assert name == "rule" or field.description, f"{rule.__name__}.{name}"


def test_control_rows_are_drawn_by_the_seed(tmp_path: Path) -> None:
    """The control rows are another draw for another seed, and the same for the same."""
    drawn = [tables.read(run(tmp_path, config({"rule": "budget", "rows": 8}, seed=s), data())[1] / "control.parquet")
             for s in (0, 0, 1)]  # fmt: skip
    ids = [[r["row_id"] for r in d] for d in drawn]
    assert ids[0] == ids[1] != ids[2] and np.all([len(i) == 8 for i in ids])
