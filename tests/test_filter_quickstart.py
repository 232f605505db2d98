"""The planted defects of the quickstart's raw data: how many of each class the recipe's filter finds."""

import json
from collections import Counter

import pytest

from align import tables
from flows.recipe import RECIPES, ROOT, load
from quickstart.defects import DERIVED, OWN
from tasks.filter import filter
from tasks.ingest import ingest

BASE = RECIPES.parent / "quickstart" / "base"
# The rules that may find a class, where it is not one of the same name.
RULES = {"exact_duplicate": {"duplicate"}, "near_duplicate": {"duplicate", "near_duplicate"}, "leak": {"contamination"},
         "wrong_sql": {"parses"}}  # fmt: skip


@pytest.fixture(scope="module")
def filtered(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    recipe = load("quickstart")
    rules = tuple(r for r in recipe.filter.rules if r.rule != "ifd" or BASE.is_dir())
    folder = tmp_path_factory.mktemp("quickstart")
    for name in ("ingest", "filter"):
        (folder / name).mkdir()
    ingest(recipe.ingest, folder / "ingest")
    config = recipe.filter.model_copy(update={"rules": rules})
    filter(config, folder / "filter", rows=folder / "ingest" / "rows.parquet", base=recipe.base)
    found = tables.read(folder / "filter" / "instructions.parquet")
    for row in found:
        row |= {"defect": json.loads(row["meta"]).get("defect"), "evidence": json.loads(row["evidence"] or "{}")}
    return found


def test_recall_and_precision_of_every_class(filtered: list[dict]) -> None:
    """At least 95 % each. Of a pair of duplicates either may stay: a drop is right if one of the two was planted."""
    by_id: dict[str, list[dict]] = {}
    for row in filtered:
        by_id.setdefault(row["row_id"], []).append(row)
    planted, found, right, wrong = (Counter[str]() for _ in range(4))
    copies = {"exact_duplicate", "near_duplicate"}
    for row in filtered:
        others = by_id.get(row["evidence"].get("duplicate_of"), [])
        classes = {row["defect"]} | {o["defect"] for o in others} if others else {row["defect"]}
        if row["defect"]:
            planted[row["defect"]] += 1
        if row["reason"] in ("duplicate", "near_duplicate"):
            (right if classes & copies else wrong)[row["reason"]] += 1
        elif not row["kept"]:
            mine = RULES.get(row["defect"], {row["defect"]})
            (right if row["reason"] in mine else wrong)[row["reason"]] += 1
    gone = {id(r) for r in filtered if not r["kept"]}
    dropped_for = {r["evidence"]["duplicate_of"] for r in filtered if "duplicate_of" in r["evidence"]}
    for row in filtered:
        if row["defect"] in copies:
            found[row["defect"]] += id(row) in gone or row["row_id"] in dropped_for
        elif row["defect"]:
            found[row["defect"]] += row["reason"] in RULES.get(row["defect"], {row["defect"]})
    print("\nclass              planted  found  recall")
    for name in sorted(planted):
        print(f"{name:18} {planted[name]:7} {found[name]:6}  {found[name] / planted[name]:6.1%}")
    print("rule               dropped  right  precision")
    for name in sorted(right | wrong):
        total = right[name] + wrong[name]
        print(f"{name:18} {total:7} {right[name]:6}  {right[name] / total:6.1%}")
    assert dict(planted) == OWN | DERIVED
    assert not [name for name in planted if found[name] < 0.95 * planted[name]]
    assert not [name for name in right | wrong if right[name] < 0.95 * (right[name] + wrong[name])]
    clean = [r for r in filtered if r["defect"] is None]
    assert len(clean) > len(filtered) / 2
    assert sum(not r["kept"] and "duplicate_of" not in r["evidence"] for r in clean) <= 0.05 * len(clean)


def test_every_drop_has_evidence(filtered: list[dict]) -> None:
    for row in filtered:
        assert row["kept"] == (row["reason"] is None)
        assert row["kept"] or row["evidence"]
    leaks = [r["evidence"] for r in filtered if r["reason"] == "contamination"]
    assert leaks and all(e["leaks"] and e["overlap"] for e in leaks)


def test_nothing_reads_the_hidden_column() -> None:
    """Nothing but the quickstart knows the word under which the defects are recorded."""
    for folder in ("align", "flows", "storage", "tasks"):
        texts = {f: f.read_text(encoding="utf-8") for f in (ROOT / folder).rglob("*.py")}
        assert texts and not [f for f, text in texts.items() if '"defect"' in text]
