"""Promotion where a recipe has several rounds: the model that its gates chose is judged, and becomes champion."""

from pathlib import Path

import pytest
from test_promote import FINE, artifact, champion, judged, ran, recipe

from align.report.rounds import took_place
from flows.check import problems
from flows.graph import parents
from flows.stages import outline
from storage.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_of_several_rounds_the_model_that_they_end_with_is_judged(tmp_path):
    rules, verdict, metrics = judged(tmp_path, FINE, newest="dpo")
    assert verdict["promoted"] and verdict["model"] == metrics["model"] == "dpo"
    assert {r["model"] for r in rules if r["rule"] != "ungraded"} == {"dpo"}


def test_rounds_of_which_none_helped_promote_nothing(tmp_path):
    rules, verdict, metrics = judged(tmp_path, FINE, newest="sft")
    assert (verdict["promoted"], verdict["model"], metrics["failed"]) == (False, "sft", 1)
    assert verdict["verdict"] == "the rounds end with sft, the model that the final one has to be better than"
    assert [(r["rule"], r["suite"], r["held"]) for r in rules] == [("better", None, False)]


def test_of_several_rounds_the_policy_that_they_chose_becomes_champion(store):
    rounds = recipe(store, "sft", "chain.rounds=2")
    more = {"dpo_r2": artifact(store, "dpo", weights_txt="two"), "newest": artifact(store, "newest", weights_txt="one")}
    assert ran(store, rounds, "one", more=more).status == "promoted"
    mine = champion(store)
    assert mine.model == "dpo" and mine.artifact not in more.values()
    assert ran(store, rounds, "one") is None, "which model the rounds end with is not known: nothing is decided"


def test_what_the_rounds_end_with_is_compared_with_the_champion(store):
    ran(store, recipe(store), "one")
    rounds = recipe(store, "champion", "chain.rounds=2", "sample.use=[prompts]")
    assert list(problems(rounds)) == [] and {"newest", "evaluate"} <= set(parents(rounds)["promote"])

    def asked(found) -> list[tuple[str, str]]:
        return [(q.model, q.against) for p in found.parts for q in p.questions if q.against == "champion"]

    assert asked(outline(rounds)) == [("newest", "champion")]
    done = {"newest": {"policy": "dpo"}, "gate": {}, "champion": {}}
    assert asked(took_place(outline(rounds), done)) == [("dpo", "champion")]
