"""What a pipeline hands to another machine, and what that machine refuses to do."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from align.config import Config
from align.errors import AlignError, InputError, StageError
from flows.dag import Node, dag
from flows.execute import execute
from flows.paths import here, portable
from flows.processes import serving
from flows.recipe import RECIPES, ROOT, Recipe, load
from flows.remote import Call, perform, sentence
from flows.slots import unshared
from storage import build, runs
from storage.build import Output
from storage.store import Store

TINY = Path(__file__).with_name("tiny.yaml")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store in which ingest has run."""
    store = Store(tmp_path_factory.mktemp("remote") / "store")
    with serving(late=True):
        execute(load(TINY), store, "ingest")
        yield store


@pytest.fixture
def call(store: Store) -> Call:
    """The call for the filter."""
    ingested = next(a for a in store.attempts() if a.stage == "ingest")
    recipe, found = load(TINY), []

    def stage(name: str, function: Any, config: Config, *gate: Node, **inputs: Any) -> Node:
        if name == "filter":
            there = {r: Output(ingested.artifact, v.file) if isinstance(v, Node) else v for r, v in inputs.items() if v}
            found.append(build.request(store, name, function, config, there))
        return Node(name)

    dag(recipe, stage)
    return Call(
        recipe=portable(recipe), node="filter", artifacts={"ingest": ingested.artifact}, key=found[0].key,
        code=found[0].code, run="a-run", refresh=False,
    )  # fmt: skip


def test_what_is_handed_over_is_json_and_names_no_path_of_this_machine(call):
    told = json.dumps(call.model_dump(mode="json"))
    assert str(ROOT) not in told and "quickstart/data/instructions.jsonl" in told
    assert Call.model_validate(json.loads(told)) == call


@pytest.mark.parametrize("recipe", [TINY, *sorted(RECIPES.glob("*.yaml"))], ids=lambda p: p.stem)
def test_a_recipe_arrives_as_it_left(recipe):
    left = load(recipe)
    arrived = here(Recipe.model_validate(json.loads(json.dumps(portable(left)))))
    assert arrived == left


def test_paths_elsewhere_stay_as_they_are(tmp_path):
    left = load(TINY, [f"ingest.sources.instructions.path={tmp_path}/rows.jsonl"])
    assert here(Recipe.model_validate(portable(left))) == left
    assert portable(left)["ingest"]["sources"]["instructions"]["path"] == f"{tmp_path}/rows.jsonl"


def test_one_stage_that_is_asked_for_twice_is_computed_once(store, call):
    found: list[tuple[Any, bool]] = []

    def ask() -> None:
        found.append(perform(call, store, unshared))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ran for _, ran in found) == [False, True]
    assert {attempt.key for attempt, _ in found} == {call.key}
    assert len([a for a in store.attempts() if a.stage == "filter"]) == 1
    assert len(runs.history(store)) == 1  # what is done for others is no run
    again, ran = perform(call.model_copy(update={"refresh": True}), store, unshared)
    assert ran and again.artifact == found[0][0].artifact


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"code": {"tasks/filter.py": "other"}, "key": "other"}, "another version of "),
        ({"key": "other"}, "other contents of the files"),
        ({"artifacts": {"ingest": "ingest-0123"}}, "does not have ingest-0123; all workers must use one store"),
        ({"node": "unheard_of"}, "no stage unheard_of"),
        ({"recipe": {"name": "x"}}, "of another version of align"),
    ],
)
def test_a_worker_that_would_build_something_else_says_why(store, call, changes, said):
    with pytest.raises(StageError, match=said):
        perform(call.model_copy(update=changes), store, unshared)


def test_a_worker_without_a_file_that_the_recipe_names_says_which(store, call):
    told = json.loads(json.dumps(call.recipe).replace("quickstart/warehouse", "quickstart/no-warehouse"))
    with pytest.raises(StageError, match="does not have .*no-warehouse"):
        perform(call.model_copy(update={"recipe": told}), store, unshared)


def test_what_failed_is_told_in_a_sentence():
    assert sentence(StageError("no rows are left.")) == "no rows are left."
    assert sentence(ValueError("bad")) == "ValueError: bad" and sentence(KeyError()) == "KeyError: no message"


def test_a_pool_without_a_server_is_an_error(store):
    with pytest.raises(InputError, match="compute.pool .*align-gpu.*PREFECT_API_URL"):
        execute(load(TINY, ["compute.pool=align-gpu", "filter.seed=9"]), store, "filter")


class Elsewhere:
    """A carrier whose other machine answers so."""

    flow_run, forward, lend = None, False, staticmethod(unshared)

    def __init__(self, store: Store, answer: Any):
        from flows.execute import Threads

        self.asked: list[Call] = []
        self.store, self.answer, self.log = store, answer, Threads.log
        self.carry, self.approves, self.tell = Threads().carry, Threads().approves, Threads().tell

    def sender(self, pool: str) -> Any:
        def send(call: Call, stopped: Any) -> None:
            self.asked.append(call)
            self.answer(call, self.store)

        return send


def test_only_stages_that_want_a_gpu_are_sent(store, monkeypatch):
    """Who answers that it is done, though it is not in the store, has another store."""
    monkeypatch.setenv("ALIGN_GPU_POOL", "align-gpu")
    by = Elsewhere(store, lambda call, store: None)
    with pytest.raises(AlignError, match="sft: another machine says that it is done, .*one store"):
        execute(load(TINY, ["controls.unfiltered=false"]), store, "+sft", by=by)
    (asked,) = by.asked
    assert asked.node == "sft" and set(asked.artifacts) == {"filter"} and not asked.refresh
    assert asked.run == runs.history(store)[-1]["run_id"]


def fails(call: Call, store: Store) -> None:
    raise StageError("no GPU has room for it (flow run x in the pool align-gpu)")


def test_what_failed_elsewhere_ends_the_run_with_its_sentence(store, monkeypatch):
    monkeypatch.setenv("ALIGN_GPU_POOL", "align-gpu")
    with pytest.raises(StageError, match=r"^sft: no GPU has room for it \(flow run x in the pool align-gpu\)$"):
        execute(load(TINY, ["controls.unfiltered=false"]), store, "+sft", by=Elsewhere(store, fails))
    assert runs.history(store)[-1]["status"] == "failed"
