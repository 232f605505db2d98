"""From a verdict to a champion: which one a run compares with, and who becomes it once the run is done.

The stage promote decides by the evaluation alone. Here its decision is carried out, at most once, against the champion
that it was made against, and only after a person approved where the recipe wants that.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import ValidationError

from align.errors import InputError
from align.models.base import BaseConfig
from flows import chain
from flows.recipe import Recipe
from flows.since import goes_on
from flows.stages import final
from storage import champions, runs
from storage.champions import Champion
from storage.runs import StageRun
from storage.store import Store

_WITHOUT: ContextVar[bool] = ContextVar("without", default=False)
Ask = Callable[["Decision"], bool | None]
"""Whether a person approves; None where nobody could be asked."""


@dataclass(frozen=True)
class Decision:
    """What the stage promote says of a run."""

    recipe: str
    run_id: str
    model: str
    artifact: str
    """The model's."""
    id: str
    """The artifact of promote."""
    promoted: bool
    verdict: str
    """Why, as the stage says it."""
    reasons: list[str]
    fresh: bool
    """Whether it was made now, not found in the store."""


@dataclass(frozen=True)
class Promotion:
    """What came of a decision."""

    status: Literal["promoted", "not promoted", "unchanged", "waits"]
    text: str
    """In a sentence without its point."""
    decision: Decision


@contextmanager
def without() -> Iterator[None]:
    """Within, no run makes a champion: a sweep's points are compared with each other first."""
    token = _WITHOUT.set(True)
    try:
        yield
    finally:
        _WITHOUT.reset(token)


def crowned(store: Store, recipe: Recipe) -> Recipe:
    """The recipe with its champion in the store, where it compares with that. Raises InputError for one whose weights
    are gone, or from which the recipe cannot go on where it wants to."""
    found = champions.current(store, recipe.name) if recipe.promote.against == "champion" else None
    if found is None:
        return recipe.model_copy(update={"champion": None})
    if store.artifact(found.artifact) is None:
        raise InputError(
            f"The champion of {recipe.name}, {found.artifact}, is not in {store.where} any more; name another run with "
            "`align promote RUN`, or set promote.against to sft."
        )
    try:
        base = BaseConfig.model_validate(found.base)
    except ValidationError:
        raise InputError(
            f"The champion of {recipe.name} was made by another version, whose base this one cannot read; name another "
            "run with `align promote RUN`, or set promote.against to sft."
        ) from None
    now = chain.Champion(number=found.number, run_id=found.run_id, artifact=found.artifact, base=base)
    return recipe.model_copy(update={"champion": goes_on(store, recipe, now) if recipe.chain.rows == "new" else now})


def settle(store: Store, recipe: Recipe, run_id: str, stages: Iterable[StageRun], ask: Ask) -> Promotion | None:
    """Carry out what the stage promote decided in a run that is done; None where it decided nothing.

    `recipe` has the champion that the decision was made against (`crowned`). A decision that was carried out before is
    not carried out again, so that a run in which nothing changed changes nothing.
    """
    decision = _decision(store, recipe, run_id, stages)
    if decision is None or _WITHOUT.get():
        return None
    before = champions.history(store, recipe.name)
    here, model = before[-1] if before else None, decision.model
    if here and here.artifact == decision.artifact:
        return Promotion("unchanged", f"{model} is the champion of {recipe.name} already (run {here.run_id})", decision)
    if not decision.promoted:
        return Promotion("not promoted", f"{model} does not become champion: {decision.verdict}", decision)
    if any(c.decision == decision.id and c.artifact == decision.artifact for c in before):
        text = f"{model} was champion of {recipe.name} before, and `align promote {run_id}` makes it champion again"
        return Promotion("unchanged", text, decision)
    after = _after(store, recipe)
    if after is None:
        return _overtaken(store, recipe, decision)
    if recipe.promote.approve and not (approved := ask(decision)):
        if approved is None:
            text = f"{model} waits for approval, which `align promote {run_id}` gives: {decision.verdict}"
            return Promotion("waits", text, decision)
        return Promotion("not promoted", f"{model} was not approved by people: {decision.verdict}", decision)
    with store.in_use():  # nothing is removed between a look at the artifact and its being a champion's
        while after is not None and store.artifact(decision.artifact):
            if made := _crown(store, decision, recipe.base.model_dump(mode="json"), after):
                return Promotion("promoted", _told(made, decision.verdict), decision)
            after = _after(store, recipe)
    return _overtaken(store, recipe, decision)


def by_hand(store: Store, run: str, recipe: Recipe, force: str | None) -> Promotion:
    """Make the final model of a run the champion because a person says so. Raises InputError where the stage promote
    did not say yes, or said so against another champion than there is now, unless `force` gives a reason."""
    if force is not None and not force.strip():
        raise InputError("--force wants a reason, which is kept.")
    stages = [StageRun(**{n: s[n] for n in StageRun.__dataclass_fields__}) for s in runs.stages(store, run)]
    made = _ends_with(recipe, stages)
    name, artifact = (made.stage, made.artifact) if made else (final(recipe), None)
    if artifact is None or store.artifact(artifact) is None:
        raise InputError(f"Run {run} has no {name}, the model that it ends with; `align show {run}` says what it did.")
    decision = _decision(store, recipe, run, stages)
    last = champions.last_number(store, recipe.name)
    here = champions.current(store, recipe.name)
    if decision is None:
        decision = Decision(recipe.name, run, name, artifact, "", False, "the run has no verdict", [], True)
    if here and here.artifact == artifact:
        return Promotion("unchanged", f"{name} is the champion of {recipe.name} already (run {here.run_id})", decision)
    why = "" if decision.promoted else decision.verdict
    if not why and _after(store, recipe) is None:
        why = f"the champion changed since{f', to that of run {here.run_id}' if here else ''}"
    if why and force is None:
        raise InputError(
            f"Not promoted: {why}; `align promote {run} --force REASON` makes {name} champion all the same."
        )
    if force is not None:
        decision = replace(decision, verdict=f"{decision.verdict}; promoted by hand: {force.strip()}")
    with store.in_use():
        champion = _crown(store, decision, recipe.base.model_dump(mode="json"), last)
    if champion is None:
        raise InputError(f"Another champion of {recipe.name} was made meanwhile; `align runs` shows it.")
    return Promotion("promoted", _told(champion, decision.verdict), decision)


def _ends_with(recipe: Recipe, stages: Iterable[StageRun]) -> StageRun | None:
    """What made the model that a run ends with; of several rounds what the stage newest chose. None where there is
    none."""
    by, last = {stage.stage: stage for stage in stages}, final(recipe)
    if last == "newest" and last in by:
        last = str(by[last].metrics.get("policy", last))
    return by.get(last)


def _decision(store: Store, recipe: Recipe, run_id: str, stages: Iterable[StageRun]) -> Decision | None:
    stages = list(stages)
    decided, made = next((s for s in stages if s.stage == "promote"), None), _ends_with(recipe, stages)
    if decided is None or made is None or decided.artifact is None or made.artifact is None:
        return None
    said: Any = store.content(decided.artifact, "promotion.json")
    if not isinstance(said, dict) or said.get("model") != made.stage:
        return None
    return Decision(
        recipe.name, run_id, made.stage, made.artifact, decided.artifact, bool(said["promoted"]), str(said["verdict"]),
        list(said["reasons"]), decided.status == "ran",
    )  # fmt: skip


def _after(store: Store, recipe: Recipe) -> int | None:
    """The number of the champion that the run's model would follow; None where the champion that it was compared with
    is none any more."""
    last = champions.last_number(store, recipe.name)
    if recipe.promote.against != "champion":
        return last
    return last if last == (recipe.champion.number if recipe.champion else 0) else None


def _crown(store: Store, decision: Decision, base: dict[str, Any], after: int) -> Champion | None:
    return champions.crown(
        store, decision.recipe, after, run_id=decision.run_id, model=decision.model, artifact=decision.artifact,
        base=base, verdict=decision.verdict, decision=decision.id or None,
    )  # fmt: skip


def _told(made: Champion, verdict: str) -> str:
    return f"{made.model} of run {made.run_id} is the champion of {made.recipe} now: {verdict}"


def _overtaken(store: Store, recipe: Recipe, decision: Decision) -> Promotion:
    now = champions.current(store, recipe.name)
    text = f"the champion of {recipe.name} changed meanwhile{f', to that of run {now.run_id}' if now else ''}"
    return Promotion("not promoted", f"{text}; the same command compares with it", decision)
